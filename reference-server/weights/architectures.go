package weights

import (
	"fmt"
	"strings"
)

// Architecture has everything that is specific to one model architecture. A new
// one of the Llama family is one more entry. One with a new operation also
// needs that operation in the backends and its call in package model.
type Architecture struct {
	Name       string            // in a GGUF file: general.architecture
	ModelTypes []string          // in a Hugging Face folder: model_type
	Tensors    *strings.Replacer // from the names of tensors there to GGUF's
	Pre        string            // how its tokenizer splits text if a GGUF file does not say
	Halves     bool              // RoPE rotates pairs half a head apart, not neighbours
}

// llamaTensors are the names of the whole family.
var llamaTensors = strings.NewReplacer(
	"model.embed_tokens.", "token_embd.", "model.norm.", "output_norm.", "lm_head.", "output.",
	"model.layers.", "blk.", ".self_attn.q_proj.", ".attn_q.", ".self_attn.k_proj.", ".attn_k.", ".self_attn.v_proj.", ".attn_v.",
	".self_attn.o_proj.", ".attn_output.", ".self_attn.q_norm.", ".attn_q_norm.", ".self_attn.k_norm.", ".attn_k_norm.",
	".mlp.gate_proj.", ".ffn_gate.", ".mlp.up_proj.", ".ffn_up.", ".mlp.down_proj.", ".ffn_down.",
	".input_layernorm.", ".attn_norm.", ".post_attention_layernorm.", ".ffn_norm.",
)

// Architectures are the supported ones. Llama includes Mistral, SmolLM2 and
// TinyLlama. Biases and norms of queries and keys are computed if a model has
// their tensors.
var Architectures = []Architecture{
	{Name: "llama", ModelTypes: []string{"llama", "mistral"}, Tensors: llamaTensors}, // its GGUF files have their rows permuted for neighbours
	{Name: "qwen2", ModelTypes: []string{"qwen2"}, Tensors: llamaTensors, Pre: "qwen2", Halves: true},
	{Name: "qwen3", ModelTypes: []string{"qwen3"}, Tensors: llamaTensors, Pre: "qwen2", Halves: true},
}

// Architecture is the entry of a model, by its metadata.
func (m Meta) Architecture() (Architecture, error) {
	name := m.String("general.architecture", "")
	var names []string
	for _, a := range Architectures {
		if a.Name == name {
			return a, nil
		}
		names = append(names, a.Name)
	}
	return Architecture{}, fmt.Errorf("architecture %q cannot be computed; %v can", name, names)
}

// architectureOf is the entry of a folder, by its model_type.
func architectureOf(modelType string) (Architecture, error) {
	var types []string
	for _, a := range Architectures {
		for _, t := range a.ModelTypes {
			if t == modelType {
				return a, nil
			}
			types = append(types, t)
		}
	}
	last := len(types) - 1
	return Architecture{}, fmt.Errorf("model_type %q is not known; %s and %s are", modelType, strings.Join(types[:last], ", "), types[last])
}

// ggufName is the GGUF name of a folder's tensor. It returns false for buffers
// such as rotary tables, which are not weights.
func (a Architecture) ggufName(name string) (string, bool) {
	if strings.HasSuffix(name, "rotary_emb.inv_freq") {
		return "", false
	}
	return a.Tensors.Replace(name), true
}
