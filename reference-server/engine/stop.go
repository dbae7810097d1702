package engine

import "strings"

// stopper holds back text that may be the beginning of a stop string, so that
// no part of a stop string is sent.
type stopper struct {
	stops []string
	held  string
}

// next takes the text that was written and returns what may be sent, and
// whether a stop string was reached.
func (s *stopper) next(text string) (send string, stopped bool) {
	if len(s.stops) == 0 {
		return text, false
	}
	s.held += text
	at := -1
	for _, stop := range s.stops {
		if i := strings.Index(s.held, stop); i >= 0 && (at < 0 || i < at) {
			at = i
		}
	}
	if at >= 0 {
		send, s.held = s.held[:at], ""
		return send, true
	}
	keep := 0
	for _, stop := range s.stops {
		for n := min(len(stop)-1, len(s.held)); n > keep; n-- {
			if strings.HasSuffix(s.held, stop[:n]) {
				keep = n
				break
			}
		}
	}
	send, s.held = s.held[:len(s.held)-keep], s.held[len(s.held)-keep:]
	return send, false
}

// rest is the text that was held back at the end of the answer.
func (s *stopper) rest() string {
	text := s.held
	s.held = ""
	return text
}
