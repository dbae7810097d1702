package engine

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/launchgate/launchgate/reference-server/batch"
	"github.com/launchgate/launchgate/reference-server/tensor"
)

const defaultModel = "../models/default/default.gguf"

// golden are numbers that another implementation computed for the default
// model; see models/make/README.md.
type golden struct {
	Cases []struct {
		Prompt    string
		IDs       []int32
		Top       [][2]float64
		LogSumExp float64
		Greedy    []int32
		Margins   []float64
	}
	Eval struct {
		Tokens  int
		IDsHead []int32 `json:"ids_head"`
		Window  int
		Scored  int
		MeanNLL float64 `json:"mean_nll"`
	}
	Tokenizer []struct {
		Text    string
		Special bool
		IDs     []int32
	}
}

var readGolden = sync.OnceValue(func() golden {
	var g golden
	b, err := os.ReadFile("../models/default/golden.json")
	if err == nil {
		err = json.Unmarshal(b, &g)
	}
	if err != nil {
		panic(err)
	}
	return g
})

// open loads the default model.
func open(t testing.TB, c Config) *Engine {
	t.Helper()
	c.Path = defaultModel
	e, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// running is an engine that computes until the test ends.
func running(t testing.TB, c Config) *Engine {
	t.Helper()
	e := open(t, c)
	run(t, e)
	return e
}

// run lets an engine compute until the test ends.
func run(t testing.TB, e *Engine) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { e.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
}

func TestTokensAreLlamaCpps(t *testing.T) {
	e := open(t, Config{})
	for _, c := range readGolden().Tokenizer {
		if got := e.tok.Encode(c.Text, c.Special); !slices.Equal(got, c.IDs) {
			t.Errorf("%q: %v, want %v", c.Text, got, c.IDs)
		}
	}
	for _, c := range readGolden().Cases {
		if got := e.tok.Encode(c.Prompt, true); !slices.Equal(got, c.IDs) {
			t.Errorf("%q: %v, want %v", c.Prompt, got, c.IDs)
		}
	}
}

// forward computes tokens of one sequence from position 0 on, and returns the
// logits of the last n.
func forward(e *Engine, kv tensor.KV, tokens []int32, n int) []float32 {
	var b batch.Batch
	table := make([]int32, len(tokens)/tensor.BlockSize+1)
	for i := range table {
		table[i] = int32(i)
	}
	var logits []float32
	for from := 0; from < len(tokens); from += e.cfg.MaxBatch {
		b.Reset()
		for pos := from; pos < min(from+e.cfg.MaxBatch, len(tokens)); pos++ {
			b.Tokens = append(b.Tokens, tokens[pos])
			b.Positions = append(b.Positions, int32(pos))
			b.Slots = append(b.Slots, int32(pos)) // block i is slot 16·i …
			b.Tables = append(b.Tables, table)
			if pos >= len(tokens)-n {
				b.Outputs = append(b.Outputs, int32(len(b.Tokens)-1))
			}
		}
		logits = append(logits, compute(e, &b, kv)...)
	}
	return logits
}

// compute returns the logits of a step on any backend.
func compute(e *Engine, b *batch.Batch, kv tensor.KV) (all []float32) {
	if e.steps == nil {
		return e.model.Forward(b, kv)
	}
	picks := make([]tensor.Pick, len(b.Outputs))
	for i := range picks {
		picks[i].Logits = true
	}
	err := e.model.Start(b, kv, picks)
	if err != nil {
		panic(err)
	}
	done, err := e.model.Wait()
	if err != nil {
		panic(err)
	}
	for _, row := range done.Logits {
		all = append(all, row...)
	}
	return all
}

// Logits at the end of 20 prompts agree with a float64 computation by NumPy:
// within 2e-4 for float32 weights, 0.02 for float16, 0.5 for int8, where
// activations are rounded too.
func TestLogitsAgreeWithNumPy(t *testing.T) {
	for _, tt := range []struct {
		quantization string
		bound        float64
	}{{"none", 2e-4}, {"fp16", 0.02}, {"int8", 0.5}} {
		t.Run(tt.quantization, func(t *testing.T) {
			e := open(t, Config{Quantization: tt.quantization})
			var worst float64
			for _, c := range readGolden().Cases {
				logits := forward(e, e.kv, c.IDs, 1)
				for _, top := range c.Top {
					worst = max(worst, math.Abs(float64(logits[int(top[0])])-top[1]))
				}
				worst = max(worst, math.Abs(logSumExp(logits)-c.LogSumExp))
			}
			t.Logf("largest difference %.2g, allowed %.2g", worst, tt.bound)
			if worst > tt.bound {
				t.Errorf("logits differ by up to %.3g, allowed %.3g", worst, tt.bound)
			}
		})
	}
}

func logSumExp(logits []float32) float64 {
	top := float64(slices.Max(logits))
	var sum float64
	for _, l := range logits {
		sum += math.Exp(float64(l) - top)
	}
	return top + math.Log(sum)
}

// Greedy answers of 128 tokens to 20 prompts, computed in batches as the engine
// serves them, equal NumPy's. They are compared up to a step where the two best
// tokens are closer than the rounding error.
func TestGreedyAnswersAreNumPys(t *testing.T) {
	e := running(t, Config{Quantization: "none", MaxBatch: 20})
	compareAnswers(t, e, readGolden(), 1e-3)
}

// compareAnswers generates all golden answers together, and compares each up to
// a step where the winner led by less than close.
func compareAnswers(t *testing.T, e *Engine, g golden, close float64) {
	t.Helper()
	got := make([][]int32, len(g.Cases))
	var all sync.WaitGroup
	for i, c := range g.Cases {
		all.Go(func() { got[i] = generate(t, e, Request{Prompt: c.IDs, MaxTokens: len(c.Greedy), IgnoreEOS: true}) })
	}
	all.Wait()
	compared := 0
	for i, c := range g.Cases {
		for step, want := range c.Greedy {
			if c.Margins[step] < close {
				break // from here on both texts are right
			}
			compared++
			if got[i][step] != want {
				t.Errorf("prompt %d: token %d is %d, want %d, which led by %.4g", i, step, got[i][step], want, c.Margins[step])
				break
			}
		}
	}
	t.Logf("%d of %d tokens compared", compared, len(g.Cases)*128)
	if compared < len(g.Cases)*128/2 {
		t.Errorf("only %d tokens could be compared", compared)
	}
}

// generate waits for a whole answer and returns its tokens from the sequence,
// because different tokens can have the same text.
func generate(t *testing.T, e *Engine, r Request) []int32 {
	var ids []int32
	s, err := e.submit(context.Background(), r, func(id int32) { ids = append(ids, id) })
	if err != nil {
		t.Error(err)
		return nil
	}
	for {
		ev, err := s.Next(context.Background())
		if err != nil || ev.Err != nil {
			t.Error(err, ev.Err)
			return nil
		}
		if ev.Finish != "" {
			return ids
		}
	}
}

// On a text that the model has not seen, the perplexity with float32 is that of
// the reference. int8 weights or an int8 KV cache change it by less than a
// percent.
func TestPerplexity(t *testing.T) {
	text, err := os.ReadFile("../models/default/eval.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := readGolden().Eval
	windows := 15
	if testing.Short() {
		windows = 4
	}
	exact := math.NaN()
	for _, c := range [][2]string{{"none", "auto"}, {"fp16", "auto"}, {"int8", "auto"}, {"none", "int8"}} {
		q := c[0]
		e := open(t, Config{Quantization: q, KVCache: c[1], MaxBatch: 128, MaxTokens: 128})
		ids := e.Tokenize(string(text))
		if len(ids) != want.Tokens || !slices.Equal(ids[:len(want.IDsHead)], want.IDsHead) {
			t.Fatalf("%d tokens, want %d", len(ids), want.Tokens)
		}
		nll, scored := 0.0, 0
		for w := 0; w < windows && w*want.Window < len(ids); w++ {
			window := ids[w*want.Window : min((w+1)*want.Window, len(ids))]
			logits := forward(e, e.kv, window, len(window))
			for i := 1; i < len(window); i++ {
				row := logits[(i-1)*e.model.Vocab : i*e.model.Vocab]
				nll += logSumExp(row) - float64(row[window[i]])
				scored++
			}
		}
		nll /= float64(scored)
		t.Logf("%s, KV cache %s: perplexity %.4f over %d tokens, weights %d bytes", q, c[1], math.Exp(nll), scored, e.info.WeightBytes)
		if math.IsNaN(exact) {
			exact = nll
			if scored == want.Scored && math.Abs(nll-want.MeanNLL) > 1e-4 {
				t.Errorf("mean loss %.5f, NumPy's is %.5f", nll, want.MeanNLL)
			}
		}
		if change := math.Exp(nll-exact) - 1; math.Abs(change) > 0.01 {
			t.Errorf("%s with KV cache %s changes the perplexity by %.2f %%, allowed 1 %%", q, c[1], change*100)
		}
	}
}
