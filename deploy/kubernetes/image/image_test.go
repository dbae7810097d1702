package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// The same files in any order give the same image. A different byte gives a
// different image.
func TestImagesAreReproducible(t *testing.T) {
	digest := func(files ...File) string {
		t.Helper()
		img, err := Build(Spec{Layers: [][]File{files}, Entrypoint: []string{"/a"}, User: User, Architecture: "amd64"})
		if err != nil {
			t.Fatal(err)
		}
		d, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return d.String()
	}
	a, b := File{Path: "/x/a", Content: []byte("a"), Mode: 0o755}, File{Path: "/x/b", Content: []byte("b"), Mode: 0o644}
	if one, two := digest(a, b), digest(b, a); one != two {
		t.Errorf("%s in one order, %s in another", one, two)
	}
	if one, two := digest(a), digest(File{Path: a.Path, Content: []byte("c"), Mode: a.Mode}); one == two {
		t.Errorf("other contents have the same digest %s", one)
	}
}

// The image of a program has the libraries that the program needs, a bill of
// materials and a user that is not root. It can be written to a file and read
// again with its tag. The program runs with the files of the image only.
func TestImageOfAProgram(t *testing.T) {
	program := filepath.Join(t.TempDir(), "images")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", program, "../images").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	spec, err := OfProgram(program, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	img, err := Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := Write(file, "launchgate/test:v1", img); err != nil {
		t.Fatal(err)
	}
	read, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	config, err := read.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != "10001:10001" || config.Config.Entrypoint[0] != "/"+filepath.Base(program) || !config.Created.Time.Equal(epoch) {
		t.Errorf("%+v", config)
	}
	root := t.TempDir()
	layers, err := read.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, layer := range layers {
		r, err := layer.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		for in := tar.NewReader(r); ; {
			h, err := in.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if h.Uid != 0 || !h.ModTime.Equal(epoch) {
				t.Errorf("%s is of user %d and of %s", h.Name, h.Uid, h.ModTime)
			}
			at := filepath.Join(root, filepath.FromSlash(h.Name))
			if h.Typeflag == tar.TypeDir {
				if err := os.MkdirAll(at, 0o755); err != nil {
					t.Fatal(err)
				}
				continue
			}
			b, err := io.ReadAll(in)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(at, b, os.FileMode(h.Mode)); err != nil {
				t.Fatal(err)
			}
		}
		r.Close()
	}
	var bom struct{ Components []struct{ Name, Purl string } }
	b, err := os.ReadFile(filepath.Join(root, "sbom.cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &bom); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, []byte("pkg:golang/github.com/google/go-containerregistry@")) || len(bom.Components) < 3 {
		t.Errorf("the bill of materials lacks modules: %s", b)
	}
	if os.Getuid() != 0 {
		t.Skip("the program is run in the image's root, which takes root")
	}
	out, err := exec.Command("chroot", root, "/"+filepath.Base(program), "-help").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "their version") {
		t.Errorf("in the image's root: %v: %s", err, out)
	}
}

func TestNamesOfImages(t *testing.T) {
	img, err := Build(Spec{Architecture: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	if err := Write(filepath.Join(t.TempDir(), "x"), "No Name", img); err == nil || !strings.Contains(err.Error(), `"No Name" is no name of an image`) {
		t.Error(err)
	}
	if _, err := OfProgram("/etc/passwd", nil, nil); err == nil || !strings.Contains(err.Error(), "/etc/passwd") {
		t.Error(err)
	}
}
