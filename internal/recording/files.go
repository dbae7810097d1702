package recording

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Format is the version of the recording's format, kept in environment.json. It is
// increased when a reader of the old format would misread the new one.
const Format = 2

// The files of a recording. Requests are in parts, named by partName.
const (
	GateFile         = "gate.yaml"
	EnvironmentFile  = "environment.json"
	InjectionsFile   = "injections.jsonl"
	ObservationsFile = "observations.jsonl"
	LogsFolder       = "logs"
)

// hashedFiles are the files of dir whose sums are in environment.json: everything that
// the judging half reads, except environment.json itself.
func hashedFiles(dir string) ([]string, error) {
	requests, err := requestFiles(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, name := range append([]string{GateFile, InjectionsFile, ObservationsFile, ScanFile, GapsFile}, requests...) {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			names = append(names, name)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return names, nil
}

// requestFiles are the names of every requests-*.parquet in dir, in order.
func requestFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), "requests-") && strings.HasSuffix(entry.Name(), ".parquet") {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

func sum(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
