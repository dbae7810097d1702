package gateway

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// AuditLog is a file that lines are appended to. It is rotated when it is full: the
// previous files are FILE.1 (the newest) to FILE.N, and older ones are removed.
// Several gateways may share it, so each checks now and then whether another one
// has rotated it.
type AuditLog struct {
	path  string
	most  int64 // bytes of a file
	files int   // rotated files that are kept; 0: it is never rotated

	mu     sync.Mutex
	file   *os.File
	size   int64
	looked time.Time
}

// auditLook is how often a gateway checks whether another one has rotated the file.
const auditLook = time.Second

// OpenAuditLog opens the file, or creates it.
func OpenAuditLog(path string, megabytes, files int) (*AuditLog, error) {
	l := &AuditLog{path: path, most: int64(megabytes) << 20, files: files}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	return l, nil
}

func (l *AuditLog) open() error {
	f, err := os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	if l.file != nil {
		l.file.Close()
	}
	l.file, l.size, l.looked = f, st.Size(), time.Now()
	return nil
}

// Write appends a line, with one write.
func (l *AuditLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.current(int64(len(line))); err != nil {
		return 0, err
	}
	n, err := l.file.Write(line)
	l.size += int64(n)
	return n, err
}

// current makes sure that the open file is the one at the path and has room for a
// line.
func (l *AuditLog) current(line int64) error {
	full := l.files > 0 && l.most > 0 && l.size+line > l.most
	if l.file != nil && !full && time.Since(l.looked) < auditLook {
		return nil
	}
	st, err := os.Stat(l.path)
	if err == nil && l.file != nil {
		var own os.FileInfo
		if own, err = l.file.Stat(); err == nil && os.SameFile(st, own) {
			l.size, l.looked = st.Size(), time.Now()
			if l.files == 0 || l.most <= 0 || l.size+line <= l.most || l.size == 0 {
				return nil
			}
			l.rotate()
		}
	}
	return l.open()
}

// rotate renames FILE to FILE.1, FILE.1 to FILE.2 and so on. If FILE cannot be
// renamed, lines are still appended to it.
func (l *AuditLog) rotate() {
	for n := l.files - 1; n > 0; n-- {
		_ = os.Rename(l.path+"."+strconv.Itoa(n), l.path+"."+strconv.Itoa(n+1)) // not all are there yet
	}
	_ = os.Rename(l.path, l.path+".1")
}

// Close closes the file.
func (l *AuditLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return errors.New("the audit log is closed")
	}
	err := l.file.Close()
	l.file = nil
	return err
}
