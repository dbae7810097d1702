package cuda

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The shipped kernels were compiled from the sources and with the script in
// this folder: generate.sh records the checksum of all of them.
func TestShippedKernelsAreOfTheseSources(t *testing.T) {
	noted, err := os.ReadFile("kernels.sum")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	for _, pattern := range []string{"generate.sh", "kernels/*.cu", "kernels/*.cuh", "kernels.fatbin"} {
		files, err := filepath.Glob(pattern) // sorted, as a shell's
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v %v", pattern, files, err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			sum.Write(b)
		}
	}
	if got := fmt.Sprintf("%x", sum.Sum(nil)); got != strings.TrimSpace(string(noted)) {
		t.Errorf("the kernels, generate.sh or kernels.fatbin changed since kernels.sum was noted: run go generate ./reference-server/backend/cuda")
	}
}
