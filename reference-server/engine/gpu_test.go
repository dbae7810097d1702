package engine

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/launchgate/launchgate/reference-server/backend/cuda"
	"github.com/launchgate/launchgate/reference-server/device"
	"github.com/launchgate/launchgate/reference-server/sample"
)

// openGPU is the first GPU, or the test is skipped.
func openGPU(t testing.TB) *cuda.GPU {
	t.Helper()
	g, err := cuda.Open(0)
	if err != nil {
		t.Skipf("skipped: %v", err)
	}
	t.Cleanup(g.Close)
	return g
}

// Logits of the default model on the GPU agree with NumPy's in float64 and with
// those of the CPU backend. The difference is at most 0.06 with float16 weights
// and activations, 0.5 with an int8 KV cache, which is compared with the CPU's
// too, and 0.75 with int8 weights (a scale for each row; the CPU has one for
// every 32).
func TestGPULogits(t *testing.T) {
	g := openGPU(t)
	for _, tt := range []struct {
		quantization, cache string
		bound               float64
	}{{"fp16", "auto", 0.06}, {"int8", "auto", 0.75}, {"fp16", "int8", 0.5}} {
		t.Run(tt.quantization+"/"+tt.cache, func(t *testing.T) {
			e := open(t, Config{Quantization: tt.quantization, KVCache: tt.cache, GPU: g, MaxTokens: 256})
			processor := open(t, Config{Quantization: "none", KVCache: tt.cache})
			var worst, apart float64
			for _, c := range readGolden().Cases {
				logits := forward(e, e.kv, c.IDs, 1)
				for _, top := range c.Top {
					worst = max(worst, math.Abs(float64(logits[int(top[0])])-top[1]))
				}
				for i, l := range forward(processor, processor.kv, c.IDs, 1) {
					apart = max(apart, math.Abs(float64(l-logits[i])))
				}
			}
			t.Logf("%s: from NumPy %.2g, from the CPU backend %.2g, allowed %.2g", e.info.Backend, worst, apart, tt.bound)
			if !(worst <= tt.bound && apart <= tt.bound) {
				t.Errorf("logits differ by up to %.3g and %.3g, allowed %.3g", worst, apart, tt.bound)
			}
		})
	}
}

// Greedy answers of 128 tokens, computed in batches as the engine serves them,
// equal NumPy's up to a step where the two best tokens are closer than
// float16's rounding error.
func TestGPUAnswers(t *testing.T) {
	e := running(t, Config{Quantization: "fp16", MaxBatch: 20, GPU: openGPU(t)})
	compareAnswers(t, e, readGolden(), 0.015)
}

// Every architecture's logits equal those of transformers within float16's
// rounding error.
func TestGPUArchitectures(t *testing.T) {
	g := openGPU(t)
	folders, err := filepath.Glob("testdata/architectures/*")
	if err != nil || len(folders) != 6 {
		t.Fatalf("%v %v", folders, err)
	}
	for _, dir := range folders {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			var golden architectureGolden
			b, err := os.ReadFile(filepath.Join(dir, "golden.json"))
			if err == nil {
				err = json.Unmarshal(b, &golden)
			}
			if err != nil {
				t.Fatal(err)
			}
			e, err := Open(Config{Path: dir, Quantization: "fp16", GPU: g})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			var worst float64
			for _, c := range golden.Cases {
				logits := forward(e, e.kv, c.IDs, 1)
				for _, top := range c.Top {
					worst = max(worst, math.Abs(float64(logits[int(top[0])])-top[1]))
				}
				worst = max(worst, math.Abs(logSumExp(logits)-c.LogSumExp))
			}
			t.Logf("logits differ by at most %.2g", worst)
			if !(worst <= 0.05) {
				t.Errorf("logits differ by up to %.3g, allowed 0.05", worst)
			}
		})
	}
}

// Tokens that a GPU cannot pick itself are picked on the host from its logits:
// log-probabilities, penalties and JSON give the same results as on the CPU.
// Draws with a seed repeat.
func TestGPUSampling(t *testing.T) {
	e := running(t, Config{Quantization: "fp16", MaxBatch: 8, GPU: openGPU(t)})
	prompt := readGolden().Cases[0].IDs
	text, last := answer(t, submit(t, e, Request{Prompt: prompt, MaxTokens: 200, JSON: true}))
	if last.Finish == FinishStop && !json.Valid([]byte(text)) {
		t.Errorf("asked for JSON, got %q", text)
	}
	drawn := func(seed uint64) []int32 {
		return generate(t, e, Request{Prompt: prompt, MaxTokens: 40, IgnoreEOS: true, Sampling: sample.Params{Temperature: 1, TopP: 0.95, TopK: 100, Seed: seed}})
	}
	first := drawn(1)
	if !slices.Equal(first, drawn(1)) || slices.Equal(first, drawn(2)) {
		t.Error("draws do not follow their seeds")
	}
	greedy := generate(t, e, Request{Prompt: prompt, MaxTokens: 40, IgnoreEOS: true})
	read := generate(t, e, Request{Prompt: prompt, MaxTokens: 40, IgnoreEOS: true, Sampling: sample.Params{Logprobs: true}})
	if !slices.Equal(greedy, read) {
		t.Errorf("picked on the GPU %v, from its logits %v", greedy, read)
	}
}

