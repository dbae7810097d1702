// Package durable replaces files so that a reader finds the old content or the new, and
// never half of one, also after a crash.
package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// Replace writes a file under a temporary name beside it and renames it. When it has
// returned, the new content survives a power cut.
func Replace(path string, mode fs.FileMode, write func(io.Writer) error) error {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	if err = write(file); err == nil {
		err = errors.Join(file.Chmod(mode), file.Sync())
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		_ = os.Remove(file.Name()) // the error of the writing says more
		return err
	}
	return SyncFolder(filepath.Dir(path))
}

// Content writes bytes.
func Content(b []byte) func(io.Writer) error {
	return func(w io.Writer) error { _, err := w.Write(b); return err }
}

// SyncFolder makes what was renamed in a folder survive a power cut. Windows cannot sync
// a folder and does not need it: NTFS keeps a journal of names.
func SyncFolder(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
