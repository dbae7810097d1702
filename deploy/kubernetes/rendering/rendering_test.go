// Package rendering holds the rendered manifests to their sources. It is apart from
// deploy/kubernetes, because kustomize's library imports Go's plugins: a program with
// those resolves every symbol when it starts, and NVIDIA's library, which deploy reads,
// has symbols that this machine may not have.
package rendering

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

var update = flag.Bool("update", false, "render the manifests again")

// The manifests that the program embeds, and the gate as a Job, are what kustomize
// makes of their folders.
func TestRendered(t *testing.T) {
	files := map[string]string{"../base": "../rendered/base.yaml", "../gate": "../testdata/gate.yaml"}
	overlays, err := filepath.Glob("../overlays/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range overlays {
		files[folder] = filepath.Join("../rendered", filepath.Base(folder)+".yaml")
	}
	for folder, file := range files {
		made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
		if err != nil {
			t.Fatal(err)
		}
		want, err := made.AsYaml()
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != string(want) {
			t.Errorf("%s is not of %s any more (%v): go test ./deploy/kubernetes/rendering -update", file, folder, err)
		}
	}
	rendered, err := filepath.Glob("../rendered/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := slices.DeleteFunc(slices.Sorted(maps.Values(files)), func(file string) bool { return !strings.HasPrefix(file, "../rendered/") })
	if !slices.Equal(rendered, want) {
		t.Errorf("rendered are %v, want %v", rendered, want)
	}
}
