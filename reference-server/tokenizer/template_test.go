package tokenizer

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// TestTemplatesAreTransformers renders chats by templates with the habits of
// every family, and expects what Jinja2 makes of them in transformers' setting
// (models/make/templates.py).
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
