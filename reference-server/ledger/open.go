package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"strings"

	_ "github.com/jackc/pgx/v5/stdlib" // PostgreSQL
	_ "modernc.org/sqlite"             // SQLite without cgo, so that the programs build anywhere
)

func open(at string) (*Ledger, error) {
	if strings.HasPrefix(at, "postgres://") || strings.HasPrefix(at, "postgresql://") {
		db, err := sql.Open("pgx", at)
		if err != nil {
			return nil, fmt.Errorf("open the ledger: %w", err)
		}
		db.SetMaxOpenConns(16)
		return &Ledger{db: db}, nil
	}
	db, err := sql.Open("sqlite", sqliteName(at, "rwc"))
	if err != nil {
		return nil, fmt.Errorf("open the ledger %s: %w", at, err)
	}
	return &Ledger{db: db, sqlite: true}, nil
}

// sqliteName asks for a write-ahead log that is synced at every commit.
// Otherwise a power cut could lose acknowledged data. Transactions wait for one
// another instead of failing. Deleted data is overwritten.
func sqliteName(path, mode string) string {
	q := url.Values{"mode": {mode}, "_txlock": {"immediate"}, "_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "secure_delete(ON)"}}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String()
}

// Counts is how many rows each table has.
type Counts map[string]int64

// Count counts the rows.
func (l *Ledger) Count(ctx context.Context) (Counts, error) {
	counts := Counts{}
	for _, table := range tables {
		var n int64
		if err := l.row(ctx, "SELECT COUNT(*) FROM "+table).Scan(&n); err != nil {
			return nil, fmt.Errorf("ledger: count %s: %w", table, err)
		}
		counts[table] = n
	}
	return counts, nil
}

// Backup copies a SQLite ledger that is in use to a new file, opens the copy
// and checks all of it. The counts are those of the copy. For PostgreSQL, use
// its own pg_basebackup.
func (l *Ledger) Backup(ctx context.Context, to string) (Counts, error) {
	if !l.sqlite {
		return nil, errors.New("this ledger is in PostgreSQL: back it up with pg_basebackup and check it with pg_verifybackup")
	}
	if _, err := os.Stat(to); err == nil {
		return nil, fmt.Errorf("%s is there already: name a new file, a backup never replaces one", to)
	}
	before, err := l.Count(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := l.db.ExecContext(ctx, "VACUUM INTO ?", to); err != nil {
		return nil, fmt.Errorf("back the ledger up: %w", err)
	}
	if err := syncFile(to); err != nil {
		return nil, err
	}
	counts, err := Verify(ctx, to)
	if err != nil {
		return nil, err
	}
	// Only usage records and keys are never deleted while the ledger is in use.
	for _, table := range []string{"api_keys", "usage_records", "configurations", "models"} {
		if counts[table] < before[table] {
			return nil, fmt.Errorf("the backup %s has %d rows of %s, but the ledger had %d before it began", to, counts[table], table, before[table])
		}
	}
	return counts, nil
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Verify opens a SQLite ledger for reading, checks every page, and counts the
// rows.
func Verify(ctx context.Context, path string) (Counts, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("the ledger cannot be verified: %w", err)
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: "mode=ro"}).String())
	if err != nil {
		return nil, err
	}
	l := &Ledger{db: db, sqlite: true}
	defer l.Close()
	var said string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&said); err != nil {
		return nil, fmt.Errorf("%s is not a whole SQLite file: %w", path, err)
	}
	if said != "ok" {
		return nil, fmt.Errorf("%s is damaged: %s", path, said)
	}
	return l.Count(ctx)
}

// Restore verifies a backup and makes a ledger from it, at a path where none
// exists.
func Restore(ctx context.Context, backup, to string) (Counts, error) {
	if _, err := os.Stat(to); err == nil {
		return nil, fmt.Errorf("%s is there already: move it away, restore never overwrites a ledger", to)
	}
	want, err := Verify(ctx, backup)
	if err != nil {
		return nil, err
	}
	src, err := open(backup)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	if _, err := src.db.ExecContext(ctx, "VACUUM INTO ?", to); err != nil {
		return nil, fmt.Errorf("restore %s: %w", to, err)
	}
	if err := syncFile(to); err != nil {
		return nil, err
	}
	got, err := Verify(ctx, to)
	if err == nil && !maps.Equal(got, want) {
		err = fmt.Errorf("restored %v, but the backup has %v", got, want)
	}
	return got, err
}
