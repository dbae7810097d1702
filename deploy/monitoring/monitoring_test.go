package monitoring

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

func TestShorten(t *testing.T) {
	src := `groups:
  - interval: 15s
    rules:
      - expr: rate(x[5m]) / rate(y[1h]) > 2
        for: 10m
        annotations: {summary: wait for 5m}
`
	for _, tt := range []struct {
		times int
		want  string
	}{
		{1, src},
		{10, `groups:
  - interval: 1500ms
    rules:
      - expr: rate(x[30000ms]) / rate(y[360000ms]) > 2
        for: 60000ms
        annotations: {summary: wait for 5m}
`},
		{60, `groups:
  - interval: 1000ms
    rules:
      - expr: rate(x[5000ms]) / rate(y[60000ms]) > 2
        for: 10000ms
        annotations: {summary: wait for 5m}
`},
	} {
		if got := string(Shorten([]byte(src), tt.times)); got != tt.want {
			t.Errorf("%d times:\n%s\nwant\n%s", tt.times, got, tt.want)
		}
	}
}

// Shorten finds every window of the files. A drill would wait for a window that
// it misses.
func TestEveryWindowIsShortened(t *testing.T) {
	for _, name := range []string{"rules.yml", "prometheus.yml"} {
		src, err := Files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(Shorten(src, MaxShorten))) {
			if text, _, _ := strings.Cut(line, "#"); strings.Contains(text, "m]") || strings.Contains(text, "h]") || strings.Contains(text, "for:") || strings.Contains(text, "interval:") {
				if !strings.Contains(text, "ms") {
					t.Errorf("%s: %q is not shortened", name, strings.TrimSpace(line))
				}
			}
		}
	}
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("skipped: promtool, which comes with Prometheus, is not on the PATH")
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// The rules pass rules_test.yml, and the shortened rules are valid.
func TestRules(t *testing.T) {
	promtool(t, "test", "rules", "rules_test.yml")
	for _, times := range []int{1, 7, MaxShorten} {
		dir := t.TempDir()
		if err := Write(dir, times); err != nil {
			t.Fatal(err)
		}
		for _, list := range []string{"gateways.json", "replicas.json"} {
			if err := os.WriteFile(filepath.Join(dir, list), []byte("[]"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		promtool(t, "check", "config", filepath.Join(dir, "prometheus.yml"))
	}
}

// Every alert has a test of promtool in which it fires.
func TestEveryAlertIsTested(t *testing.T) {
	tests, err := os.ReadFile("rules_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules(t) {
		if !strings.Contains(string(tests), "alertname: "+r.Alert+"\n        exp_alerts:") {
			t.Errorf("no test has %s fire", r.Alert)
		}
		if r.Annotations["summary"] == "" || r.Annotations["action"] == "" || r.Labels["severity"] == "" {
			t.Errorf("%s does not say what it is, what to do, or how bad it is", r.Alert)
		}
	}
}

type rule struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

func rules(t *testing.T) (all []rule) {
	t.Helper()
	src, err := Files.ReadFile("rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Groups []struct{ Rules []rule } }
	if err := yaml.Unmarshal(src, &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// The expressions of the dashboard are valid: promtool checks them as rules.
func TestDashboard(t *testing.T) {
	src, err := Files.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(src, &board); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for i, p := range board.Panels {
		if p.Title == "" || len(p.Targets) == 0 {
			t.Errorf("panel %d shows nothing", i)
		}
		for j, target := range p.Targets {
			fmt.Fprintf(&b, "  - record: panel_%d_%d\n    expr: '%s'\n", i, j, strings.ReplaceAll(target.Expr, "$__rate_interval", "1m"))
		}
	}
	file := filepath.Join(t.TempDir(), "dashboard-rules.yml")
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
}