// Stop strings are found while the next step runs. No text is sent after them,
// and no block stays held.
func TestGPUStops(t *testing.T) {
	e := running(t, Config{Quantization: "fp16", MaxBatch: 8, GPU: openGPU(t)})
	prompt := readGolden().Cases[0].IDs
	whole, _ := answer(t, submit(t, e, Request{Prompt: prompt, MaxTokens: 60, IgnoreEOS: true}))
	for _, from := range []int{10, 20, 30} {
		stop := whole[from : from+4]
		text, last := answer(t, submit(t, e, Request{Prompt: prompt, MaxTokens: 60, IgnoreEOS: true, Stop: []string{stop}}))
		if last.Finish != FinishStop || len(text) > from {
			t.Errorf("stop %q: %q ended with %q", stop, text, last.Finish)
		}
	}
	if s := e.Stats(); s.KVLeaked != 0 {
		t.Errorf("%d blocks leaked", s.KVLeaked)
	}
}

// Several models on one GPU give the same answers as each alone. Each gets one
// request at a time, because a batch of two may round differently.
func TestGPUModelsTogether(t *testing.T) {
	g := openGPU(t)
	c := readGolden().Cases
	ask := func(e *Engine, i int) []int32 {
		return generate(t, e, Request{Prompt: c[i].IDs, MaxTokens: 60, IgnoreEOS: true})
	}
	a := running(t, Config{Quantization: "fp16", MaxBatch: 8, GPU: g, Fraction: 0.3})
	alone := [][]int32{ask(a, 0), ask(a, 1)}
	b := running(t, Config{Quantization: "int8", MaxBatch: 8, GPU: g, Fraction: 0.3})
	other := [][]int32{ask(b, 0), ask(b, 1)}
	var all sync.WaitGroup
	for _, m := range []struct {
		e    *Engine
		want [][]int32
	}{{a, alone}, {b, other}} {
		all.Go(func() {
			for round := range 6 {
				i := round % 2
				if got := ask(m.e, i); !slices.Equal(got, m.want[i]) {
					t.Errorf("prompt %d: %v beside another model, %v alone", i, got, m.want[i])
				}
			}
		})
	}
	all.Wait()
}

// When another program takes the GPU's memory, loaded models go on answering. A
// model that is being loaded gets a smaller cache, or is refused with an error
// that says how much it needed and how much was free. It leaves nothing behind.
// When the memory is free again, the model loads.
func TestGPUWithoutMemory(t *testing.T) {
	g := openGPU(t)
	prompt := readGolden().Cases[0].IDs
	ask := func(e *Engine) []int32 {
		return generate(t, e, Request{Prompt: prompt, MaxTokens: 60, IgnoreEOS: true})
	}
	e := running(t, Config{Quantization: "fp16", MaxBatch: 8, GPU: g, KVBytes: 64 << 20})
	before := ask(e)
	for _, leave := range []int64{8 << 20, 24 << 20, 48 << 20, 80 << 20, 0} { // 0: all memory is freed
		free, err := g.Free()
		if err != nil {
			t.Fatal(err)
		}
		giveBack := func() {}
		if leave > 0 {
			if giveBack, err = g.Hold(free - leave); err != nil {
				t.Fatal(err)
			}
		}
		if got := ask(e); !slices.Equal(got, before) {
			t.Errorf("%d MiB left: %v, before %v", leave>>20, got, before)
		}
		left, _ := g.Free()
		another, err := Open(Config{Path: defaultModel, Quantization: "fp16", GPU: g})
		var oom *device.OutOfMemoryError
		switch {
		case err != nil && (leave == 0 || !errors.As(err, &oom)):
			t.Errorf("%d MiB left: refused with: %v", leave>>20, err)
		case err != nil:
			t.Logf("%d MiB left: %v", left>>20, err)
		case leave == 8<<20:
			t.Error("a model of 21 MiB was loaded into 8 MiB")
		default:
			t.Logf("%d MiB left: loaded, with a cache of %d tokens", left>>20, another.info.KVTokens)
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan struct{})
			go func() { another.Run(ctx); close(ended) }()
			if got := ask(another); !slices.Equal(got, before) {
				t.Errorf("%d MiB left: another engine answers %v, before %v", leave>>20, got, before)
			}
			cancel()
			<-ended
			another.Close()
		}
		if now, _ := g.Free(); now < left-4<<20 {
			t.Errorf("%d MiB left: %d MiB were free, and %d are after a model was there", leave>>20, left>>20, now>>20)
		}
		giveBack()
	}
}

