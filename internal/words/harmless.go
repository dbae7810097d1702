package words

import (
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"
)

// Harmless makes a text of others safe to show in a terminal, a log, a page or an XML
// file. It escapes control characters (an escape sequence could overwrite earlier
// lines), characters that change the direction of writing, characters without width
// and invalid ones, as \x1b or \u202e. Line breaks and tabs stay.
func Harmless(text string) string {
	first := strings.IndexFunc(text, func(r rune) bool { return r == utf8.RuneError || harms(r) })
	if first < 0 {
		return text
	}
	var b strings.Builder
	b.WriteString(text[:first])
	for i := first; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b.WriteRune(utf8.RuneError)
		case !harms(r):
			b.WriteString(text[i : i+size])
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		i += size
	}
	return b.String()
}

// harms reports whether a character does more than show itself. The joiners that
// emoji and several scripts are written with are not among them.
func harms(r rune) bool {
	switch {
	case r == '\n' || r == '\t':
		return false
	case r < 0x20, 0x7f <= r && r < 0xa0:
		return true // C0 and C1: escapes, backspaces
	case r < 0xad:
		return false
	}
	switch {
	case r == 0xad, r == 0x61c, r == 0x180e, // soft hyphen, Arabic letter mark, vowel separator
		r == 0x200b, r == 0x200e, r == 0x200f, // zero width, marks of direction
		0x2028 <= r && r <= 0x202e, // line and paragraph separators, embeddings, overrides
		0x2060 <= r && r <= 0x206f, // word joiner, isolates, deprecated format characters
		r == 0xfeff, 0xfff9 <= r && r <= 0xfffb,
		0xfdd0 <= r && r <= 0xfdef, r&0xfffe == 0xfffe, // no characters
		0xe0000 <= r && r <= 0xe007f: // tags
		return true
	}
	return false
}

// HarmlessIn makes every text within a value that v points to harmless, where it
// stands: of what somebody else wrote to be shown. The keys of maps are left, and so
// is what is not exported.
func HarmlessIn(v any) { harmlessIn(reflect.ValueOf(v)) }

func harmlessIn(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		if v.CanSet() {
			if was := v.String(); was != "" {
				if is := Harmless(was); is != was {
					v.SetString(is)
				}
			}
		}
	case reflect.Pointer:
		if !v.IsNil() {
			harmlessIn(v.Elem())
		}
	case reflect.Interface:
		if text, is := v.Interface().(string); is && v.CanSet() {
			v.Set(reflect.ValueOf(Harmless(text)))
		} else if !v.IsNil() && v.Elem().Kind() == reflect.Pointer {
			harmlessIn(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() {
				harmlessIn(f)
			}
		}
	case reflect.Slice, reflect.Array:
		if k := v.Type().Elem().Kind(); reflect.Bool <= k && k <= reflect.Complex128 {
			return // numbers
		}
		for i := range v.Len() {
			harmlessIn(v.Index(i))
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			of := reflect.New(v.Type().Elem()).Elem()
			of.Set(v.MapIndex(key))
			harmlessIn(of)
			v.SetMapIndex(key, of)
		}
	}
}
