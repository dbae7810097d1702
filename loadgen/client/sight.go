package client

import (
	"unicode"
	"unicode/utf8"
)

// sight is what a reader sees of a piece of text. The first token has to be visible: a
// service that sends a blank or an invisible character at once, and its answer later,
// has not answered yet.
type sight uint8

const (
	nothing sight = iota // there is no text
	unseen               // only characters without width: zero-width space, byte order mark, control characters
	blank                // only white space
	visible
)

// sightOf is the sight of a JSON value. A value that is not a string is visible if it
// is not empty.
func sightOf(value []byte) sight {
	if len(value) < 2 || value[0] != '"' {
		if says(value) {
			return visible
		}
		return nothing
	}
	best := nothing
	for rest := value[1 : len(value)-1]; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		switch {
		case r != '\\':
		case len(rest) > 1 && rest[1] == 'u':
			return max(best, sightOfText(text(value))) // decodes the string, which few chunks need
		default:
			r, size = escaped(rest), 2
		}
		if best = max(best, sightOfRune(r)); best == visible {
			return visible
		}
		rest = rest[min(size, len(rest)):]
	}
	return best
}

// escaped is the character of a short escape such as \n.
func escaped(rest []byte) rune {
	if len(rest) < 2 {
		return utf8.RuneError
	}
	switch rest[1] {
	case 'n', 't', 'r':
		return '\n'
	case 'b', 'f':
		return '\b'
	}
	return rune(rest[1])
}

// sightOfText is the sight of a text.
func sightOfText(s string) sight {
	best := nothing
	for _, r := range s {
		if best = max(best, sightOfRune(r)); best == visible {
			break
		}
	}
	return best
}

func sightOfRune(r rune) sight {
	switch {
	case '!' <= r && r <= '~':
		return visible
	case unicode.IsSpace(r):
		return blank
	case r == '\u2800', unicode.In(r, unicode.Cc, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector):
		return unseen // U+2800 is a Braille pattern without dots
	case unicode.Is(unicode.Z, r):
		return blank
	}
	return visible
}
