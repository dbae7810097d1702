package deploy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// The allowance comes before the exceptions of the file, which stay in effect.
func TestLimits(t *testing.T) {
	file := filepath.Join(t.TempDir(), "limits.yaml")
	if err := os.WriteFile(file, []byte("key: {rate: 7, burst: 8}\nnetworks: [{cidr: 127.0.0.0/8, rate: 1, burst: 1}]\ntenants: {acme: {concurrency: 3}}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := limits(file, Allowance{PerSecond: 40, UnderWay: 9, Tenants: []string{"bulk"}})
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Key      struct{ Rate float64 }
		Networks []struct {
			CIDR  string
			Rate  float64
			Burst int
		}
		Tenants map[string]struct{ Concurrency int }
	}
	if err := yaml.Unmarshal(out, &c); err != nil {
		t.Fatal(err)
	}
	if c.Key.Rate != 7 || len(c.Networks) != 2 || c.Networks[0].CIDR != "127.0.0.1/32" || c.Networks[0].Rate != 40 || c.Networks[0].Burst != 500 || c.Networks[1].Rate != 1 {
		t.Errorf("%s", out)
	}
	if len(c.Tenants) != 3 || c.Tenants["acme"].Concurrency != 3 || c.Tenants["bulk"].Concurrency != 9 || c.Tenants[owner].Concurrency != 9 {
		t.Errorf("%s", out)
	}
	// Without a planned load nothing may exceed the limits.
	if out, err := limits("", Allowance{}); err != nil || strings.TrimSpace(string(out)) != "{}" {
		t.Errorf("%q %v", out, err)
	}
	if _, err := limits(filepath.Join(t.TempDir(), "none.yaml"), Allowance{}); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Error(err)
	}
}
