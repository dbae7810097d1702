package scenarios

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is no model is refused before anything starts.
func TestModelsAreChecked(t *testing.T) {
	dir := t.TempDir()
	text, gguf, folder := filepath.Join(dir, "text"), filepath.Join(dir, "m.gguf"), filepath.Join(dir, "folder")
	for path, is := range map[string]string{text: "vm", gguf: "GGUF\x03", filepath.Join(folder, "config.json"): "{}"} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(is), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{"": "", gguf: "", folder: "", text: `begins with "vm"`, dir: "without config.json", filepath.Join(dir, "none"): "no such file"} {
		for _, l := range []Local{{Model: path}, {Models: map[string]Model{"m": {Path: path}}}} {
			g := Gate{Target: Target{Local: &l}}
			err := g.CheckModels()
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%q: %v, want %q", path, err, want)
			}
		}
	}
}
