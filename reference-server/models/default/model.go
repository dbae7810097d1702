// Package defaultmodel carries the small model that reference-server serves
// when no other is named. MODEL_CARD.md tells how it was made.
package defaultmodel

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
)

// Name is what the model is called in the API.
const Name = "launchgate-default"

//go:embed default.gguf
var gguf []byte

// Path is a file with the model, for memory-mapping: written once into the
// user's cache and named by its contents, so that a program and its model
// always fit.
func Path() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	sum := sha256.Sum256(gguf)
	dir := filepath.Join(cache, "launchgate", "models")
	path := filepath.Join(dir, Name+"-"+hex.EncodeToString(sum[:8])+".gguf")
	if b, err := os.ReadFile(path); err == nil && sha256.Sum256(b) == sum {
		return path, nil
	}
	if err := write(dir, path); err != nil {
		return "", fmt.Errorf("the built-in model cannot be unpacked (set XDG_CACHE_HOME to a folder that can be written): %w", err)
	}
	return path, nil
}

// write puts the model at path at once, as several servers may start together.
func write(dir, path string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".model-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	if _, err := f.Write(gguf); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
