package durable

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// A file has its new content as a whole or its old one, and nothing is left beside it.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.json")
	full := errors.New("the disk is full")
	for _, tt := range []struct {
		write func(io.Writer) error
		err   error
		want  string
	}{
		{Content([]byte("first")), nil, "first"},
		{Content([]byte("second, which is longer")), nil, "second, which is longer"},
		{func(w io.Writer) error { _, err := io.WriteString(w, "half"); return errors.Join(err, full) }, full, "second, which is longer"},
		{Content(nil), nil, ""},
	} {
		if err := Replace(path, 0o600, tt.write); !errors.Is(err, tt.err) {
			t.Errorf("found the error %v, expected %v", err, tt.err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != tt.want {
			t.Errorf("found %q (%v), expected %q", b, err, tt.want)
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("found the mode %v (%v), expected 0600", st.Mode(), err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("the folder has %v (%v), expected the file alone", left, err)
		}
	}
	if err := Replace(filepath.Join(dir, "gone", "b"), 0o600, Content(nil)); err == nil {
		t.Error("a file was written into a folder that is not there")
	}
}
