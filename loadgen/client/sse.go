package client

import (
	"bytes"
	"time"

	"github.com/launchgate/launchgate/internal/words"
)

// maxEvent bounds one event, far above real ones, so that a server that never ends a
// line does not fill the client's memory.
const maxEvent = 8 << 20

var errEventTooLarge = words.Errorf("one event is larger than 8 MiB")

// event is a server-sent event, stamped when its last byte was read.
type event struct {
	name string // the event field, usually empty
	data []byte // valid until the next event
	at   time.Duration
}

// eventParser splits a byte stream into server-sent events, as the HTML standard
// defines (https://html.spec.whatwg.org/multipage/server-sent-events.html): lines end
// with CR, LF or CRLF, a blank line ends an event, several data lines are joined by LF,
// a line that begins with a colon is a comment, and a byte order mark at the start is
// skipped. The stream may be fed in pieces of any size. Data that is whole in one piece
// is not copied.
type eventParser struct {
	emit    func(event)
	stray   func(line []byte) // receives lines that do not belong to an event stream, if not nil
	line    []byte            // the beginning of a line that continues in the next piece
	name    string
	data    []byte // of the event so far: a copy, or a part of the piece
	kept    []byte // buffer for data that outlives a piece
	hasData bool
	afterCR bool // whether an LF that comes next belongs to the CR before it
	started bool // whether the first line has been read
}

var byteOrderMark = []byte("\xef\xbb\xbf")

// feed parses the next bytes, which were read at the given time.
func (p *eventParser) feed(b []byte, at time.Duration) error {
	if p.afterCR && len(b) > 0 {
		p.afterCR = false
		if b[0] == '\n' {
			b = b[1:]
		}
	}
	for len(b) > 0 {
		line, rest, ended := cutLine(b)
		if !ended {
			p.line = append(p.line, b...)
			break
		}
		p.afterCR = len(rest) == 0 && b[len(b)-1] == '\r'
		b = rest
		if len(p.line) > 0 {
			p.line = append(p.line, line...)
			p.endLine(p.line, at)
			p.keep()
			p.line = p.line[:0]
		} else {
			p.endLine(line, at)
		}
		if err := p.tooLarge(); err != nil {
			return err
		}
	}
	p.keep()
	return p.tooLarge()
}

// cutLine takes the first line off b, with its line end. A CR at the end of b may be
// half of a CRLF.
func cutLine(b []byte) (line, rest []byte, ended bool) {
	end := bytes.IndexByte(b, '\n')
	line = b
	if end >= 0 {
		line = b[:end]
	}
	cr := bytes.IndexByte(line, '\r')
	switch {
	case cr < 0 && end < 0:
		return nil, nil, false
	case cr < 0:
		return line, b[end+1:], true
	case cr == end-1:
		return line[:cr], b[end+1:], true
	}
	return line[:cr], b[cr+1:], true
}

func (p *eventParser) tooLarge() error {
	if len(p.line)+len(p.data) > maxEvent {
		return errEventTooLarge
	}
	return nil
}

// keep copies the data of an incomplete event, because it outlives the piece.
func (p *eventParser) keep() {
	if !p.hasData || len(p.data) == 0 {
		return
	}
	if len(p.kept) > 0 && &p.kept[0] == &p.data[0] {
		return
	}
	p.kept = append(p.kept[:0], p.data...)
	p.data = p.kept
}

func (p *eventParser) endLine(line []byte, at time.Duration) {
	if !p.started {
		p.started = true
		line = bytes.TrimPrefix(line, byteOrderMark)
	}
	if len(line) == 0 {
		p.dispatch(at)
		return
	}
	field, value, _ := bytes.Cut(line, colon)
	if len(value) > 0 && value[0] == ' ' {
		value = value[1:]
	}
	switch string(field) {
	case "data":
		if p.hasData {
			p.keep() // copied at most once for each event of several lines
			if len(p.data) == 0 {
				p.kept = p.kept[:0]
			}
			p.kept = append(append(p.kept, '\n'), value...)
			p.data = p.kept
			return
		}
		p.data, p.hasData = value, true
	case "event":
		p.name = eventName(value)
	case "", "id", "retry": // comments, and fields that no API uses
	default:
		if p.stray != nil {
			p.stray(line)
		}
	}
}

var colon = []byte(":")

// eventName is an event name as a string, without an allocation for the names that the
// APIs use in every event.
func eventName(b []byte) string {
	switch string(b) {
	case "response.output_text.delta":
		return "response.output_text.delta"
	case "response.function_call_arguments.delta":
		return "response.function_call_arguments.delta"
	}
	return string(b)
}

func (p *eventParser) dispatch(at time.Duration) {
	if p.hasData {
		p.emit(event{p.name, p.data, at})
	}
	p.data, p.hasData, p.name = nil, false, ""
}

// end dispatches an event that is complete except for its blank line, which some
// servers omit after the last event.
func (p *eventParser) end(at time.Duration) {
	if len(p.line) > 0 {
		p.endLine(p.line, at)
		p.line = p.line[:0]
	}
	p.dispatch(at)
}
