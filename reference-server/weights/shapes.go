package weights

// llama3Rope is how Llama 3.1 and 3.2 scale RoPE.
func llama3Rope(factor float64) *hfRope {
	return &hfRope{RopeType: "llama3", Factor: factor, Low: 1, High: 4, Original: 8192}
}

// shapes are the named shapes of random weights, as the config.json of each model
// has them.
var shapes = map[string]hfConfig{
	"llama-1b":   {ModelType: "llama", Hidden: 2048, FFN: 8192, Layers: 16, Heads: 32, KVHeads: 8, HeadDim: 64, Context: 131072, Eps: 1e-5, Theta: 500000, Vocab: 128256, Scaling: llama3Rope(32), Tied: true},
	"llama-3b":   {ModelType: "llama", Hidden: 3072, FFN: 8192, Layers: 28, Heads: 24, KVHeads: 8, HeadDim: 128, Context: 131072, Eps: 1e-5, Theta: 500000, Vocab: 128256, Scaling: llama3Rope(32), Tied: true},
	"llama-8b":   {ModelType: "llama", Hidden: 4096, FFN: 14336, Layers: 32, Heads: 32, KVHeads: 8, HeadDim: 128, Context: 131072, Eps: 1e-5, Theta: 500000, Vocab: 128256, Scaling: llama3Rope(8)},
	"llama-70b":  {ModelType: "llama", Hidden: 8192, FFN: 28672, Layers: 80, Heads: 64, KVHeads: 8, HeadDim: 128, Context: 131072, Eps: 1e-5, Theta: 500000, Vocab: 128256, Scaling: llama3Rope(8)},
	"mistral-7b": {ModelType: "mistral", Hidden: 4096, FFN: 14336, Layers: 32, Heads: 32, KVHeads: 8, HeadDim: 128, Context: 32768, Eps: 1e-5, Theta: 1e6, Vocab: 32768},
	"qwen2-7b":   {ModelType: "qwen2", Hidden: 3584, FFN: 18944, Layers: 28, Heads: 28, KVHeads: 4, HeadDim: 128, Context: 32768, Eps: 1e-6, Theta: 1e6, Vocab: 152064},
	"qwen2-72b":  {ModelType: "qwen2", Hidden: 8192, FFN: 29568, Layers: 80, Heads: 64, KVHeads: 8, HeadDim: 128, Context: 32768, Eps: 1e-6, Theta: 1e6, Vocab: 152064},
	"qwen3-8b":   {ModelType: "qwen3", Hidden: 4096, FFN: 12288, Layers: 36, Heads: 32, KVHeads: 8, HeadDim: 128, Context: 40960, Eps: 1e-6, Theta: 1e6, Vocab: 151936},
	"qwen3-32b":  {ModelType: "qwen3", Hidden: 5120, FFN: 25600, Layers: 64, Heads: 64, KVHeads: 8, HeadDim: 128, Context: 40960, Eps: 1e-6, Theta: 1e6, Vocab: 151936},
}
