package weights

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/reference-server/tensor"
)

// file writes a small GGUF file.
type file struct{ bytes.Buffer }

func (f *file) u32(v uint32) { f.Write(binary.LittleEndian.AppendUint32(nil, v)) }
func (f *file) u64(v uint64) { f.Write(binary.LittleEndian.AppendUint64(nil, v)) }
func (f *file) str(s string) { f.u64(uint64(len(s))); f.WriteString(s) }

// small is a file with one value of most types and a tensor of 2×32 in Q8_0.
func small() []byte {
	var f file
	f.WriteString("GGUF")
	f.u32(3)
	f.u64(1) // tensors
	f.u64(5) // metadata
	f.str("general.architecture")
	f.u32(ggufString)
	f.str("llama")
	f.str("n")
	f.u32(ggufUint32)
	f.u32(7)
	f.str("flag")
	f.u32(ggufBool)
	f.WriteByte(1)
	f.str("words")
	f.u32(ggufArray)
	f.u32(ggufString)
	f.u64(2)
	f.str("a")
	f.str("b")
	f.str("ids")
	f.u32(ggufArray)
	f.u32(ggufInt32)
	f.u64(2)
	f.u32(5)
	f.u32(0xffffffff)
	f.str("w")
	f.u32(2)
	f.u64(32)
	f.u64(2)
	f.u32(8) // Q8_0
	f.u64(0)
	for f.Len()%32 != 0 {
		f.WriteByte(0)
	}
	for row := range 2 {
		f.Write(binary.LittleEndian.AppendUint16(nil, tensor.FloatToHalf(1)))
		for i := range 32 {
			f.WriteByte(byte(row*32 + i))
		}
	}
	return f.Bytes()
}

func TestGGUF(t *testing.T) {
	meta, tensors, err := parseGGUF(small())
	if err != nil {
		t.Fatal(err)
	}
	if meta.String("general.architecture", "") != "llama" || meta.Int("n", 0) != 7 || !meta.Bool("flag", false) ||
		strings.Join(meta.Strings("words"), "") != "ab" || meta.Ints("ids")[1] != -1 {
		t.Errorf("metadata %v", meta)
	}
	w := tensors["w"]
	if w.Rows != 2 || w.Cols != 32 || w.Type != tensor.Q8_0 {
		t.Fatalf("%+v", w)
	}
	row := make([]float32, 32)
	w.Row(row, 1)
	if row[0] != 32 || row[31] != 63 {
		t.Errorf("row 1 is %v", row)
	}
}

// A file that is cut anywhere is an error that says so, never a panic.
func TestCutGGUF(t *testing.T) {
	whole := small()
	for n := range whole {
		if _, _, err := parseGGUF(whole[:n]); err == nil {
			t.Fatalf("the first %d of %d bytes were taken for a model", n, len(whole))
		}
	}
}

func FuzzGGUF(f *testing.F) {
	f.Add(small())
	f.Fuzz(func(t *testing.T, b []byte) {
		meta, tensors, err := parseGGUF(b)
		if err != nil {
			return
		}
		_ = meta.String("general.architecture", "")
		for name, s := range tensors {
			per, size := s.Type.Block()
			if len(s.Data) != s.Rows*s.Cols/per*size {
				t.Fatalf("tensor %q: %d bytes for %d×%d of %s", name, len(s.Data), s.Rows, s.Cols, s.Type)
			}
		}
	})
}

func safetensors(header map[string]any, data []byte) []byte {
	h, err := json.Marshal(header)
	if err != nil {
		panic(err)
	}
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(h))), h...), data...)
}

func TestSafetensors(t *testing.T) {
	b := safetensors(map[string]any{
		"__metadata__": map[string]string{"format": "pt"},
		"w":            map[string]any{"dtype": "BF16", "shape": []int{2, 3}, "data_offsets": []int{0, 12}},
	}, []byte{0x80, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0xbf})
	tensors, err := parseSafetensors(b)
	if err != nil {
		t.Fatal(err)
	}
	row := make([]float32, 3)
	w := tensors["w"]
	w.Row(row, 1)
	if w.Rows != 2 || w.Cols != 3 || row[2] != -1 {
		t.Errorf("%+v, row 1 %v", w, row)
	}
	for n := range b {
		if _, err := parseSafetensors(b[:n]); err == nil {
			t.Fatalf("the first %d of %d bytes were taken for a model", n, len(b))
		}
	}
}

func FuzzSafetensors(f *testing.F) {
	f.Add(safetensors(map[string]any{"w": map[string]any{"dtype": "F32", "shape": []int{1, 2}, "data_offsets": []int{0, 8}}}, make([]byte, 8)))
	f.Add(safetensors(map[string]any{"w": map[string]any{"dtype": "F16", "shape": []int{}, "data_offsets": []int{0, 2}}}, make([]byte, 2)))
	f.Fuzz(func(t *testing.T, b []byte) {
		tensors, err := parseSafetensors(b)
		if err != nil {
			return
		}
		for name, s := range tensors {
			_, size := s.Type.Block()
			if len(s.Data) != s.Rows*s.Cols*size {
				t.Fatalf("tensor %q: %d bytes for %d×%d of %s", name, len(s.Data), s.Rows, s.Cols, s.Type)
			}
		}
	})
}

// Every invalid model gives an error that names the file and says what was
// found.
func TestWhatIsNoModel(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	folder := func(name string, files map[string]string) string {
		for f, text := range files {
			write(filepath.Join(name, f), text)
		}
		return filepath.Join(dir, name)
	}
	const config = `{"model_type":"llama","hidden_size":64,"num_attention_heads":4}`
	const tok = `{"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}`
	for _, tt := range []struct{ name, path, says string }{
		{"nothing there", filepath.Join(dir, "nowhere.gguf"), "nowhere.gguf"},
		{"empty", write("empty.gguf", ""), "empty"},
		{"text", write("text.gguf", "this is not a model"), "not a GGUF file"},
		{"cut", write("cut.gguf", string(small()[:100])), "cut short"},
		{"an empty folder", folder("none", map[string]string{"x": ""}), "config.json"},
		{"another architecture", folder("gpt", map[string]string{"config.json": `{"model_type":"gpt_bigcode"}`}), "gpt_bigcode"},
		{"no tokenizer", folder("notok", map[string]string{"config.json": config}), "tokenizer.json"},
		{"no weights", folder("noweights", map[string]string{"config.json": config, "tokenizer.json": tok}), "safetensors"},
		{"cut weights", folder("cutweights", map[string]string{"config.json": config, "tokenizer.json": tok, "model.safetensors": "\x20\x00\x00\x00\x00\x00\x00\x00{}"}), "cut short"},
		{"a missing shard", folder("shard", map[string]string{"config.json": config, "tokenizer.json": tok,
			"model-1.safetensors":          string(safetensors(map[string]any{}, nil)),
			"model.safetensors.index.json": `{"weight_map":{"model.norm.weight":"model-2.safetensors"}}`}), "model-2.safetensors"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := Open(tt.path)
			if err == nil {
				m.Close()
				t.Fatal("it was opened")
			}
			if !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), filepath.Base(tt.path)) {
				t.Errorf("%q does not name %q", err, tt.says)
			}
			t.Log(err)
		})
	}
}
