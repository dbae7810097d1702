package gateway

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// wholesome is a handler whose answers have bodies of several frames.
func wholesome(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Long", strings.Repeat("y", 3000)) // its headers come in several writes
	_, _ = io.WriteString(w, strings.Repeat("x", 50_000))
}

// listenersOf serve a handler as a gateway and as a replica do, over TLS and in clear.
func listenersOf(t *testing.T) map[string]func(protocol string) net.Conn {
	dir := t.TempDir()
	certificate, err := DevTLS(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, generous(), openBooks(t), newBackend(t, wholesome))
	at := map[string]func(string) net.Conn{}
	for name, c := range map[string]*tls.Config{"clear": nil, "tls": certificate} {
		gateway, err := h.g.Listen("127.0.0.1:0", c)
		if err != nil {
			t.Fatal(err)
		}
		replica, err := Listen("127.0.0.1:0", http.HandlerFunc(wholesome), c, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		for kind, d := range map[string]*Listener{"gateway": gateway, "replica": replica} {
			t.Cleanup(func() { d.Close() })
			at[kind+" "+name] = func(protocol string) net.Conn {
				dial := func() (net.Conn, error) { return net.DialTimeout("tcp", d.Addr().String(), 5*time.Second) }
				if c != nil {
					dial = func() (net.Conn, error) {
						return tls.Dial("tcp", d.Addr().String(), &tls.Config{RootCAs: poolOf(t, dir), NextProtos: []string{protocol}})
					}
				}
				conn, err := dial()
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				return conn
			}
		}
	}
	return at
}

// What net/http answers by itself has the security headers too, over HTTP/1.1.
func TestNetHTTPsOwnAnswersAreSecure(t *testing.T) {
	long := strings.Repeat("x", 300<<10)
	for frontEnd, dial := range listenersOf(t) {
		for sent, status := range map[string]int{
			"nonsense of more than 24 bytes\r\n\r\n": 400, "GET / HTTP/1.1\r\n\r\n": 400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n": 400, "GET / HTTP/3.0\r\nHost: x\r\n\r\n": 505,
			"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + long + "\r\n\r\n": 431, "GET /" + long + " HTTP/1.1\r\nHost: x\r\n\r\n": 431,
			"POST /v1/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n": 501, "POST /v1/x HTTP/1.1\r\nHost: x\r\nExpect: wonders\r\nContent-Length: 2\r\n\r\n{}": 417,
			"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n": 400, "GET / HTTP/1.1\r\nHost: x\r\nBad Name: x\r\n\r\n": 400,
		} {
			conn := dial("http/1.1")
			go func() { _, _ = io.WriteString(conn, sent) }()
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Errorf("%s: %.60q: %v", frontEnd, sent, err)
				continue
			}
			if resp.StatusCode != status || resp.Header.Get("X-Content-Type-Options") != "nosniff" || len(resp.Header["Cache-Control"]) != 1 || (resp.Header.Get("Strict-Transport-Security") != "") != strings.HasSuffix(frontEnd, "tls") {
				t.Errorf("%s: %.60q: %s %v, want %d with the security headers", frontEnd, sent, resp.Status, resp.Header, status)
			}
			conn.Close()
		}
	}
}

