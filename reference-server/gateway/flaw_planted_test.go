//go:build flaws

package gateway

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// Every flaw of the list is planted somewhere.
func TestEveryFlawIsPlanted(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	for _, name := range Flaws {
		if !bytes.Contains(all, []byte(`planted("`+name+`")`)) && !bytes.Contains(all, []byte(`plantedFor("`+name+`"`)) {
			t.Errorf("%s is planted nowhere", name)
		}
	}
}
