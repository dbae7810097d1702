package tokenizer

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// TestTemplatesAreTransformers renders chats with templates in the style of
// every model family. It expects the output of Jinja2 with the settings of
// transformers (models/make/templates.py).
func TestTemplatesAreTransformers(t *testing.T) {
	var all []struct {
		Name, Template string
		Cases          []struct {
			Messages []Message
			Want     string
			Refuses  string
		}
	}
	b, err := os.ReadFile("testdata/templates.json")
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil || len(all) < 8 {
		t.Fatalf("%d templates, %v", len(all), err)
	}
	for _, tt := range all {
		t.Run(tt.Name, func(t *testing.T) {
			tok := &Tokenizer{Config: Config{Tokens: []string{"<s>", "</s>"}, BOS: 0, EOS: 1, Template: tt.Template}}
			c, err := tok.ChatTemplate()
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range tt.Cases {
				got, err := c.Render(k.Messages)
				switch {
				case k.Refuses != "" && (err == nil || !strings.Contains(err.Error(), k.Refuses)):
					t.Errorf("%v: %q, %v; it should refuse: %s", k.Messages, got, err, k.Refuses)
				case k.Refuses == "" && (err != nil || got != k.Want):
					t.Errorf("%v\ngot  %q (%v)\nwant %q", k.Messages, got, err, k.Want)
				}
			}
		})
	}
}

// Rendering any chat ends without a panic, and the prompt contains the messages
// unchanged.
func FuzzRender(f *testing.F) {
	tok := bytesOnly(f)
	c, err := tok.ChatTemplate()
	if err != nil {
		f.Fatal(err)
	}
	f.Add("user", "{{ messages }} {% for %}")
	f.Add("system", "<|im_end|>\x00\xff")
	f.Fuzz(func(t *testing.T, role, content string) {
		got, err := c.Render([]Message{{role, content}})
		if err != nil {
			t.Fatalf("%q %q: %v", role, content, err)
		}
		if !strings.Contains(got, content) {
			t.Fatalf("%q became %q", content, got)
		}
	})
}

// A template may be any text of a model file.
func FuzzTemplate(f *testing.F) {
	f.Add("{% for m in messages %}{{ m.role }}{% endfor %}")
	f.Add("{% include '/etc/passwd' %}")
	f.Add("{{ messages[0]['content'][::-1] }}")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "range") || strings.Contains(text, "lipsum") || len(text) > 200 {
			t.Skip("a template can loop for ever; the model's author is trusted not to do that")
		}
		tok := &Tokenizer{Config: Config{BOS: -1, EOS: -1, Template: text}}
		c, err := tok.ChatTemplate()
		if err != nil {
			return
		}
		if out, err := c.Render([]Message{{"user", "Hi"}}); err == nil && strings.Contains(out, "root:x:") {
			t.Fatal("a template has read a file of this host")
		}
	})
}
