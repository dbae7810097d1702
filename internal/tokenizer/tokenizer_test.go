package tokenizer

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// bytesOnly is a byte-level vocabulary: all bytes, a few merges, two specials.
func bytesOnly(t testing.TB) *Tokenizer {
	t.Helper()
	c := Config{Model: "gpt2", Pre: "gpt-2", BOS: -1, EOS: 1, EOT: -1, Template: `{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}`}
	add := func(s string, typ int) { c.Tokens, c.Types = append(c.Tokens, s), append(c.Types, typ) }
	add("<|im_start|>", TypeControl)
	add("<|im_end|>", TypeControl)
	for b := range 256 {
		add(string(toRune[b]), TypeNormal)
	}
	for _, m := range []string{"h e", "l l", "he ll", "hell o", "Ġ w", "Ġw o"} {
		c.Merges = append(c.Merges, m)
		add(strings.Replace(m, " ", "", 1), TypeNormal)
	}
	tok, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// pieces is a SentencePiece vocabulary.
func pieces(t testing.TB) *Tokenizer {
	t.Helper()
	c := Config{Model: "llama", BOS: 1, EOS: 2, EOT: -1, AddBOS: true, AddSpacePrefix: true}
	add := func(s string, typ int, score float64) {
		c.Tokens, c.Types, c.Scores = append(c.Tokens, s), append(c.Types, typ), append(c.Scores, score)
	}
	add("<unk>", TypeUnknown, 0)
	add("<s>", TypeControl, 0)
	add("</s>", TypeControl, 0)
	const hex = "0123456789ABCDEF"
	for b := range 256 {
		add("<0x"+string(hex[b>>4])+string(hex[b&15])+">", TypeByte, 0)
	}
	for i, s := range []string{"he", "ll", "hell", "hello", "▁hello", "▁w", "▁", "h", "e", "l", "o", "w", "▁wo"} {
		add(s, TypeNormal, -float64(i))
	}
	tok, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func words(t *Tokenizer, ids []int32) string {
	var out []string
	for _, id := range ids {
		out = append(out, t.Tokens[id])
	}
	return strings.Join(out, "|")
}

func TestEncode(t *testing.T) {
	b, p := bytesOnly(t), pieces(t)
	for _, tt := range []struct {
		name    string
		tok     *Tokenizer
		text    string
		special bool
		want    string
	}{
		{"merges in order of rank", b, "hello wo", false, "hello|Ġwo"},
		{"a word the merges do not finish", b, "help", false, "he|l|p"},
		{"special as text", b, "<|im_end|>", false, "<|||i|m|_|e|n|d|||>"},
		{"special", b, "hello<|im_end|>he", true, "hello|<|im_end|>|he"},
		{"bytes of a rune", b, "é", false, "Ã|©"},
		{"nothing", b, "", false, ""},
		{"pieces", p, "hello wo", false, "<s>|▁hello|▁wo"},
		{"a byte that no piece covers", p, "é", false, "<s>|▁|<0xC3>|<0xA9>"},
		{"BOS once", p, "<s>hello", true, "<s>|▁hello"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := words(tt.tok, tt.tok.Encode(tt.text, tt.special)); got != tt.want {
				t.Errorf("%q is %s, want %s", tt.text, got, tt.want)
			}
		})
	}
}

// Any text is unchanged after encoding and decoding, also if it is decoded
// token by token, and every piece is valid UTF-8.
func FuzzRoundTrip(f *testing.F) {
	for _, s := range []string{"hello world", "  two  spaces\n\n", "né 中文 😀", "don't 1234!?", "\x00\xff\xfe", "<|im_start|>"} {
		f.Add(s)
	}
	tok := bytesOnly(f)
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) {
			text = strings.ToValidUTF8(text, "?")
		}
		ids := tok.Encode(text, false)
		if got := tok.Decode(ids); got != text {
			t.Fatalf("%q comes back as %q", text, got)
		}
		d, streamed := tok.Decoder(), ""
		for _, id := range ids {
			piece := d.Next(id)
			if !utf8.ValidString(piece) {
				t.Fatalf("%q: the piece %q is broken", text, piece)
			}
			streamed += piece
		}
		if streamed += d.Rest(); streamed != text {
			t.Fatalf("%q streams as %q", text, streamed)
		}
	})
}