// perplexity returns the perplexity of the first four windows of the default
// model's test text, and the logits for it. It leaves out the first positions
// of each window.
func perplexity(t *testing.T, e *Engine, without int) (_ float64, all []float32) {
	t.Helper()
	text, err := os.ReadFile("../models/default/eval.txt")
	if err != nil {
		t.Fatal(err)
	}
	ids, size, vocabulary := e.Tokenize(string(text)), readGolden().Eval.Window, e.model.Vocab
	nll, scored := 0.0, 0
	for w := range 4 {
		window := ids[w*size : (w+1)*size]
		logits := forward(e, e.kv, window, size-without)
		for i, id := range window[without+1:] {
			row := logits[i*vocabulary : (i+1)*vocabulary]
			nll += logSumExp(row) - float64(row[id])
			scored++
		}
		all = append(all, logits...)
	}
	return math.Exp(nll / float64(scored)), all
}

// Perplexity with an int8 KV cache is within a hundredth of the CPU's with an
// int8 cache, and close to that with 16 bits.
func TestGPUPerplexityOfCaches(t *testing.T) {
	g := openGPU(t)
	loss := func(c Config) float64 {
		p, _ := perplexity(t, open(t, c), 0)
		return p
	}
	full := loss(Config{Quantization: "fp16", MaxBatch: 128, MaxTokens: 128, GPU: g})
	int8 := loss(Config{Quantization: "fp16", MaxBatch: 128, MaxTokens: 128, GPU: g, KVCache: "int8"})
	processor := loss(Config{Quantization: "fp16", MaxBatch: 128, MaxTokens: 128, KVCache: "int8"})
	t.Logf("perplexity with a cache of 16 bits %.4f, of int8 %.4f, of int8 on the CPU %.4f", full, int8, processor)
	if math.Abs(int8/processor-1) > 0.01 || math.Abs(int8/full-1) > 0.01 {
		t.Errorf("perplexity %.4f with an int8 cache, %.4f with 16 bits, %.4f with int8 on the CPU: allowed 1 %%", int8, full, processor)
	}
}

// Perplexity and logits of int8 weights with 8-bit activations of prompts. With
// int8 activations the perplexity is within half a percent of float16's and of
// the CPU's int8; with float8, within four percent.
func TestGPUActivations(t *testing.T) {
	g, window := openGPU(t), readGolden().Eval.Window
	loss := func(c Config) (float64, []float32) {
		c.MaxBatch, c.MaxTokens = window, window
		e, err := Open(c)
		if err != nil {
			t.Skipf("skipped: %v", err)
		}
		defer e.Close()
		return perplexity(t, e, 1) // with all outputs a step would count as decoding
	}
	full, logits := loss(Config{Path: defaultModel, Quantization: "fp16", GPU: g})
	processor, _ := loss(Config{Path: defaultModel, Quantization: "int8"})
	for _, tt := range []struct {
		activations              string
		perplexity, worst, usual float64 // what is allowed
	}{{"16", 0.005, 0.7, 0.1}, {"int8", 0.005, 1.5, 0.2}, {"fp8", 0.04, 4, 0.5}} {
		t.Run(tt.activations, func(t *testing.T) {
			got, eight := loss(Config{Path: defaultModel, Quantization: "int8", Activations: tt.activations, GPU: g})
			var worst, squares float64
			for i := range eight {
				d := math.Abs(float64(eight[i] - logits[i]))
				worst, squares = max(worst, d), squares+d*d
			}
			usual := math.Sqrt(squares / float64(len(eight)))
			t.Logf("perplexity %.4f, of float16 %.4f, of int8 on the CPU %.4f; logits differ from float16's by %.3g at most, %.3g RMS", got, full, processor, worst, usual)
			if !(math.Abs(got/full-1) <= tt.perplexity && math.Abs(got/processor-1) <= tt.perplexity && worst <= tt.worst && usual <= tt.usual) {
				t.Errorf("allowed are %.2g of the perplexity, %.2g and %.2g", tt.perplexity, tt.worst, tt.usual)
			}
		})
	}
}
