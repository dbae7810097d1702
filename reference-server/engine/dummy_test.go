package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/reference-server/device"
)

// shapeOf writes the config.json of a small model.
func shapeOf(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const smallShape = `{"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
	"num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "vocab_size": 4500}`

// TestShapes: each architecture can be served with random weights.
func TestShapes(t *testing.T) {
	for _, arch := range []string{"llama", "mistral", "qwen2", "qwen3"} {
		shape := shapeOf(t, strings.Replace(smallShape, `"llama"`, `"`+arch+`"`, 1))
		for _, quantization := range []string{"none", "int8"} {
			e, err := Open(Config{Path: shape, Dummy: true, Tokenizer: defaultModel, Quantization: quantization})
			if err != nil {
				t.Fatalf("%s, %s: %v", arch, quantization, err)
			}
			t.Cleanup(e.Close)
			run(t, e)
			text, last := answer(t, submit(t, e, Request{Prompt: []int32{5, 6, 7}, MaxTokens: 12, IgnoreEOS: true}))
			if last.Err != nil || len(text) < 12 {
				t.Errorf("%s, %s: the text %q and the error %v, expected 12 tokens with a text each", arch, quantization, text, last.Err)
			}
		}
	}
}

// TestNamedShapes: a plan needs no weights and no GPU. The shape that the guide
// serves takes 70 GB at int8, and its cache 43 GB.
func TestNamedShapes(t *testing.T) {
	n, err := NeedOf(Config{Path: "llama-70b", Dummy: true, Tokenizer: defaultModel, MaxBatch: 32, MaxSequence: 4096, KVBytes: 1 << 60}, true)
	if err != nil {
		t.Fatal(err)
	}
	const gb = 1e9
	if n.Weights < 70*gb || n.Weights > 80*gb { // with the scales of 32 weights each
		t.Errorf("weights of %d bytes, expected 70 to 80 GB", n.Weights)
	}
	if cache := 32 * n.Cache; cache < 42*gb || cache > 44*gb {
		t.Errorf("a cache of %d bytes for 32 sequences of 4096, expected 43 GB", cache)
	}
	for _, bad := range []string{"llama-71b", shapeOf(t, `{"model_type": "mamba"}`), shapeOf(t, strings.Replace(smallShape, `"hidden_size": 64`, `"hidden_size": 0`, 1)), shapeOf(t, strings.Replace(smallShape, "4500", "100", 1)), shapeOf(t, "{")} {
		if _, err := NeedOf(Config{Path: bad, Dummy: true, Tokenizer: defaultModel}, true); err == nil {
			t.Errorf("%s was accepted", bad)
		} else {
			t.Log(err)
		}
	}
}

// TestDummyThatDoesNotFit: it is refused before it is loaded, with what adds up to
// more than there is.
func TestDummyThatDoesNotFit(t *testing.T) {
	d, err := device.Open(filepath.Join(t.TempDir(), "device"), 10<<30)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(Config{Path: "llama-70b", Dummy: true, Tokenizer: defaultModel, Device: d, Fraction: 0.9})
	var oom *device.OutOfMemoryError
	if !errors.As(err, &oom) || !strings.Contains(err.Error(), "of weights") || !strings.Contains(err.Error(), "it may take 9216") {
		t.Errorf("found %v, expected the memory that it needs and the 9216 MiB that it may take", err)
	}
}
