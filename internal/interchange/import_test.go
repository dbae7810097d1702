package interchange

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// An export that is read again has the same requests, the tool's own percentiles, and
// a folder that the judge works on.
func TestImportReadsWhatExportWrote(t *testing.T) {
	for _, format := range []string{"vllm", "guidellm"} {
		t.Run(format, func(t *testing.T) {
			b := export(t, format, paper("pass"), "")
			path := filepath.Join(t.TempDir(), "file.json")
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			in, err := Read(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d requests, due known %v, checks %v", len(in.Requests), in.DueKnown, in.Checks)
			if len(in.Checks) < 3 {
				t.Errorf("compared %d percentiles with the file's, want at least 3", len(in.Checks))
			}
			objectives := []scenarios.Objective{objective(t, "p95(service_ttft) <= 60s"), objective(t, "p95(ttft) <= 60s")}
			dir := filepath.Join(t.TempDir(), "run")
			if err := in.Write(Into{Dir: dir, Objectives: objectives}); err != nil {
				t.Fatal(err)
			}
			_, v := judged(t, dir)
			t.Logf("exit %v, %v", v.ExitCode, v.Why)
			if v.Objectives[0].Verdict != checklist.Pass || !v.Client.Valid || !strings.Contains(fmt.Sprint(v.Why), "and imported") {
				t.Errorf("%v, %v; want a pass, a warning that another tool made the run", v.Objectives[0], v.Why)
			}
			if want := map[bool]checklist.Outcome{true: checklist.Pass, false: checklist.Unproven}[in.DueKnown]; v.Objectives[1].Verdict != want {
				t.Errorf("%v, want %v", v.Objectives[1], want)
			}
			for n := 1; n < len(b); n += len(b)/20 + 1 {
				if _, err := parse(bytes.NewReader(b[:n])); err == nil {
					t.Errorf("read %d of %d bytes without an error", n, len(b))
				}
			}
		})
	}
}

// Files that the tools themselves wrote of short runs against the bundled service:
// AIPerf 0.13.0, inference-perf 0.7.0 (once with the service's count of tokens and once with
// its own), MLPerf Endpoints (of August 2026), GuideLLM 0.8.1 and the benchmark of vLLM 0.33.0. Read refuses a file where a
// percentile is more than 0.1 % from the tool's own.
func TestImportAgreesWithTheTools(t *testing.T) {
	percentiles := []string{"p50 of TTFT", "p90 of TTFT", "p95 of TTFT", "p99 of TTFT", "p50 of TPOT", "p90 of TPOT", "p95 of TPOT", "p99 of TPOT",
		"p50 of the request latency", "p90 of the request latency", "p95 of the request latency", "p99 of the request latency"}
	for _, tt := range []struct {
		file, tool string
		dueKnown   bool
		warmups    int
		requests   int // with the failed ones
		failed     int
		output     int32 // tokens of each answer; 0: they differ; -1: they are not counted
		checks     []string
	}{
		{"aiperf/profile_export.jsonl", "AIPerf", false, 0, 40, 0, 0, percentiles},
		{"aiperf-errors/profile_export.jsonl", "AIPerf", false, 3, 30, 8, 0, percentiles},
		{"inference-perf/per_request_lifecycle_metrics.json", "inference-perf", false, 0, 48, 0, 30, percentiles},
		{"inference-perf-errors/per_request_lifecycle_metrics.json", "inference-perf", false, 0, 36, 4, 0, []string{"p50 of TTFT", "p90 of TTFT", "p99 of TTFT", "p50 of TPOT", "p90 of TPOT", "p99 of TPOT", "p50 of the request latency", "p90 of the request latency", "p99 of the request latency"}},
		{"mlperf/events.jsonl", "MLPerf Endpoints", false, 0, 40, 3, -1, []string{"p50 of TTFT", "p90 of TTFT", "p95 of TTFT", "p99 of TTFT", "p50 of the request latency", "p90 of the request latency", "p95 of the request latency", "p99 of the request latency"}},
		{"guidellm.json", "GuideLLM", true, 0, 40, 0, 16, percentiles},
		{"vllm.json", "vllm bench", false, 0, 40, 0, 16, []string{"p50 of E2EL", "p50 of TPOT", "p50 of TTFT", "p90 of E2EL", "p90 of TPOT", "p90 of TTFT", "p95 of E2EL", "p95 of TPOT", "p95 of TTFT", "p99 of E2EL", "p99 of TPOT", "p99 of TTFT"}},
	} {
		t.Run(tt.file, func(t *testing.T) {
			in, err := Read(unzipped(t, tt.file))
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, c := range in.Checks {
				names = append(names, c.Name)
			}
			slices.Sort(names)
			want := slices.Sorted(slices.Values(tt.checks))
			if in.Tool != tt.tool || in.Model != "launchgate-default" || in.DueKnown != tt.dueKnown || !slices.Equal(names, want) {
				t.Errorf("got %s, model %q, due times %v, percentiles %v; want %s, %v, %v", in.Tool, in.Model, in.DueKnown, names, tt.tool, tt.dueKnown, want)
			}
			warmups, requests, failed := 0, 0, 0
			for i := range in.Requests {
				q := &in.Requests[i]
				if q.Kind == recording.KindWarmup {
					warmups++
					continue
				}
				requests++
				if q.Error != "" {
					failed++
					if q.Status != 400 || q.Error != recording.ErrorStatus {
						t.Errorf("request %d failed with status %d, %v; want the 400 of the service", i, q.Status, q.Error)
					}
				} else if tt.output < 0 {
					if q.PromptTokens != 0 || q.OutputTokens != 0 {
						t.Errorf("request %d: %d and %d tokens, want none counted", i, q.PromptTokens, q.OutputTokens)
					}
				} else if q.PromptTokens <= 0 || q.OutputTokens <= 0 || tt.output > 0 && q.OutputTokens != tt.output {
					t.Errorf("request %d: %d and %d tokens, want an answer of %d", i, q.PromptTokens, q.OutputTokens, tt.output)
				}
			}
			if warmups != tt.warmups || requests != tt.requests || failed != tt.failed {
				t.Errorf("%d warm-ups, %d requests, %d failed; want %d, %d, %d", warmups, requests, failed, tt.warmups, tt.requests, tt.failed)
			}
			dir := filepath.Join(t.TempDir(), "run")
			if err := in.Write(Into{Dir: dir, Objectives: []scenarios.Objective{objective(t, "p50(service_ttft) <= 60s"), objective(t, "p50(ttft) <= 60s"), objective(t, "error_rate <= 50%")}}); err != nil {
				t.Fatal(err)
			}
			_, v := judged(t, dir)
			due := map[bool]checklist.Outcome{true: checklist.Pass, false: checklist.Unproven}[tt.dueKnown]
			for i, want := range []checklist.Outcome{checklist.Pass, due, checklist.Pass} {
				if f := v.Objectives[i]; f.Verdict != want {
					t.Errorf("%s is %v (%v), want %v", f.Source, f.Verdict, f.Why, want)
				}
			}
		})
	}
}

func unzipped(t *testing.T, name string) string {
	t.Helper()
	dir, from := t.TempDir(), filepath.Join("testdata/import", name)
	files := []string{from}
	if filepath.Dir(name) != "." { // what the tool wrote beside it too
		files = nil
		beside, err := filepath.Glob(filepath.Join(filepath.Dir(from), "*.gz"))
		if err != nil {
			t.Fatal(err)
		}
		below, err := filepath.Glob(filepath.Join(filepath.Dir(from), "performance", "*.gz"))
		if err != nil {
			t.Fatal(err)
		}
		beside = append(beside, below...)
		for _, path := range beside {
			files = append(files, strings.TrimSuffix(path, ".gz"))
		}
	}
	for _, path := range files {
		packed, err := os.ReadFile(path + ".gz")
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(z)
		if err := errors.Join(err, os.MkdirAll(filepath.Join(dir, within(from, path), ".."), 0o700), os.WriteFile(filepath.Join(dir, within(from, path)), b, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, filepath.Base(name))
}

// within is the path of a file below the folder that another is in.
func within(of, path string) string {
	return strings.TrimPrefix(path, filepath.Dir(of)+string(filepath.Separator))
}

func objective(t *testing.T, text string) scenarios.Objective {
	t.Helper()
	o, err := scenarios.ParseObjective(text)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func FuzzImport(f *testing.F) {
	for _, s := range []string{"", "[]", "{}",
		`{"ttfts":[1],"output_lens":[1],"errors":[""],"itls":[[]],"start_times":[1]}`,
		`{"benchmarks":[]}`,
		`[{"start_time":1,"end_time":2,"request":"{}","info":{"response_metrics":{"output_tokens":2,"output_token_times":[1.5,1.7]}}},{"start_time":1,"end_time":2,"error":{"error_type":"HTTP Error 400"}}]`,
		"{\"event_type\":\"sample.issued\",\"timestamp_ns\":1,\"sample_uuid\":\"a\"}\n{\"event_type\":\"sample.complete\",\"timestamp_ns\":2,\"sample_uuid\":\"a\",\"data\":[\"TextModelOutput\",[\"a\",\"b\"]]}",
		`{"benchmarks":[{"requests":{"successful":[{"info":{"timings":{"request_start":1,"request_end":2}}}]}}]}`,
		`{"metadata":{"request_start_ns":1,"request_end_ns":2},"metrics":{"request_latency":{"value":1,"unit":"ms"}}}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		in, err := parse(strings.NewReader(s))
		if err == nil && len(in.Requests) == 0 {
			t.Error("no error and no request")
		}
	})
}

// A file whose percentile is not that of its requests is refused.
func TestImportRefusesAFileThatContradictsItself(t *testing.T) {
	b := export(t, "vllm", paper("pass"), "")
	var f map[string]any
	decode(t, b, &f)
	f["p99_ttft_ms"] = f["p99_ttft_ms"].(float64) * 1.01
	path := filepath.Join(t.TempDir(), "file.json")
	changed, err := json.Marshal(f)
	if err := errors.Join(err, os.WriteFile(path, changed, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), "p99 of TTFT") {
		t.Errorf("got %v", err)
	}
}
