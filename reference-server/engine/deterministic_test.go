package engine

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/launchgate/launchgate/reference-server/sample"
)

// sameInEveryBatch asks the same questions, greedy and with a seed, in batches of 1 to
// 64, and expects the tokens that each has alone. Random weights make many tokens nearly
// as likely as the best, so that a change of the last bits shows.
func sameInEveryBatch(t *testing.T, c Config, tokens int) {
	t.Helper()
	c.Dummy, c.Tokenizer, c.MaxBatch, c.Deterministic, c.NoPrefix = true, defaultModel, 64, true, true
	e, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	run(t, e)
	ask := func(i int) Request {
		prompt := make([]int32, 3+7*i%(4*tokens))
		for j := range prompt {
			prompt[j] = int32((i*131 + j*17) % 4000)
		}
		r := Request{Prompt: prompt, MaxTokens: tokens, IgnoreEOS: true}
		if i%2 == 1 {
			r.Sampling = sample.Params{Temperature: 1, TopK: 50, Seed: uint64(i)}
		}
		return r
	}
	const most = 64
	alone := make([][]int32, most)
	for i := range alone {
		alone[i] = generate(t, e, ask(i))
	}
	for size := 1; size <= most; size++ {
		got := make([][]int32, size)
		var all sync.WaitGroup
		for i := range size {
			all.Go(func() { got[i] = generate(t, e, ask((i+size)%most)) })
		}
		all.Wait()
		for i := range size {
			if at := (i + size) % most; !slices.Equal(got[i], alone[at]) {
				t.Fatalf("batch of %d: question %d has the answer %v, alone %v", size, at, got[i], alone[at])
			}
		}
	}
}

func TestDeterministic(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: the race detector takes ten times as long")
	}
	for _, quantization := range []string{"none", "int8"} {
		t.Run(quantization, func(t *testing.T) {
			sameInEveryBatch(t, Config{Path: shapeOf(t, smallShape), Quantization: quantization, MaxTokens: 80}, 3)
		})
	}
}

func TestGPUDeterministic(t *testing.T) {
	g := openGPU(t)
	for _, cache := range []string{"auto", "int8"} {
		for _, quantization := range []string{"fp16", "int8"} {
			for _, shape := range []string{"llama-1b", "qwen3-8b"} {
				t.Run(fmt.Sprintf("%s/%s/%s", shape, quantization, cache), func(t *testing.T) {
					sameInEveryBatch(t, Config{Path: shape, Quantization: quantization, KVCache: cache, GPU: g, MaxTokens: 512, KVBytes: 1 << 30}, 16)
				})
			}
		}
	}
}
