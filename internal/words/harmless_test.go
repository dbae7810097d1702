package words_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/launchgate/launchgate/internal/words"
)

func TestHarmless(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "",
		"plain, with ümlauts, 中文": "plain, with ümlauts, 中文",
		"a line\nand\ta tab":      "a line\nand\ta tab",
		"\x1b[2J\x1b[31mred":      `\x1b[2J\x1b[31mred`,
		"\x00\x01\x7f\b\r":        `\x00\x01\x7f\x08\x0d`,
		"\u009b31m":               `\x9b31m`,
		"user\u202etxt.exe":       `user\u202etxt.exe`,
		"\u2066a\u2069\u200f":     `\u2066a\u2069\u200f`,
		"zero\u200bwidth":         `zero\u200bwidth`,
		"no\ufffechar":            `no\ufffechar`,
		"tag\U000e0041":           `tag\U000e0041`,
		"bad\xffbyte":             "bad\ufffdbyte",
		"👩\u200d🚀 stays":          "👩\u200d🚀 stays",
		"<b>&amp; ]]>":            "<b>&amp; ]]>", // markup is quoted by who writes markup
	} {
		if got := words.Harmless(text); got != want {
			t.Errorf("%q is shown as %q, want %q", text, got, want)
		}
	}
}

// Shown text has nothing harmful in it, and showing it again does not change
// it.
func FuzzHarmless(f *testing.F) {
	f.Add("\x1b[2J")
	f.Add("a\u202eb\xff")
	f.Fuzz(func(t *testing.T, text string) {
		got := words.Harmless(text)
		if !utf8.ValidString(got) || words.Harmless(got) != got {
			t.Fatalf("%q is shown as %q, and that as %q", text, got, words.Harmless(got))
		}
		if i := strings.IndexFunc(got, func(r rune) bool {
			return unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r)
		}); i >= 0 {
			t.Fatalf("%q is shown as %q", text, got)
		}
	})
}
