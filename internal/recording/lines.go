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
)

// lines is a growing file of one JSON value a line.
type lines struct {
	file   *os.File
	buffer *bufio.Writer
	dirty  bool
}

// createLines makes the file, which must not be there yet: of two runs started
// in one folder at once, one gets it.
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
		return fmt.Errorf("%s: write %+v: %w", filepath.Base(l.file.Name()), value, err)
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
// reported as a warning; any other line that is not JSON is an error, because
// evidence that cannot be read is not evidence that was never there.
func readLines[T any](path string) (values []T, warning string, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer file.Close()
	name := filepath.Base(path)
	reader := bufio.NewReader(file)
	for number := 1; ; number++ {
		line, err := reader.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return values, "", nil
		}
		if err == io.EOF {
			return values, fmt.Sprintf("%s: line %d was cut short and is left out.", name, number), nil
		}
		if err != nil {
			return nil, "", err
		}
		var value T
		decoder := json.NewDecoder(bytes.NewReader(line))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&value); err != nil {
			return nil, "", fmt.Errorf("%w: %s, line %d: %v", ErrDamaged, name, number, err)
		}
		values = append(values, value)
	}
}
