package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/reports"
)

// answers is a service that streams two tokens, for any model.
func answers(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/models") {
			fmt.Fprint(w, `{"object":"list","data":[{"id":"a"}]}`)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, `data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}`+"\n\n")
		fmt.Fprint(w, `data: {"choices":[{"index":0,"delta":{"content":" you"},"finish_reason":"stop"}]}`+"\n\n")
		fmt.Fprint(w, `data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}`+"\n\ndata: [DONE]\n\n")
	}))
	t.Cleanup(s.Close)
	return s
}

const matrixGate = `name: two
seed: 1
matrix: {MODEL: [a, b]}
labels: {team: search}
target: {endpoint: {url: "${URL}", model: "${MODEL}"}}
scenarios: [{name: s, stages: [{name: m, for: 1s, rate: "${RATE:-200/s}"}]}]
objectives: [error_rate <= 5%]
`

// A gate with a matrix is played once for each combination, with labels, and one page
// has the runs side by side.
func TestMatrixIsPlayed(t *testing.T) {
	dir := t.TempDir()
	gate, to := filepath.Join(dir, "gate.yaml"), filepath.Join(dir, "runs")
	if err := os.WriteFile(gate, []byte(matrixGate), 0o600); err != nil {
		t.Fatal(err)
	}
	url := "URL=" + answers(t).URL
	if code, out := launch(t, "run", "--dry-run", "--set", url, gate); code != 0 || !strings.Contains(out, "2 runs") || !strings.Contains(out, "MODEL=b") {
		t.Errorf("dry run: exit code %d, %s", code, out)
	}
	code, out := launch(t, "run", "--set", url, "--label", "version=1.4", "--out", to, gate)
	if code != checklist.ExitPass && code != checklist.ExitInvalid { // invalid where this machine is too busy to send in time
		t.Fatalf("exit code %d, %s", code, out)
	}
	var doc reports.Matrix
	if err := json.Unmarshal(readFile(t, filepath.Join(to, "matrix.json")), &doc); err != nil || len(doc.Runs) != 2 || doc.Runs[1].Settings["MODEL"] != "b" {
		t.Fatalf("%v: %+v", err, doc)
	}
	page := string(readFile(t, filepath.Join(to, "matrix.html")))
	for _, want := range []string{"error_rate &lt;= 5%", "01-MODEL=a/report.html", "02-MODEL=b/report.html"} {
		if !strings.Contains(page, want) {
			t.Errorf("matrix.html lacks %s", want)
		}
	}
	report := string(readFile(t, filepath.Join(to, doc.Runs[1].Folder, "report.html")))
	for _, want := range []string{"<dt>version</dt><dd>1.4</dd>", "<dt>team</dt><dd>search</dd>"} {
		if !strings.Contains(report, want) {
			t.Errorf("the report lacks %s", want)
		}
	}
}

// The labels of CI systems come after the gate's, and those after the command line's.
func TestLabels(t *testing.T) {
	env := map[string]string{"GITHUB_SHA": "abc", "GITHUB_REF_NAME": "v2", "GITHUB_REF_TYPE": "tag", "GITHUB_SERVER_URL": "https://git", "GITHUB_REPOSITORY": "o/r", "GITHUB_RUN_ID": "7"}
	labels, err := labelled(map[string]string{"version": "gate", "team": "x"}, []string{"team=y=z"}, func(name string) string { return env[name] })
	if err != nil || labels["commit"] != "abc" || labels["version"] != "gate" || labels["team"] != "y=z" || labels["job"] != "https://git/o/r/actions/runs/7" {
		t.Errorf("%v, %v", labels, err)
	}
	if _, err := labelled(nil, []string{"team"}, os.Getenv); err == nil {
		t.Error("a label without a value is taken")
	}
}

// stop.when_failed plays nothing after a scenario that missed an objective: the verdict is
// fail, and the rest is unproven.
func TestARunThatCannotPassEnds(t *testing.T) {
	dir := t.TempDir()
	gate, to := filepath.Join(dir, "gate.yaml"), filepath.Join(dir, "run")
	if err := os.WriteFile(gate, []byte(`name: ends
seed: 1
stop: {when_failed: true}
target: {endpoint: {url: "${URL}", model: a}}
scenarios:
  - {name: first, stages: [{name: m, for: 1s, rate: 50/s}]}
  - {name: second, stages: [{name: m, for: 1h, rate: 50/s}]}
  - {name: broken, stages: [{name: m, for: 1h, rate: 50/s}], faults: [{kind: network-delay, at: 1s, for: 5s, delay: 50ms}]}
objectives: [error_rate in first >= 50%, error_rate in second <= 5%, error_rate <= 5%, rto(network-delay) < 5s]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out := launch(t, "run", "--set", "URL="+answers(t).URL, "--out", to, gate)
	if code != checklist.ExitFail && code != checklist.ExitInvalid { // invalid where this machine is too busy to send in time
		t.Fatalf("exit code %d, %s", code, out)
	}
	var v checklist.Verdict
	if err := json.Unmarshal(readFile(t, filepath.Join(to, "verdict.json")), &v); err != nil || v.Incomplete || len(v.Objectives) != 4 {
		t.Fatalf("%v: %+v", err, v)
	}
	for i, want := range []checklist.Outcome{checklist.Fail, checklist.Unproven, checklist.Unproven, checklist.Unproven} {
		if f := v.Objectives[i]; f.Verdict != want {
			t.Errorf("%s: %s, %s", f.Source, f.Verdict, f.Why)
		}
	}
	for _, page := range []string{"report.html", "summary.md"} {
		if !strings.Contains(string(readFile(t, filepath.Join(to, page))), "ended after the scenario first") {
			t.Errorf("%s does not say why the rest was not played", page)
		}
	}
}

// --timeout ends a run that takes too long, and the report says so.
func TestTimeoutEndsARun(t *testing.T) {
	dir := t.TempDir()
	gate, to := filepath.Join(dir, "gate.yaml"), filepath.Join(dir, "run")
	src := strings.NewReplacer("matrix: {MODEL: [a, b]}\n", "", "for: 1s", "for: 1h", "${MODEL}", "a").Replace(matrixGate)
	if err := os.WriteFile(gate, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out := launch(t, "run", "--timeout", "2s", "--set", "URL="+answers(t).URL, "--set", "RATE=5/s", "--out", to, gate)
	if code != checklist.ExitInterrupted || !strings.Contains(out, "--timeout of 2s") {
		t.Errorf("exit code %d, %s", code, out)
	}
}
