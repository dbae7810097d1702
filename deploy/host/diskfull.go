package host

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

const (
	leastDisk = 32 << 20 // bytes
	diskName  = ofOurs + "disk"
	balloon   = ofOurs + "balloon"
	writable  = ofOurs + "written" // the file with which a write is tried
)

// needsDisk reports whether the ledger of a gate's deployment needs a disk of
// its own.
func needsDisk(gate scenarios.Gate, spec scenarios.Local) bool {
	return !spec.Gateway.Plain && gate.AnyFault(func(_ scenarios.Fault, k scenarios.FaultKind) bool { return k.OwnDisk }) && canMount() == nil
}

// DiskFor is the size in bytes of the disk for a gate's ledger: several times
// what the gate writes. At about twenty requests a second, 32 MiB were full
// after 110 seconds, because the copy of the ledger keeps each change.
func DiskFor(gate scenarios.Gate) int64 {
	perSecond, _ := gate.Peak()
	var lasts time.Duration
	for _, s := range gate.Scenarios {
		lasts += s.Duration()
	}
	return leastDisk + int64((1<<20+(32<<10)*perSecond)*lasts.Seconds())
}

// OwnDisk makes a folder on a file system of its own, which has so many bytes
// and is kept in memory. The folder must not exist yet. release replaces the
// file system with a plain folder that has the same files.
func OwnDisk(j deploy.Journal, folder string, size int64) (release func() error, err error) {
	undo := undoing(undoUnmount, object{Path: folder})
	if err := errors.Join(os.MkdirAll(filepath.Dir(folder), 0o700), os.Mkdir(folder, 0o700)); err != nil {
		return nil, err
	}
	if err := j.Begin(diskName, scenarios.DiskFull.Name, folder, []deploy.Undo{undo}); err != nil {
		return nil, err
	}
	if err := mountDisk(folder, size); err != nil {
		return nil, errors.Join(err, j.End(diskName))
	}
	return func() error {
		plain := folder + "-plain"
		_ = os.Remove(filepath.Join(folder, balloon)) // left by a fault that was cut short; its own revert reports that
		err := copyFolder(plain, folder)
		if err = errors.Join(err, Undo(undo)); err != nil {
			return err
		}
		return errors.Join(os.Remove(folder), os.Rename(plain, folder), j.End(diskName))
	}, nil
}

// copyFolder copies regular files and folders with their modes. Everything
// else, such as a socket, is of no use after its process has ended.
func copyFolder(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		at := filepath.Join(to, strings.TrimPrefix(path, from))
		switch {
		case d.IsDir():
			return os.MkdirAll(at, info.Mode().Perm())
		case d.Type().IsRegular():
			b, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(at, b, info.Mode().Perm()))
		}
		return nil
	})
}

// onDisk is what a target must offer for disk-full.
type onDisk interface{ LedgerFolder() string }

// FillDisk fills the disk of the gateway's ledger.
func (l *Local) FillDisk(context.Context, deploy.Victim, scenarios.Fault) (deploy.Effect, error) {
	return fillDisk(l.Local)
}

func fillDisk(t onDisk) (deploy.Effect, error) {
	folder := t.LedgerFolder()
	if folder == "" {
		return nil, needsGateway("it has no ledger whose disk could be full")
	}
	if !mounted(folder) {
		return nil, lack("%s is not on a file system that launchgate made for it, and no other is filled", folder)
	}
	return &filling{folder: folder}, nil
}

// filling is a file that takes all free space of a disk.
type filling struct{ folder string }

func (f *filling) file() string { return filepath.Join(f.folder, balloon) }

// Victim is empty: the fault hits the disk, which has no name.
func (f *filling) Victim() string { return "" }

func (f *filling) Undo() []deploy.Undo {
	return []deploy.Undo{undoing(undoRemove, object{Path: f.file()})}
}

func (f *filling) Inject(context.Context) (sight, error) {
	taken, err := fill(f.file())
	return sight{How: words.Say("a file took the %s that were free in %s", mib(scenarios.Size(taken)), f.folder)}, err
}

// SeeInEffect also takes space that has become free meanwhile: when a log is
// rewritten, the space of the old one is freed.
func (f *filling) SeeInEffect(ctx context.Context) (sight, error) {
	return until(ctx, pollEvery, func() (words.Sentence, bool) {
		if _, err := fill(f.file()); err != nil {
			return words.Sentence{}, false
		}
		err := f.write()
		return words.Say("a write of 4 KiB in %s is refused: %s", f.folder, syscall.ENOSPC), errors.Is(err, syscall.ENOSPC)
	})
}

func (f *filling) Revert(context.Context) (sight, error) {
	if err := Undo(f.Undo()[0]); err != nil {
		return sight{}, err
	}
	return sight{How: words.Say("the file that took the space was removed")}, nil
}

func (f *filling) SeeGone(ctx context.Context) (sight, error) {
	return until(ctx, 100*time.Millisecond, func() (words.Sentence, bool) {
		return words.Say("a write of 4 KiB in %s succeeds again", f.folder), f.write() == nil
	})
}

// write tries a small write and removes what it wrote.
func (f *filling) write() error {
	at := filepath.Join(f.folder, writable)
	err := os.WriteFile(at, make([]byte, 4096), 0o600)
	return errors.Join(err, os.Remove(at))
}
