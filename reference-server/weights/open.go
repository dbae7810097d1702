package weights

import (
	"fmt"
	"os"
	"path/filepath"
)

// Open reads a GGUF file or a Hugging Face folder. The matrices are in memory
// maps, which Close releases.
func Open(path string) (*Model, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	if st.IsDir() {
		m, err := openFolder(path)
		if err != nil {
			return nil, fmt.Errorf("model folder %s: %w", path, err)
		}
		return m, nil
	}
	m, err := openGGUF(path)
	if err != nil {
		return nil, fmt.Errorf("model file %s: %w", path, err)
	}
	return m, nil
}

func openGGUF(path string) (*Model, error) {
	b, unmap, err := mapFile(path)
	if err != nil {
		return nil, err
	}
	meta, tensors, err := parseGGUF(b)
	if err != nil {
		_ = unmap()
		return nil, err
	}
	return &Model{Path: path, Meta: meta, Tensors: tensors, close: unmap}, nil
}

// Name is the default name of a model: the name of its file or folder.
func Name(path string) string {
	base := filepath.Base(path)
	if filepath.Ext(base) == ".gguf" {
		base = base[:len(base)-len(".gguf")]
	}
	return base
}
