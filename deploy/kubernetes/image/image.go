// Package image makes container images without a daemon. Builds are
// reproducible: the same files give the same image, bit for bit.
package image

import (
	"archive/tar"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/launchgate/launchgate/internal/durable"
)

// User is the user of the images' processes. It is not root and not a user of
// the node.
const User = "10001:10001"

// File is one file of an image.
type File struct {
	Path    string // in the image
	Content []byte
	Mode    int64
}

// Spec describes an image.
type Spec struct {
	Layers       [][]File // the layer that changes least comes first
	Entrypoint   []string
	Environment  []string
	User         string
	Architecture string
	Labels       map[string]string
}

// epoch is the time of everything in an image, so that it does not depend on
// when it was built.
var epoch = time.Unix(0, 0).UTC()

// Build makes the image.
func Build(s Spec) (v1.Image, error) {
	img := mutate.MediaType(empty.Image, "application/vnd.docker.distribution.manifest.v2+json")
	for _, files := range s.Layers {
		b, err := archive(files)
		if err != nil {
			return nil, err
		}
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil })
		if err != nil {
			return nil, err
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			return nil, err
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", s.Architecture, v1.Time{Time: epoch}
	config.Config = v1.Config{Entrypoint: s.Entrypoint, Env: append([]string{"PATH=/usr/local/bin:/usr/bin:/bin"}, s.Environment...), User: s.User, Labels: s.Labels, WorkingDir: "/"}
	return mutate.ConfigFile(img, config)
}

// archive makes a layer: the files in the order of their paths, with their
// folders, owned by root.
func archive(files []File) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	made := map[string]bool{".": true}
	folder := func(dir string, mode int64) error {
		if made[dir] {
			return nil
		}
		made[dir] = true
		return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: mode, ModTime: epoch, Format: tar.FormatUSTAR})
	}
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	for _, f := range files {
		at := strings.TrimPrefix(path.Clean(f.Path), "/")
		if strings.HasSuffix(f.Path, "/") {
			if err := folder(at, f.Mode); err != nil {
				return nil, err
			}
			continue
		}
		for i, c := range at {
			if c == '/' {
				if err := folder(at[:i], 0o755); err != nil {
					return nil, err
				}
			}
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: at, Mode: f.Mode, Size: int64(len(f.Content)), ModTime: epoch, Format: tar.FormatUSTAR}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.Content); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}

// Write writes an image to a file, as docker save does. The commands docker
// load, kind load image-archive and ctr images import accept it.
func Write(file, tag string, img v1.Image) error {
	ref, err := name.NewTag(tag, name.StrictValidation)
	if err != nil {
		if ref, err = name.NewTag(tag); err != nil {
			return fmt.Errorf("%q is no name of an image: %w", tag, err)
		}
	}
	return durable.Replace(file, 0o644, func(w io.Writer) error { return tarball.Write(ref, img, w) })
}
