package engine

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/launchgate/launchgate/reference-server/weights"
)

// A model with additional layers that add nothing gives the same answers, bit
// for bit.
func TestDeeperModelSaysTheSame(t *testing.T) {
	b, err := os.ReadFile(defaultModel)
	if err != nil {
		t.Fatal(err)
	}
	var deep bytes.Buffer
	if err := weights.Deepen(&deep, b, 3); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "deep.gguf")
	if err := os.WriteFile(path, deep.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	deeper, err := Open(Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer deeper.Close()
	e := open(t, Config{})
	if was, is := e.model.Config.Layers, deeper.model.Config.Layers; is != 3*was {
		t.Errorf("%d layers, want three times %d", is, was)
	}
	for _, c := range readGolden().Cases {
		if !slices.Equal(forward(e, e.kv, c.IDs, 1), forward(deeper, deeper.kv, c.IDs, 1)) {
			t.Errorf("%q: other logits", c.Prompt)
		}
	}
}
