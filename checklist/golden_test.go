package checklist

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

var update = flag.Bool("update", false, "write the runs in testdata and their verdicts anew")

// The verdicts on the runs in testdata are those of their verdict.json. To turn a
// wrongly judged run into a test, copy its folder there.
func TestRunsAreJudgedAsTheirVerdictsSay(t *testing.T) {
	if *update {
		for _, p := range papers {
			dir := filepath.Join("testdata", "runs", p.name)
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			p.write(t, dir)
		}
	}
	dirs, err := filepath.Glob("testdata/runs/*")
	if err != nil || len(dirs) < len(papers) {
		t.Fatalf("%d runs in testdata, want at least %d (%v)", len(dirs), len(papers), err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			gate, err := scenarios.Load(filepath.Join(dir, recording.GateFile))
			if err != nil {
				t.Fatal(err)
			}
			rec, err := recording.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			v, err := Judge(gate, rec)
			if err != nil {
				t.Fatal(err)
			}
			for i, f := range v.Objectives {
				m, _ := scenarios.MetricOf(gate.Resolved().Objectives[i].Metric)
				if f.Bound != nil && m.Bound == scenarios.Unbounded {
					t.Errorf("%s has a bound, and the row of %s says that it has none", f.Source, m.Name)
				}
			}
			got := encode(t, v)
			golden := filepath.Join(dir, "verdict.json")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("it is judged otherwise than %s says (-update writes it anew):\n%s", golden, got)
			}
			again, err := Judge(gate, rec)
			if err != nil || !bytes.Equal(encode(t, again), got) {
				t.Error("judged twice, the same run has two verdicts")
			}
		})
	}
}

// encode writes a verdict as in verdict.json.
func encode(t *testing.T, v Verdict) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The behaviour of the synthetic services is known, so the stored verdicts are checked
// against it too, and not only against themselves.
func TestPaperRunsAreWhatTheyAreNamed(t *testing.T) {
	for name, want := range map[string]struct {
		verdict Outcome
		code    int
	}{
		"pass": {Pass, 0}, "fail": {Fail, 1}, "unproven": {Unproven, 2}, "invalid": {Invalid, 3}, "interrupted": {Unproven, 130},
	} {
		src, err := os.ReadFile(filepath.Join("testdata", "runs", name, "verdict.json"))
		if err != nil {
			t.Fatal(err)
		}
		var v Verdict
		if err := json.Unmarshal(src, &v); err != nil {
			t.Fatal(err)
		}
		if v.Verdict != want.verdict || v.ExitCode != want.code {
			t.Errorf("%s is %v with exit code %d: %q", name, v.Verdict, v.ExitCode, v.Why)
		}
	}
}

// Every key of verdict.json is in FORMAT.md.
func TestVerdictIsDocumented(t *testing.T) {
	source, err := os.ReadFile(filepath.Join("..", "internal", "recording", "FORMAT.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range []any{Verdict{}, Finding{}, Fault{}, Blast{}, BlastStep{}, Alert{}, Client{}, Scenario{}, Quantiles{}} {
		for _, field := range reflect.VisibleFields(reflect.TypeOf(of)) {
			key, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if key != "-" && !bytes.Contains(source, []byte("`"+key+"`")) {
				t.Errorf("FORMAT.md does not name %s of %T", key, of)
			}
		}
	}
}
