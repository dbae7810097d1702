package interchange

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

var update = flag.Bool("update", false, "write the golden files")

// judged is a recorded run with its verdict.
func judged(t testing.TB, dir string) (*recording.Recording, checklist.Verdict) {
	t.Helper()
	gate, err := scenarios.Load(filepath.Join(dir, recording.GateFile))
	if err != nil {
		t.Fatal(err)
	}
	rec, err := recording.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	v, err := checklist.Judge(gate, rec)
	if err != nil {
		t.Fatal(err)
	}
	return rec, v
}

func paper(name string) string {
	return filepath.Join("..", "..", "checklist", "testdata", "runs", name)
}

func export(t testing.TB, format, dir, scenario string) []byte {
	t.Helper()
	rec, v := judged(t, dir)
	var b bytes.Buffer
	if err := Export(&b, format, rec, v, scenario); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestGoldenExports(t *testing.T) {
	for _, format := range []string{"llm-d", "k6", "openmetrics", "aiperf"} {
		path := filepath.Join("testdata", format+".golden")
		got := export(t, format, paper("fail"), "")
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not as in %s (%v); look at the difference and -update", format, path, err)
		}
	}
}

// What is not proven must not look green in any tool.
func TestNothingButAPassLooksGreen(t *testing.T) {
	for _, name := range []string{"pass", "fail", "unproven", "invalid", "interrupted"} {
		_, v := judged(t, paper(name))
		green := v.Verdict == checklist.Pass
		var k6 struct {
			Metrics struct {
				Checks struct{ Value float64 }
			}
		}
		decode(t, export(t, "k6", paper(name), ""), &k6)
		if (k6.Metrics.Checks.Value == 1) != green {
			t.Errorf("%s: the share of k6's checks is %v", name, k6.Metrics.Checks.Value)
		}
		om := string(export(t, "openmetrics", paper(name), ""))
		if strings.Contains(om, `launchgate_verdict{launchgate_verdict="pass"} 1`) != green || strings.Contains(om, "launchgate_exit_code 0\n") != green {
			t.Errorf("%s: OpenMetrics says\n%s", name, om)
		}
		if !green && !strings.Contains(om, `launchgate_objective_proven{`) {
			t.Errorf("%s: no objective is told", name)
		}
		for _, f := range v.Objectives {
			want := map[bool]string{true: "} 1\n", false: "} 0\n"}[f.Verdict == checklist.Pass]
			if !strings.Contains(om, `objective="`+f.Source+`",outcome="`+f.Verdict.String()+`"`+want) {
				t.Errorf("%s: %s is not told as %s", name, f.Source, f.Verdict)
			}
		}
	}
}

func decode(t testing.TB, b []byte, to any) {
	t.Helper()
	if err := json.Unmarshal(b, to); err != nil {
		t.Fatal(err)
	}
}

func TestVLLMResultHoldsEveryRequest(t *testing.T) {
	rec, v := judged(t, paper("fail"))
	r, err := gather(rec, v, "burst")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Completed, Failed int
		Ttfts, Latencies  []float64
		Output_lens       []int
		Errors            []string
		P99_ttft_ms       float64
	}
	decode(t, export(t, "vllm", paper("fail"), "burst"), &got)
	if got.Completed+got.Failed != len(r.requests) || len(got.Ttfts) != len(r.requests) || len(got.Errors) != len(r.requests) || len(got.Latencies) != len(r.requests) {
		t.Errorf("%d completed and %d failed, %d ttfts, of %d requests", got.Completed, got.Failed, len(got.Ttfts), len(r.requests))
	}
	var ttfts []float64
	for i, v := range got.Ttfts {
		if got.Errors[i] == "" {
			ttfts = append(ttfts, v)
		}
	}
	if p99 := describe(ttfts).at(0.99) * 1e3; math.Abs(p99-got.P99_ttft_ms) > 1e-6 {
		t.Errorf("the p99 of the requests is %v, the result says %v", p99, got.P99_ttft_ms)
	}
}

func TestWhatCannotBeExported(t *testing.T) {
	rec, v := judged(t, paper("pass"))
	for _, tt := range []struct{ format, scenario, want string }{{"xls", "", "llm-d, k6"}, {"k6", "none", "no scenario"}} {
		if err := Export(&bytes.Buffer{}, tt.format, rec, v, tt.scenario); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v", tt, err)
		}
	}
}

// The owners' loaders accept the exports. LAUNCHGATE_PYTHON is a Python that has the
// packages aiperf, guidellm and prometheus-client; one that it lacks fails.
func TestOwnersLoadersAcceptTheExports(t *testing.T) {
	python := os.Getenv("LAUNCHGATE_PYTHON")
	if python == "" {
		t.Skip("LAUNCHGATE_PYTHON is not set")
	}
	rec, v := judged(t, paper("fail"))
	r, err := gather(rec, v, "")
	if err != nil {
		t.Fatal(err)
	}
	for tool, want := range map[string]float64{"aiperf": r.ttft.at(0.95), "guidellm": r.ttft.at(0.95), "openmetrics": 1} {
		path := filepath.Join(t.TempDir(), tool+".json")
		if err := os.WriteFile(path, export(t, tool, paper("fail"), ""), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(python, filepath.Join("testdata", "accept.py"), tool, path).Output()
		lines := strings.Fields(string(out))
		if err != nil || len(lines) == 0 {
			t.Errorf("%s: %v: %s", tool, err, fmt.Sprint(err))
			continue
		}
		if got, _ := strconv.ParseFloat(lines[len(lines)-1], 64); math.Abs(got-want) > 1e-9 {
			t.Errorf("%s reads %v, want %v", tool, got, want)
		}
	}
}

// numpy's percentiles of 1, 2, 4, 8: np.percentile([1,2,4,8], [0,25,50,90,100]).
func TestPercentilesAreNumpys(t *testing.T) {
	s := describe([]float64{8, 1, 4, 2})
	for q, want := range map[float64]float64{0: 1, 0.25: 1.75, 0.5: 3, 0.9: 6.8, 1: 8} {
		if got := s.at(q); math.Abs(got-want) > 1e-12 {
			t.Errorf("at %v it is %v, want %v", q, got, want)
		}
	}
	if empty := describe(nil); empty.at(0.5) != 0 || empty.mean != 0 || empty.mode() != 0 {
		t.Error("nothing is not 0")
	}
}
