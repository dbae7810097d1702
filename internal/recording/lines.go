package recording

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/launchgate/launchgate/internal/words"
)

// lines is a growing file with one JSON value per line.
type lines struct {
	file   *os.File
	buffer *bufio.Writer
	dirty  bool
}

// createLines creates the file, which must not exist: if two runs start in one folder
// at once, only one succeeds.
func createLines(path string) (*lines, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, err
	}
	return &lines{file: file, buffer: bufio.NewWriter(file)}, nil
}

func (l *lines) write(value any) error {
	line, err := json.Marshal(value)
	if err != nil {
		return words.Errorf("%s: write %s: %s", filepath.Base(l.file.Name()), fmt.Sprintf("%+v", value), err)
	}
	l.dirty = true
	_, err = l.buffer.Write(append(line, '\n'))
	return err
}

func (l *lines) complete() error {
	if !l.dirty {
		return nil
	}
	l.dirty = false
	return errors.Join(l.buffer.Flush(), l.file.Sync())
}

func (l *lines) close() error { return errors.Join(l.complete(), l.file.Close()) }

// readLines reads a file of lines. A last line that a crash cut short is
// reported as a warning. Any other line that is not JSON is an error, because
// unreadable evidence must not be taken for missing evidence.
func readLines[T any](path string) (values []T, warning words.Sentence, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, words.Sentence{}, err
	}
	defer file.Close()
	name := filepath.Base(path)
	reader := bufio.NewReader(file)
	for number := 1; ; number++ {
		line, err := reader.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return values, words.Sentence{}, nil
		}
		if err == io.EOF {
			return values, words.Say("%s: line %d is incomplete and is left out.", name, number), nil
		}
		if err != nil {
			return nil, words.Sentence{}, err
		}
		var value T
		decoder := json.NewDecoder(bytes.NewReader(line))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&value); err != nil {
			return nil, words.Sentence{}, words.Errorf("%s: %s, line %d: %s", ErrDamaged, name, number, err)
		}
		values = append(values, value)
	}
}