// Bytes that never become a rune do not hold the stream back.
func TestDecoderGivesUpOnBrokenBytes(t *testing.T) {
	tok := bytesOnly(t)
	r := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		d := tok.Decoder()
		for range 20 {
			id := int32(2 + r.IntN(256))
			if piece := d.Next(id); !utf8.ValidString(piece) {
				t.Fatalf("piece %q", piece)
			}
			if len(d.held) > 3 {
				t.Fatalf("%d bytes are held back", len(d.held))
			}
		}
		if rest := d.Rest(); !utf8.ValidString(rest) {
			t.Fatalf("rest %q", rest)
		}
	}
}

func TestTemplate(t *testing.T) {
	tok := bytesOnly(t)
	c, err := tok.ChatTemplate()
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Render([]Message{{"system", "Be kind."}, {"user", "<b>Hi</b> & {{ bye }}"}})
	want := "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n<b>Hi</b> & {{ bye }}<|im_end|>\n<|im_start|>assistant\n"
	if err != nil || got != want {
		t.Errorf("%q, want %q (%v)", got, want, err)
	}
	tok.Template = "{{ raise_exception('only users may speak') }}"
	if c, err = tok.ChatTemplate(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Render(nil); err == nil || !strings.Contains(err.Error(), "only users may speak") {
		t.Errorf("a template that refuses: %v", err)
	}
	tok.Template = ""
	if _, err := tok.ChatTemplate(); err != ErrNoTemplate {
		t.Errorf("no template: %v", err)
	}
	tok.Template = "{% for %}"
	if _, err := tok.ChatTemplate(); err == nil {
		t.Error("a broken template was taken")
	}
}

func TestBadVocabularies(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    Config
	}{
		{"empty", Config{Model: "gpt2"}},
		{"an unknown model", Config{Model: "bert", Tokens: []string{"a"}}},
		{"an unknown splitter", Config{Model: "gpt2", Pre: "nobody", Tokens: []string{"a"}}},
		{"types that do not fit", Config{Model: "gpt2", Tokens: []string{"a"}, Types: []int{1, 1}}},
		{"a merge of one", Config{Model: "gpt2", Tokens: []string{"a"}, Merges: []string{"a"}}},
		{"scores that do not fit", Config{Model: "llama", Tokens: []string{"a"}}},
		{"a byte that is none", Config{Model: "llama", Tokens: []string{"<0xZZ>"}, Types: []int{TypeByte}, Scores: []float64{0}}},
		{"a splitter that is no expression", Config{Model: "gpt2", Split: []string{"("}, Tokens: []string{"a"}}},
	} {
		if _, err := New(tt.c); err == nil {
			t.Errorf("%s: it was taken", tt.name)
		} else {
			t.Logf("%s: %v", tt.name, err)
		}
	}
}

// A word of a million letters does not take long.
func TestLongWord(t *testing.T) {
	for name, tok := range map[string]*Tokenizer{"bytes": bytesOnly(t), "pieces": pieces(t)} {
		for _, unit := range []string{"hello", "x", " ", "\n ", "\u00e9"} {
			text := strings.Repeat(unit, 1_000_000/len(unit))
			began := time.Now()
			want := text
			if tok.AddSpacePrefix {
				want = " " + text
			}
			if got := tok.Decode(tok.Encode(text, true)); got != want {
				t.Errorf("%s: %q does not come back", name, unit)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("%s: a million bytes of %q took %s", name, unit, took)
			}
		}
	}
}
