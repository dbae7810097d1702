package gateway

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// marked is a connection that adds the security headers to answers of net/http's
// own. net/http answers requests by itself that it cannot parse, or whose headers
// are too long.
type marked struct {
	net.Conn
	v      *visitor
	tls    bool
	begun  bool
	frames *framed // of HTTP/2; nil: HTTP/1.1
}

func (m *marked) Write(b []byte) (int, error) {
	if !m.begun && len(b) > 0 {
		m.begun = true
		if b[0] == 0 { // the length of a frame; a line of HTTP/1.1 begins with a letter
			m.frames = newFramed(m.tls)
		}
	}
	var with []byte
	if m.frames != nil {
		with = m.frames.next(b)
	} else if with = withHeaders(b, m.tls); with == nil {
		return m.Conn.Write(b)
	}
	if len(with) == 0 { // kept until the rest has come
		return len(b), nil
	}
	n, err := m.Conn.Write(with)
	if n == len(with) {
		n = len(b)
	}
	return min(n, len(b)), err
}

var plainHeaders, tlsHeaders = headerLines(false), headerLines(true)

func headerLines(tls bool) string {
	var b bytes.Buffer
	h := http.Header{}
	secure(h, tls)
	_ = h.Write(&b) // a buffer takes everything
	return b.String()
}

// withHeaders adds the security headers to a refusal of HTTP/1.1. It is nil if b is
// no refusal, or has them.
func withHeaders(b []byte, tls bool) []byte {
	if !bytes.HasPrefix(b, []byte("HTTP/1.1 4")) && !bytes.HasPrefix(b, []byte("HTTP/1.1 5")) {
		return nil
	}
	line := bytes.Index(b, []byte("\r\n"))
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 || bytes.Contains(b[:end], []byte("\r\nX-Content-Type-Options:")) {
		return nil
	}
	own := plainHeaders
	if tls {
		own = tlsHeaders
	}
	out := make([]byte, 0, len(b)+len(own))
	out = append(out, b[:line+2]...)
	out = append(out, own...)
	return append(out, b[line+2:]...)
}

// framed passes frames of HTTP/2 on, and adds the security headers to a refusal
// that lacks them. It decodes the headers of every answer, because HPACK refers to
// earlier headers. It adds literals that are not indexed, so that the client's
// table stays the one that net/http assumes.
type framed struct {
	own     []literal // the security headers
	reads   *hpack.Decoder
	status  string
	secured []string // those of them that the header block has

	part []byte // of a frame that has not come whole
	left int    // bytes of a frame's payload that are passed on as they come
}

// literal is a header as it is added.
type literal struct {
	name string
	b    []byte
}

const frameHead = 9 // bytes before the payload of a frame

func newFramed(tls bool) *framed {
	f := &framed{}
	h := http.Header{}
	secure(h, tls)
	for name, values := range h {
		name = strings.ToLower(name)
		f.own = append(f.own, literal{name, appendText(appendText([]byte{0}, name), values[0])}) // not indexed, of a new name
	}
	f.reads = hpack.NewDecoder(4<<10, func(h hpack.HeaderField) {
		if h.Name == ":status" {
			f.status = h.Value
		} else if f.status >= "400" && slices.ContainsFunc(f.own, func(l literal) bool { return l.name == h.Name }) {
			f.secured = append(f.secured, h.Name)
		}
	})
	f.reads.SetAllowedMaxDynamicTableSize(1 << 20) // the client sets the size
	return f
}

// appendText is a string of HPACK, of 126 bytes at the most.
func appendText(b []byte, s string) []byte { return append(append(b, byte(len(s))), s...) }

// next is what can be sent of b and of the bytes kept before.
func (f *framed) next(b []byte) []byte {
	if len(f.part) == 0 && f.plain(b) {
		return b
	}
	var out []byte
	f.part = append(f.part, b...)
	for len(f.part) > 0 {
		if f.left > 0 {
			n := min(f.left, len(f.part))
			out, f.part, f.left = append(out, f.part[:n]...), f.part[n:], f.left-n
			continue
		}
		if len(f.part) < frameHead {
			break
		}
		size := frameHead + frameSize(f.part)
		if kind := http2.FrameType(f.part[3]); kind != http2.FrameHeaders && kind != http2.FrameContinuation {
			f.left = size
			continue
		}
		if len(f.part) < size {
			break
		}
		out = append(out, f.headers(f.part[:size:size])...)
		f.part = f.part[size:]
	}
	f.part = append([]byte(nil), f.part...) // b is its writer's
	return out
}

// plain passes b on if it has no headers, as most of a stream. It reports false if
// b has to be parsed.
func (f *framed) plain(b []byte) bool {
	at, left := 0, f.left
	for at < len(b) {
		if left > 0 {
			n := min(left, len(b)-at)
			at, left = at+n, left-n
			continue
		}
		if len(b)-at < frameHead {
			return false
		}
		if kind := http2.FrameType(b[at+3]); kind == http2.FrameHeaders || kind == http2.FrameContinuation {
			return false
		}
		left = frameHead + frameSize(b[at:])
	}
	f.left = left
	return true
}

func frameSize(b []byte) int { return int(b[0])<<16 | int(b[1])<<8 | int(b[2]) }

// headers adds the missing security headers to a frame of headers. net/http never
// pads such a frame.
func (f *framed) headers(frame []byte) []byte {
	flags := http2.Flags(frame[4])
	if http2.FrameType(frame[3]) == http2.FrameHeaders {
		f.status, f.secured = "", f.secured[:0]
	}
	_, err := f.reads.Write(frame[frameHead:])
	if !flags.Has(http2.FlagHeadersEndHeaders) {
		return frame
	}
	if f.reads.Close() != nil || err != nil || f.status < "400" || len(f.secured) == len(f.own) {
		return frame
	}
	with := frame
	for _, l := range f.own {
		if !slices.Contains(f.secured, l.name) {
			with = append(with, l.b...)
		}
	}
	size := len(with) - frameHead
	if size > 16<<10 { // the frame size that every client accepts
		return frame
	}
	var head [4]byte
	binary.BigEndian.PutUint32(head[:], uint32(size))
	copy(with, head[1:])
	return with
}
