package weights

import (
	"strings"
	"testing"
)

// Every architecture is found by its name and by each of its model types. No
// two share a model type. Its tensors have GGUF names.
func TestArchitectures(t *testing.T) {
	for _, a := range Architectures {
		if got, err := (Meta{"general.architecture": a.Name}).Architecture(); err != nil || got.Name != a.Name {
			t.Errorf("%s: %v %v", a.Name, got.Name, err)
		}
		for _, modelType := range a.ModelTypes {
			if got, err := architectureOf(modelType); err != nil || got.Name != a.Name {
				t.Errorf("the type %s leads to %q, and is %s's (%v)", modelType, got.Name, a.Name, err)
			}
		}
		for from, to := range map[string]string{"model.embed_tokens.weight": "token_embd.weight", "model.layers.3.self_attn.q_proj.weight": "blk.3.attn_q.weight", "model.norm.weight": "output_norm.weight"} {
			if got, ok := a.ggufName(from); !ok || got != to {
				t.Errorf("%s: %s is %q, want %q", a.Name, from, got, to)
			}
		}
	}
	if _, err := (Meta{}).Architecture(); err == nil || !strings.Contains(err.Error(), "llama") {
		t.Errorf("no architecture: %v", err)
	}
	if _, err := architectureOf("gpt9"); err == nil || !strings.Contains(err.Error(), "qwen2 and qwen3 are") {
		t.Errorf("a type that is none: %v", err)
	}
}
