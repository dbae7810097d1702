package engine

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/internal/tokenizer"
	"github.com/launchgate/launchgate/reference-server/tensor"
	"github.com/launchgate/launchgate/reference-server/weights"
)

// TestHuggingFaceFolder writes the default model as a Hugging Face folder of
// two shards, with the rows of its queries and keys in the order of halves that
// transformers has, and expects the same tokens and logits as of the GGUF file.
func TestHuggingFaceFolder(t *testing.T) {
	dir := t.TempDir()
	writeFolder(t, dir)
	e, err := Open(Config{Path: dir, Quantization: "none"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	file, err := tokenizer.Open(filepath.Join(dir, "tokenizer.json")) // as the harness counts
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range readGolden().Cases {
		if got := file.Encode(c.Prompt, false); !slices.Equal(got, e.tok.Encode(c.Prompt, false)) {
			t.Errorf("%q: %v by tokenizer.json, and %v by the server", c.Prompt, got, e.tok.Encode(c.Prompt, false))
		}
		if got := e.tok.Encode(c.Prompt, true); !slices.Equal(got, c.IDs) {
			t.Errorf("%q: %v, want %v", c.Prompt, got, c.IDs)
		}
		logits := forward(e, e.kv, c.IDs, 1)
		for _, top := range c.Top {
			if d := math.Abs(float64(logits[int(top[0])]) - top[1]); d > 2e-4 {
				t.Fatalf("%q: the logit of %v is off by %v", c.Prompt, top[0], d)
			}
		}
	}
	if ids, err := e.ChatPrompt(context.Background(), []Message{{Role: "user", Content: "Hi"}}); err != nil || len(ids) < 5 {
		t.Errorf("%v %v", ids, err)
	}
}

func writeFolder(t *testing.T, dir string) {
	t.Helper()
	w, err := weights.Open(defaultModel)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	m := w.Meta
	writeJSON(t, filepath.Join(dir, "config.json"), map[string]any{
		"model_type": "llama", "hidden_size": m.Int("llama.embedding_length", 0), "intermediate_size": m.Int("llama.feed_forward_length", 0),
		"num_hidden_layers": m.Int("llama.block_count", 0), "num_attention_heads": m.Int("llama.attention.head_count", 0),
		"num_key_value_heads": m.Int("llama.attention.head_count_kv", 0), "max_position_embeddings": m.Int("llama.context_length", 0),
		"rms_norm_eps": m.Float("llama.attention.layer_norm_rms_epsilon", 0), "rope_theta": m.Float("llama.rope.freq_base", 0),
		"hidden_act": "silu", "tie_word_embeddings": true,
	})
	vocab, added := map[string]int{}, []map[string]any{}
	types := m.Ints("tokenizer.ggml.token_type")
	for id, s := range m.Strings("tokenizer.ggml.tokens") {
		if types[id] == 3 {
			added = append(added, map[string]any{"id": id, "content": s, "special": true})
		} else {
			vocab[s] = id
		}
	}
	writeJSON(t, filepath.Join(dir, "tokenizer.json"), map[string]any{
		"added_tokens": added, "pre_tokenizer": map[string]any{"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
		"model": map[string]any{"type": "BPE", "vocab": vocab, "merges": m.Strings("tokenizer.ggml.merges")},
	})
	writeJSON(t, filepath.Join(dir, "tokenizer_config.json"), map[string]any{
		"eos_token": map[string]any{"content": "<|im_end|>"}, "chat_template": m.String("tokenizer.chat_template", ""),
	})
	names := slices.Sorted(maps.Keys(w.Tensors))
	head := m.Int("llama.embedding_length", 0) / m.Int("llama.attention.head_count", 1)
	writeShard(t, filepath.Join(dir, "model-00001-of-00002.safetensors"), w, names[:len(names)/2], head)
	writeShard(t, filepath.Join(dir, "model-00002-of-00002.safetensors"), w, names[len(names)/2:], head)
}

func writeJSON(t *testing.T, path string, v any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(path, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

var hfNames = strings.NewReplacer("token_embd.", "model.embed_tokens.", "output_norm.", "model.norm.", "blk.", "model.layers.",
	".attn_q.", ".self_attn.q_proj.", ".attn_k.", ".self_attn.k_proj.", ".attn_v.", ".self_attn.v_proj.", ".attn_output.", ".self_attn.o_proj.",
	".ffn_gate.", ".mlp.gate_proj.", ".ffn_up.", ".mlp.up_proj.", ".ffn_down.", ".mlp.down_proj.",
	".attn_norm.", ".input_layernorm.", ".ffn_norm.", ".post_attention_layernorm.")

// writeShard writes tensors as float32.
func writeShard(t *testing.T, path string, w *weights.Model, names []string, head int) {
	t.Helper()
	header, data := map[string]any{}, []byte{}
	for _, name := range names {
		s := w.Tensors[name]
		from := len(data)
		for r := range s.Rows {
			data = appendRow(data, s, rowOf(name, r, head))
		}
		shape := []int{s.Rows, s.Cols}
		if s.Rows == 1 {
			shape = shape[1:]
		}
		header[hfNames.Replace(name)] = map[string]any{"dtype": "F32", "shape": shape, "data_offsets": []int{from, len(data)}}
	}
	h, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(h))), h...)
	if err := os.WriteFile(path, append(file, data...), 0o644); err != nil {
		t.Fatal(err)
	}
}

// rowOf is which row of a GGUF tensor is row r of the folder's: the pairs 2i and
// 2i+1 of a head of queries or keys become i and i+head/2.
func rowOf(name string, r, head int) int {
	if !strings.Contains(name, "attn_q.") && !strings.Contains(name, "attn_k.") {
		return r
	}
	h, i := r/head, r%head
	return h*head + i%(head/2)*2 + i/(head/2)
}

func appendRow(data []byte, s tensor.Stored, r int) []byte {
	row := make([]float32, s.Cols)
	s.Row(row, r)
	for _, v := range row {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	return data
}
