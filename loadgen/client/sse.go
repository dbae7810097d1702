package client

import (
	"bytes"
	"errors"
	"time"
)

// maxEvent bounds one event, far above any real one: a server that never ends
// a line must not fill the client's memory.
const maxEvent = 8 << 20

var errEventTooLarge = errors.New("one event is larger than 8 MiB")

// event is a server-sent event, stamped when its last byte was read.
type event struct {
	name string // of the event field, mostly empty
	data []byte // valid until the next event
	at   time.Duration
}

// eventParser splits a byte stream into server-sent events as the HTML
// standard tells (https://html.spec.whatwg.org/multipage/server-sent-events.html):
// lines end with CR, LF or CRLF, a blank line ends an event, several data lines
// are joined by LF, a line that begins with a colon is a comment, and a byte
// order mark at the start is skipped. It may be fed in pieces of any size.
type eventParser struct {
	emit    func(event)
	line    []byte
	name    string
	data    []byte
	hasData bool
	afterCR bool // the next LF belongs to the CR before it
	started bool // the first line has been seen
}

var byteOrderMark = []byte("\xef\xbb\xbf")

// feed takes the next bytes, which were read at the given time.
func (p *eventParser) feed(b []byte, at time.Duration) error {
	for len(b) > 0 {
		if p.afterCR {
			p.afterCR = false
			if b[0] == '\n' {
				b = b[1:]
				continue
			}
		}
		end := bytes.IndexAny(b, "\r\n")
		if end < 0 {
			p.line = append(p.line, b...)
			return p.tooLarge()
		}
		p.line = append(p.line, b[:end]...)
		p.afterCR = b[end] == '\r'
		b = b[end+1:]
		p.endLine(at)
		if err := p.tooLarge(); err != nil {
			return err
		}
	}
	return nil
}

func (p *eventParser) tooLarge() error {
	if len(p.line)+len(p.data) > maxEvent {
		return errEventTooLarge
	}
	return nil
}

func (p *eventParser) endLine(at time.Duration) {
	line := p.line
	p.line = p.line[:0]
	if !p.started {
		p.started = true
		line = bytes.TrimPrefix(line, byteOrderMark)
	}
	if len(line) == 0 {
		p.dispatch(at)
		return
	}
	field, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(field) {
	case "data":
		if p.hasData {
			p.data = append(p.data, '\n')
		}
		p.data = append(p.data, value...)
		p.hasData = true
	case "event":
		p.name = string(value)
	}
}

func (p *eventParser) dispatch(at time.Duration) {
	if p.hasData {
		p.emit(event{p.name, p.data, at})
	}
	p.data, p.hasData, p.name = p.data[:0], false, ""
}

// end dispatches what lies complete but for its blank line, which some servers
// leave out after the last event.
func (p *eventParser) end(at time.Duration) {
	if len(p.line) > 0 {
		p.endLine(at)
	}
	p.dispatch(at)
}