// The same over HTTP/2, in the middle of answers that are as they were.
func TestNetHTTPsOwnAnswersAreSecureOverHTTP2(t *testing.T) {
	for frontEnd, dial := range listenersOf(t) {
		t.Run(frontEnd, func(t *testing.T) {
			conn := dial("h2")
			if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
				t.Fatal(err)
			}
			f := http2.NewFramer(conn, conn)
			f.ReadMetaHeaders = hpack.NewDecoder(4<<10, nil) // the client's table has to stay right
			f.MaxHeaderListSize = 1 << 20
			if err := f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30}); err != nil {
				t.Fatal(err)
			}
			if err := f.WriteWindowUpdate(0, 1<<30); err != nil {
				t.Fatal(err)
			}
			for i, tt := range []struct {
				headers []string
				status  string
			}{
				{nil, "200"}, {[]string{"connection", "close"}, "400"}, {nil, "200"}, {[]string{"te", "gzip"}, "400"}, {[]string{"transfer-encoding", "chunked"}, "400"},
				{slices.Repeat([]string{"x-long", strings.Repeat("0", 4000)}, 100), "431"}, {nil, "200"}, {[]string{"connection", "close"}, "400"}, {nil, "200"},
			} {
				id := uint32(2*i + 1)
				got, length := askOver(t, f, id, tt.headers)
				status := got.PseudoValue("status")
				fields := map[string][]string{}
				for _, h := range got.RegularFields() {
					fields[h.Name] = append(fields[h.Name], h.Value)
				}
				if strings.HasPrefix(frontEnd, "gateway") && tt.status == "200" {
					tt.status = "401"
				}
				if status != tt.status || len(fields["x-content-type-options"]) != 1 || len(fields["cache-control"]) != 1 || fields["cache-control"][0] != "no-store" || (len(fields["strict-transport-security"]) == 1) != strings.HasSuffix(frontEnd, "tls") {
					t.Errorf("request %d: %s %v, want %s with the security headers", i, status, fields, tt.status)
				}
				if status == "200" && length != 50_000 {
					t.Errorf("request %d: the body has %d bytes", i, length)
				}
			}
		})
	}
}

// askOver asks over HTTP/2 and reads the whole answer.
func askOver(t *testing.T, f *http2.Framer, id uint32, headers []string) (got *http2.MetaHeadersFrame, length int) {
	t.Helper()
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for i, all := 0, append([]string{":method", "GET", ":scheme", "https", ":authority", "127.0.0.1", ":path", "/v1/models"}, headers...); i < len(all); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: all[i], Value: all[i+1]}) // a buffer takes everything
	}
	rest := block.Bytes()
	for first := true; first || len(rest) > 0; first = false {
		n := min(len(rest), 16<<10)
		var err error
		if first {
			err = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: rest[:n], EndStream: true, EndHeaders: n == len(rest)})
		} else {
			err = f.WriteContinuation(id, n == len(rest), rest[:n])
		}
		if err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatalf("stream %d: %v", id, err)
		}
		ended := false
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			if frame.StreamID == id {
				copied := *frame
				got, ended = &copied, frame.StreamEnded()
			}
		case *http2.DataFrame:
			if frame.StreamID == id {
				length += len(frame.Data())
				ended = frame.StreamEnded()
			}
		case *http2.RSTStreamFrame:
			ended = frame.StreamID == id
		case *http2.GoAwayFrame:
			t.Fatalf("stream %d: %v", id, frame)
		}
		if ended {
			if got == nil {
				t.Fatalf("stream %d ended without headers", id)
			}
			return got, length
		}
	}
}

// Frames are passed on as they were, in whatever pieces they are written.
func TestFramesStayWhole(t *testing.T) {
	var sent bytes.Buffer
	f := http2.NewFramer(&sent, nil)
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for i := range 50 {
		block.Reset()
		_ = e.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
		_ = e.WriteField(hpack.HeaderField{Name: "x-number", Value: fmt.Sprint(i)})
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: block.Bytes(), EndHeaders: true})
		_ = f.WriteData(uint32(2*i+1), i%2 == 0, bytes.Repeat([]byte("d"), i*i))
		_ = f.WritePing(i%2 == 0, [8]byte{1})
	}
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		m, rest := newFramed(true), sent.Bytes()
		var came []byte
		for len(rest) > 0 {
			n := min(len(rest), 1+r.IntN(1+int(seed)*20))
			came = append(came, m.next(bytes.Clone(rest[:n]))...)
			rest = rest[n:]
		}
		if !bytes.Equal(came, sent.Bytes()) {
			t.Fatalf("seed %d: %d bytes became %d, or others", seed, sent.Len(), len(came))
		}
	}
}
