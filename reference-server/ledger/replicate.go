package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/file"
)

// replicateEvery is how often the log is copied to the second place. A lost
// disk loses the records that were acknowledged within about twice this time,
// because the log is first checked and then copied.
const replicateEvery = 200 * time.Millisecond

// forgetting is the interval of the snapshots of the second place. A snapshot
// has no deleted data, and everything older than the last snapshot but one is
// removed. So deleted data is nowhere after four intervals, which is an hour.
const forgetting = 15 * time.Minute

// Replicate copies a SQLite ledger that is in use to a second place on another
// disk, until ctx ends. It uses litestream. It runs in a process of its own, so
// it continues if a gateway is killed.
func Replicate(ctx context.Context, path, to string, log *slog.Logger) error {
	return replicate(ctx, path, to, forgetting, log)
}

func replicate(ctx context.Context, path, to string, forget time.Duration, log *slog.Logger) error {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("there is no SQLite ledger to replicate: %w; a PostgreSQL has its standby", err)
	}
	db, _, err := replicaOf(path, to)
	if err != nil {
		return err
	}
	db.MonitorInterval, db.Replica.SyncInterval = replicateEvery, replicateEvery
	store := litestream.NewStore([]*litestream.DB{db}, litestream.CompactionLevels{{Level: 0}, {Level: 1, Interval: 10 * time.Second}, {Level: 2, Interval: 5 * time.Minute}})
	store.SnapshotInterval, store.SnapshotRetention = forget, forget
	store.SetL0Retention(min(forget, litestream.DefaultL0Retention))
	store.L0RetentionCheckInterval = min(forget, litestream.DefaultL0RetentionCheckInterval)
	store.Logger = log
	db.SetLogger(log)
	if err := store.Open(ctx); err != nil {
		return fmt.Errorf("replicate the ledger: %w", err)
	}
	for pause(ctx, forget); ctx.Err() == nil; pause(ctx, forget) {
		// The ledger's own process cannot truncate the log, because the
		// replication holds it.
		if err := db.Checkpoint(ctx, litestream.CheckpointModeTruncate); err != nil && ctx.Err() == nil {
			log.Warn("what was deleted stays in the write-ahead log until the next time", "why", err)
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := store.Close(last); err != nil {
		return fmt.Errorf("the last of the ledger is not replicated: %w", err)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func replicaOf(path, to string) (*litestream.DB, *litestream.Replica, error) {
	whole, err := filepath.Abs(path)
	if err != nil {
		return nil, nil, err
	}
	second, err := filepath.Abs(to)
	if err != nil {
		return nil, nil, err
	}
	db, client := litestream.NewDB(whole), file.NewReplicaClient(second)
	db.Replica = litestream.NewReplicaWithClient(db, client)
	client.Replica = db.Replica
	return db, db.Replica, nil
}

// RestoreReplica makes a ledger from the second place, at a path where none
// exists, and checks all of it.
func RestoreReplica(ctx context.Context, from, to string) (Counts, error) {
	if _, err := os.Stat(to); err == nil {
		return nil, fmt.Errorf("%s is there already: move it away, restore never overwrites a ledger", to)
	}
	if _, err := os.Stat(from); err != nil {
		return nil, fmt.Errorf("there is no replica: %w", err)
	}
	_, replica, err := replicaOf(to, from)
	if err != nil {
		return nil, err
	}
	o := litestream.NewRestoreOptions()
	o.OutputPath = to
	if err := replica.Restore(ctx, o); err != nil {
		return nil, fmt.Errorf("restore %s from %s: %w", to, from, err)
	}
	counts, err := Verify(ctx, to)
	if err != nil {
		return nil, errors.Join(err, os.Remove(to))
	}
	return counts, syncFile(to)
}
