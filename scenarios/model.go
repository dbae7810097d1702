package scenarios

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// CheckModels looks whether the files that target.local serves can be models at all:
// a server without one only fails to start, again and again.
func (g Gate) CheckModels() error {
	if g.Target.Local == nil {
		return nil
	}
	return g.Target.Local.CheckModels()
}

// CheckModels looks whether the files that the replicas serve can be models at all.
func (l Local) CheckModels() error {
	if l.Dummy() {
		return nil // the server knows the shapes
	}
	if err := checkModel("target.local.model", l.Model); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(l.Models)) {
		if err := checkModel("target.local.models."+name+".path", l.Models[name].Path); err != nil {
			return err
		}
	}
	return nil
}

const expectedModel = "expected a GGUF file, or a Hugging Face folder with config.json"

func checkModel(key, path string) error {
	if path == "" {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("%s: found a model that cannot be read, %s: %w", key, expectedModel, err)
	}
	if info.IsDir() {
		if _, err := os.Stat(filepath.Join(path, "config.json")); err != nil {
			return fmt.Errorf("%s: found the folder %s without config.json, %s", key, path, expectedModel)
		}
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%s: found a model that cannot be read, %s: %w", key, expectedModel, err)
	}
	defer file.Close()
	magic := make([]byte, 4)
	if n, _ := io.ReadFull(file, magic); !bytes.Equal(magic[:n], []byte("GGUF")) {
		return fmt.Errorf("%s: found %s, which begins with %q, %s", key, path, magic[:n], expectedModel)
	}
	return nil
}
