package tokenizer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fileOf writes the vocabulary of bytesOnly as a tokenizer.json, changed by change.
func fileOf(t testing.TB, change func(file, model map[string]any)) string {
	t.Helper()
	tok := bytesOnly(t)
	vocab, added := map[string]int{}, []any{}
	for id, s := range tok.Tokens {
		if tok.IsControl(int32(id)) {
			added = append(added, map[string]any{"id": id, "content": s, "special": true})
		} else {
			vocab[s] = id
		}
	}
	model := map[string]any{"type": "BPE", "vocab": vocab, "merges": tok.Merges}
	file := map[string]any{
		"added_tokens": added, "model": model,
		"pre_tokenizer": map[string]any{"type": "ByteLevel", "add_prefix_space": false},
	}
	if change != nil {
		change(file, model)
	}
	b, err := json.Marshal(file)
	path := filepath.Join(t.TempDir(), "tokenizer.json")
	if err == nil {
		err = os.WriteFile(path, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// A file gives the tokens of the vocabulary that it was written from.
func TestOpen(t *testing.T) {
	step := func(kind string, of map[string]any) func(file, _ map[string]any) {
		return func(file, _ map[string]any) { file[kind] = of }
	}
	byteLevel := map[string]any{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}
	sequence := func(first map[string]any) map[string]any {
		return map[string]any{"type": "Sequence", "pretokenizers": []any{first, byteLevel}}
	}
	pairs := func(_, model map[string]any) {
		model["merges"] = [][2]string{{"h", "e"}, {"l", "l"}, {"he", "ll"}, {"hell", "o"}, {"Ġ", "w"}, {"Ġw", "o"}}
	}
	for _, tt := range []struct {
		name   string
		change func(file, model map[string]any)
		text   string
		want   string // the tokens
		fails  string // or what the error says
	}{
		{"as it is", nil, "hello wo", "hello|Ġwo", ""},
		{"merges as pairs", pairs, "hello wo", "hello|Ġwo", ""},
		{"control tokens in a text are text", nil, "<|im_end|>", "<|||i|m|_|e|n|d|||>", ""},
		{"NFC", step("normalizer", map[string]any{"type": "NFC"}), "e\u0301", "Ã|©", ""},
		{"a first token", step("post_processor", map[string]any{"type": "TemplateProcessing", "single": []any{map[string]any{"SpecialToken": map[string]any{"id": "<|im_start|>"}}}}), "he", "<|im_start|>|he", ""},
		{"words by an expression", step("pre_tokenizer", sequence(map[string]any{"type": "Split", "behavior": "Isolated", "pattern": map[string]any{"Regex": "hel|lo"}})), "hello", "he|l|l|o", ""},
		{"numbers", step("pre_tokenizer", sequence(map[string]any{"type": "Digits", "individual_digits": false})), "he12", "he|1|2", ""},

		{"another model", func(_, model map[string]any) { model["type"] = "WordPiece" }, "", "", `model type "WordPiece" is not known; BPE is`},
		{"lower case", step("normalizer", map[string]any{"type": "Lowercase"}), "", "", `the normalizer "Lowercase"`},
		{"words by punctuation", step("pre_tokenizer", sequence(map[string]any{"type": "Punctuation"})), "", "", `the pre-tokenizer "Punctuation"`},
		{"a blank before the text", step("pre_tokenizer", map[string]any{"type": "ByteLevel"}), "", "", "add_prefix_space"},
		{"a part that is removed", step("pre_tokenizer", sequence(map[string]any{"type": "Split", "behavior": "Removed", "pattern": map[string]any{"Regex": "x"}})), "", "", "the behavior Removed"},
		{"no bytes", step("pre_tokenizer", map[string]any{"type": "Sequence"}), "", "", "no pre-tokenizer ByteLevel"},
		{"marked words", func(_, model map[string]any) { model["end_of_word_suffix"] = "</w>" }, "", "", "marks the beginnings or ends of words"},
		{"a byte is missing", func(_, model map[string]any) { delete(model["vocab"].(map[string]int), "Ā") }, "", "", "no token Ā for the byte 0"},
		{"no byte to fall back to", func(file, model map[string]any) {
			model["byte_fallback"] = true
			delete(file, "pre_tokenizer")
		}, "", "", "no token <0x00> for the byte 0"},
		{"an id beyond all", func(_, model map[string]any) { model["vocab"].(map[string]int)["x"] = 1 << 40 }, "", "", "one has the id"},
		{"a negative id", func(_, model map[string]any) { model["vocab"].(map[string]int)["x"] = -1 }, "", "", "has the id -1"},
		{"a merge of one", func(_, model map[string]any) { model["merges"] = []string{"a"} }, "", "", "must be two tokens"},
		{"a list for an object", step("model", nil), "", "", "is not known"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tok, err := Open(fileOf(t, tt.change))
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("%v; it should say %q", err, tt.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := words(tok, tok.Encode(tt.text, false)); got != tt.want {
				t.Errorf("%q is %s, want %s", tt.text, got, tt.want)
			}
		})
	}
}

// What is no file of a tokenizer is refused before it is read.
func TestOpenRefusesOtherFiles(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large.json")
	if err := os.WriteFile(large, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, maxFile+1); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{dir: "name the file tokenizer.json in it", os.DevNull: "not a regular file", large: "more than 64 MiB", filepath.Join(dir, "none"): "no such file"} {
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; it should say %q", path, err, want)
		}
	}
}

// Any file is refused or counts every text.
func FuzzOpen(f *testing.F) {
	b, err := os.ReadFile(fileOf(f, nil))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"model":{"type":"BPE","vocab":{"a":0},"merges":[["a","b"]]},"added_tokens":[{"id":-1}]}`))
	f.Add([]byte(`{"model":{"type":"BPE","byte_fallback":true,"vocab":{"<0xZZ>":0}},"pre_tokenizer":{"type":"Metaspace"}}`))
	path := filepath.Join(f.TempDir(), "tokenizer.json")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		tok, err := Open(path)
		if err != nil {
			return
		}
		if ids := tok.Encode("hello wo é 12", false); len(ids) == 0 || slices.Min(ids) < 0 {
			t.Fatalf("%v", ids)
		}
	})
}
