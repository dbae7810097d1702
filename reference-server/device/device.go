// Package device accounts for the memory of a device that several processes
// share. A GPU does this itself. For the CPU a file holds the claims of all
// processes, so that servers on one host compete for memory and run out of it
// as on a GPU. Claims of dead processes are void.
package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
)

// Device is a memory budget that processes share through a file.
type Device struct {
	path  string
	total int64

	mu sync.Mutex
}

// claims counts this process's claims, on all its devices.
var claims atomic.Int64

// OutOfMemoryError says that a claim does not fit.
type OutOfMemoryError struct {
	Name               string
	Asked, Free, Total int64
	Sum                string // how what is asked for adds up; empty: it is one thing
}

func (e *OutOfMemoryError) Error() string {
	text := fmt.Sprintf("out of device memory: %s needs %d MiB, and %d of %d MiB are free", e.Name, mib(e.Asked), mib(e.Free), mib(e.Total))
	if e.Sum != "" {
		text += ": " + e.Sum
	}
	return text
}

func mib(n int64) int64 { return (n + 1<<20 - 1) >> 20 }

// claim is an entry of the file.
type claim struct {
	PID   int    `json:"pid"`
	Start string `json:"start"` // start time of the process, because pids are reused
	ID    int64  `json:"id"`
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

// DefaultPath is the file that servers on this host share.
func DefaultPath() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("launchgate-cpu-%d.json", os.Getuid()))
}

// Open is the device whose claims are in the file at path; total is its memory
// in bytes. Processes that share a device should use the same total, which is
// not checked.
func Open(path string, total int64) (*Device, error) {
	d := &Device{path: path, total: total}
	if _, err := d.Usage(); err != nil {
		return nil, err
	}
	return d, nil
}

// Claim is memory that this process holds.
type Claim struct {
	d    *Device
	id   int64
	name string
}

// Claim takes bytes for something named.
func (d *Device) Claim(name string, bytes int64) (*Claim, error) {
	c := &Claim{d, claims.Add(1), name}
	return c, c.Resize(bytes)
}

// Resize makes the claim larger or smaller; 0 releases it. If there is not
// enough memory, the claim stays as it was.
func (c *Claim) Resize(bytes int64) error {
	return c.d.change(func(claims []claim) ([]claim, error) {
		own := func(x claim) bool { return x.PID == os.Getpid() && x.ID == c.id }
		var had, used int64
		for _, x := range claims {
			used += x.Bytes
			if own(x) {
				had = x.Bytes
			}
		}
		if free := c.d.total - used; bytes-had > free {
			return nil, &OutOfMemoryError{Name: c.name, Asked: bytes - had, Free: max(0, free), Total: c.d.total}
		}
		claims = slices.DeleteFunc(claims, own)
		if bytes > 0 {
			claims = append(claims, claim{os.Getpid(), startOf(os.Getpid()), c.id, c.name, bytes})
		}
		return claims, nil
	})
}

// Release gives the memory back.
func (c *Claim) Release() error { return c.Resize(0) }

// Usage is how much of a device all processes have claimed.
type Usage struct{ Used, Total int64 }

// Free is what can still be claimed.
func (u Usage) Free() int64 { return max(0, u.Total-u.Used) }

// Usage sums the claims.
func (d *Device) Usage() (Usage, error) {
	u := Usage{Total: d.total}
	err := d.change(func(claims []claim) ([]claim, error) {
		for _, c := range claims {
			u.Used += c.Bytes
		}
		return claims, nil
	})
	return u, err
}

// change reads the claims under a lock, drops those of dead processes, calls f,
// and writes its result back.
func (d *Device) change(f func([]claim) ([]claim, error)) error {
	d.mu.Lock() // the file's lock belongs to the process, not to a goroutine
	defer d.mu.Unlock()
	file, err := os.OpenFile(d.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("the device's memory is accounted for in a file: %w", err)
	}
	defer file.Close() // releases the lock too
	if err := lock(file); err != nil {
		return fmt.Errorf("lock %s: %w", d.path, err)
	}
	before, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	var claims []claim
	if len(before) > 0 {
		if err := json.Unmarshal(before, &claims); err != nil {
			return fmt.Errorf("%s holds no claims (%w); remove it when no server runs", d.path, err)
		}
	}
	claims = slices.DeleteFunc(claims, func(c claim) bool { return startOf(c.PID) != c.Start })
	if claims, err = f(claims); err != nil {
		return err
	}
	after, err := json.Marshal(claims)
	if err != nil || string(after) == string(before) {
		return err
	}
	_, err = file.WriteAt(after, 0)
	return errors.Join(err, file.Truncate(int64(len(after))))
}
