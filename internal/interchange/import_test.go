package interchange

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/checklist"
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
			var objectives []scenarios.Objective
			for _, text := range []string{"p95(service_ttft) <= 60s", "p95(ttft) <= 60s"} {
				o, err := scenarios.ParseObjective(text)
				if err != nil {
					t.Fatal(err)
				}
				objectives = append(objectives, o)
			}
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

func FuzzImport(f *testing.F) {
	for _, s := range []string{"", "[]", "{}",
		`{"ttfts":[1],"output_lens":[1],"errors":[""],"itls":[[]],"start_times":[1]}`,
		`{"benchmarks":[]}`,
		`{"benchmarks":[{"requests":{"successful":[{"info":{"timings":{"request_start":1,"request_end":2}}}]}}]}`,
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
