package ledger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A disk is lost under load. The acknowledged records that the second place
// lacks are at most those of the replication lag.
func TestTheSecondPlace(t *testing.T) {
	dir, second := t.TempDir(), filepath.Join(t.TempDir(), "second")
	path := filepath.Join(dir, "ledger.db")
	l, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	go func() { ended <- Replicate(ctx, path, second, quiet) }()

	var acknowledged []time.Time
	for began := time.Now(); time.Since(began) < 3*time.Second; time.Sleep(time.Millisecond) {
		if err := l.AddUsage(t.Context(), Usage{Request: fmt.Sprint(len(acknowledged)), Tenant: "acme", At: time.Now()}); err != nil {
			t.Fatal(err)
		}
		acknowledged = append(acknowledged, time.Now())
	}
	// From here on only the second place exists, as if the disk were lost.
	lost := time.Now()
	copied := filepath.Join(t.TempDir(), "copy 0")
	for try := 1; ; try++ {
		err := os.CopyFS(copied, os.DirFS(second))
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || try == 20 { // files come and go while they are copied
			t.Fatal(err)
		}
		copied = filepath.Join(t.TempDir(), fmt.Sprint("copy ", try))
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}

	restored := filepath.Join(t.TempDir(), "restored.db")
	counts, err := RestoreReplica(t.Context(), copied, restored)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.Context(), restored)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	missing, oldest := 0, time.Duration(0)
	for i, at := range acknowledged {
		if _, err := r.UsageOf(t.Context(), fmt.Sprint(i)); err != nil {
			missing++
			oldest = max(oldest, lost.Sub(at))
		}
	}
	t.Logf("%d records acknowledged, %d restored, %d lost, the oldest %s before the disk was", len(acknowledged), counts["usage_records"], missing, oldest.Round(time.Millisecond))
	// On a machine that is busy with other tests the lag is longer than
	// planned, but the copy still has most records.
	if counts["usage_records"] < int64(len(acknowledged))/2 || oldest > 10*time.Second {
		t.Errorf("more was lost than the replication is behind")
	}
	if _, err := RestoreReplica(t.Context(), copied, restored); err == nil {
		t.Error("a ledger was overwritten")
	}
	// After an orderly end nothing is lost.
	whole := filepath.Join(t.TempDir(), "whole.db")
	if counts, err := RestoreReplica(t.Context(), second, whole); err != nil || counts["usage_records"] != int64(len(acknowledged)) {
		t.Errorf("%v %v, want all %d", counts, err, len(acknowledged))
	}
}

func TestWhatCannotBeReplicated(t *testing.T) {
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	if err := Replicate(t.Context(), filepath.Join(t.TempDir(), "none.db"), t.TempDir(), quiet); err == nil || !strings.Contains(err.Error(), "no SQLite ledger") {
		t.Error(err)
	}
	if _, err := RestoreReplica(t.Context(), filepath.Join(t.TempDir(), "none"), filepath.Join(t.TempDir(), "l.db")); err == nil || !strings.Contains(err.Error(), "there is no replica") {
		t.Error(err)
	}
	if _, err := RestoreReplica(t.Context(), t.TempDir(), filepath.Join(t.TempDir(), "l.db")); err == nil {
		t.Error("a ledger was made of nothing")
	}
}
