package host

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/launchgate/launchgate/chaos"
	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/scenarios"
)

// hasFolder is a target with the ledger in a folder.
type hasFolder struct {
	bare
	folder string
}

func (f hasFolder) LedgerFolder() string       { return f.folder }
func (f hasFolder) Replicas() []deploy.Replica { return nil }
func (f hasFolder) FillDisk(context.Context, deploy.Victim, scenarios.Fault) (deploy.Effect, error) {
	return fillDisk(f)
}

// The disk is full for a time and takes writes before and after. What was
// written to it is kept when the disk is removed.
func TestDiskIsFull(t *testing.T) {
	if err := canMount(); err != nil {
		t.Skipf("skipped: %v", err)
	}
	j, folder := journal(t), filepath.Join(t.TempDir(), "a folder")
	release, err := OwnDisk(j, folder, leastDisk)
	if err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(folder, "below", "kept")
	if err := os.Mkdir(filepath.Dir(kept), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kept, []byte("before"), 0o640); err != nil {
		t.Fatal(err)
	}
	lines := play(t.Context(), j, hasFolder{folder: folder}, scenarios.Fault{Kind: "disk-full", For: scenarios.Duration(time.Second), Within: scenarios.Duration(5 * time.Second)})
	for _, line := range lines {
		t.Logf("%s %s %s", line.At.Round(time.Millisecond), line.State, line.Text)
	}
	if got := states(lines); got != "declared injected in_effect held reverted gone" {
		t.Errorf("states are %q", got)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if got := string(read(t, kept)); got != "before" {
		t.Errorf("what was kept is %q", got)
	}
	if mounted(folder) {
		t.Error("the file system is still there")
	}
	leftNothing(t)
}

// The fault fills only a disk that launchgate made.
func TestNoOtherDiskIsFilled(t *testing.T) {
	folder := t.TempDir()
	lines := play(t.Context(), journal(t), hasFolder{folder: folder}, scenarios.Fault{Kind: "disk-full", For: scenarios.Duration(time.Second), Within: scenarios.Duration(time.Second)})
	if got := states(lines); got != "declared failed" {
		t.Errorf("states are %q", got)
	}
	if left, _ := os.ReadDir(folder); len(left) > 0 {
		t.Errorf("it wrote %v", left)
	}
}

// recover removes a full file system that a harness has left. It can be
// repeated, and it removes no other file system.
func TestRecoverUnmounts(t *testing.T) {
	if err := canMount(); err != nil {
		t.Skipf("skipped: %v", err)
	}
	state, folder := t.TempDir(), t.TempDir()
	t.Setenv("XDG_STATE_HOME", state)
	if err := mountDisk(folder, leastDisk); err != nil {
		t.Fatal(err)
	}
	if _, err := fill(filepath.Join(folder, balloon)); err != nil {
		t.Fatal(err)
	}
	writeJournal(t, state, []entry{{PID: 1 << 30, Boot: bootID()},
		{Fault: diskName, Kind: "disk-full", Undo: []deploy.Undo{undoing(undoUnmount, object{Path: folder}), undoing(undoUnmount, object{Path: "/proc"})}},
		{Fault: "s/0", Kind: "disk-full", Undo: []deploy.Undo{undoing(undoRemove, object{Path: filepath.Join(folder, balloon)})}}})
	for range 2 {
		if all, err := chaos.Recover(Undo); err != nil || len(all) > 0 && all[0].Err != nil {
			t.Fatalf("%+v %v", all, err)
		}
	}
	if mounted(folder) {
		t.Error("the file system is still there")
	}
	if _, err := os.Stat("/proc/self"); err != nil {
		t.Error("another one was taken away")
	}
}

// A long gate must not fill the disk before the fault does. The game day filled
// 32 MiB in less than two of its five minutes.
func TestTheDiskOutlastsTheGate(t *testing.T) {
	gate, ok, err := scenarios.Ready("gameday")
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	if size := DiskFor(gate); size < 300<<20 || size > 2<<30 {
		t.Errorf("the disk has %d MiB", size>>20)
	}
}
