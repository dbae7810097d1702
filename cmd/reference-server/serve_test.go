package main

import (
	"os"
	"path/filepath"
	"testing"
)

// A path may have = and , in it, which otherwise stand around it.
func TestModelsAreNamed(t *testing.T) {
	dir := t.TempDir()
	comma, equals := filepath.Join(dir, "a,b"), filepath.Join(dir, "a=b,none")
	for _, path := range []string{comma, equals} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for model, want := range map[string][3]string{
		"m=" + comma:           {"m", comma, "fp16"},
		"m=" + comma + ",none": {"m", comma, "none"},
		comma + ",none":        {"", comma, "none"},
		equals:                 {"", equals, "fp16"},
		"m=" + equals:          {"m", equals, "fp16"},
	} {
		o := serveOptions{models: []string{model}, deviceMiB: 1, deviceFile: filepath.Join(dir, "device")}
		o.engine.Quantization = "fp16"
		configs, err := o.configs()
		if err != nil {
			t.Fatal(err)
		}
		if c := configs[0]; c.Name != want[0] || c.Path != want[1] || c.Quantization != want[2] {
			t.Errorf("%s is %q of %s in %s, want %q", model, c.Name, c.Path, c.Quantization, want)
		}
	}
}
