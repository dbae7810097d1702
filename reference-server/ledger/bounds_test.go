package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// One tenant and all tenants together cannot store more than their bounds. A
// response that has ended is removed after its retention time, and others stay.
func boundsContract(t *testing.T, l *Ledger) {
	old := time.Now().Add(-48 * time.Hour)
	add := func(id, tenant string, size int, created time.Time) error {
		return l.AcceptWithin(t.Context(), Response{ID: id, Tenant: tenant, Request: strings.Repeat("x", size), Created: created}, Bound{3, 100}, Bound{5, 1000})
	}
	for _, tt := range []struct {
		id, tenant string
		size       int
		want       error
	}{
		{"a1", "a", 60, nil}, {"a2", "a", 60, ErrTenantFull}, {"a3", "a", 20, nil}, {"a4", "a", 20, nil}, {"a5", "a", 0, ErrTenantFull},
		{"b1", "b", 1, nil}, {"c1", "c", 1, nil}, {"d1", "d", 1, ErrFull},
	} {
		if err := add(tt.id, tt.tenant, tt.size, old); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.id, err, tt.want)
		}
	}
	for range 2 {
		r, err := l.Claim(t.Context(), "me", time.Minute)
		if err != nil || r.Request == "" {
			t.Fatalf("%+v %v", r, err)
		}
		if done, err := l.Finish(t.Context(), r.ID, "me", "completed", `{"answer":1}`); !done || err != nil {
			t.Fatalf("%v %v", done, err)
		}
		if got, err := l.ResponseOf(t.Context(), r.ID, r.Tenant); err != nil || got.Result != `{"answer":1}` || got.Request != "" || got.Status != "completed" {
			t.Errorf("%+v %v", got, err)
		}
	}
	if err := add("d2", "d", 1, time.Now()); err != nil {
		t.Errorf("there is room again: %v", err)
	}
	for i := range 2500 {
		if err := l.AddUsage(t.Context(), Usage{Request: fmt.Sprint(i), At: old}); err != nil && i == 0 {
			t.Fatal(err)
		}
		if i > 20 {
			break
		}
	}
	before, _ := l.Count(t.Context())
	if _, err := l.Sweep(t.Context(), time.Now().Add(-24*time.Hour), time.Time{}); err != nil {
		t.Fatal(err)
	}
	after, _ := l.Count(t.Context())
	if before["responses"]-after["responses"] != 2 || after["usage_records"] != before["usage_records"] {
		t.Errorf("%v became %v, want the two that had ended to be gone", before, after)
	}
	if _, err := l.Sweep(t.Context(), time.Time{}, time.Now().Add(-24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if after, _ = l.Count(t.Context()); after["usage_records"] != 0 {
		t.Errorf("%v", after)
	}
	crowded(t, l)
	for _, table := range []string{"responses", "response_texts"} {
		if _, err := l.exec(t.Context(), "empty", "DELETE FROM "+table); err != nil {
			t.Fatal(err)
		}
	}
}

// If many add a response at once, exactly as many are accepted as there is room
// for.
func crowded(t *testing.T, l *Ledger) {
	var bringing sync.WaitGroup
	var taken atomic.Int64
	for i := range 24 {
		bringing.Go(func() {
			err := l.AcceptWithin(t.Context(), Response{ID: fmt.Sprint("e", i), Tenant: "e", Request: strings.Repeat("x", 10), Created: time.Now()}, Bound{Responses: 1000, Bytes: 55}, Bound{})
			switch {
			case err == nil:
				taken.Add(1)
			case !errors.Is(err, ErrTenantFull):
				t.Error(err)
			}
		})
	}
	bringing.Wait()
	if taken.Load() != 5 {
		t.Errorf("%d responses of 10 bytes are stored, want 5 within 55 bytes", taken.Load())
	}
}

// An old ledger has the texts in the rows of the responses.
func TestOldRowsAreRead(t *testing.T) {
	l, err := Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.exec(t.Context(), "old", `INSERT INTO responses (id, tenant, request, status, result, owner, lease, created) VALUES ('old', 'a', 'question', 'queued', '', '', 0, 1)`); err != nil {
		t.Fatal(err)
	}
	if r, err := l.Claim(t.Context(), "me", time.Minute); err != nil || r.Request != "question" {
		t.Errorf("%+v %v", r, err)
	}
}

// has returns the file below a folder that contains a text.
func has(t *testing.T, dir, text string) (where string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // files come and go
		}
		if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(text)) {
			where = path
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return where
}

// Deleted text is in no file any more: not in the pages, not in the log, not in
// the second copy.
func TestWhatIsDeletedIsGone(t *testing.T) {
	dir := t.TempDir()
	path, second := filepath.Join(dir, "first", "ledger.db"), filepath.Join(dir, "second")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const secret = "a prompt that nobody else may read"
	keep := func(id string) {
		t.Helper()
		if err := l.Accept(t.Context(), Response{ID: id, Tenant: "a", Request: secret + strings.Repeat(secret, 1000), Created: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	keep("alone")
	if err := l.Forget(t.Context(), "alone", "a"); err != nil {
		t.Fatal(err)
	}
	if has(t, dir, secret) == "" {
		t.Error("the log was expected to have it still, or nothing is tested")
	}
	if err := l.Scrub(t.Context()); err != nil {
		t.Fatal(err)
	}
	if where := has(t, dir, secret); where != "" {
		t.Errorf("it is still in %s", where)
	}

	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- replicate(ctx, path, second, time.Second, slog.New(slog.DiscardHandler)) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	keep("copied")
	time.Sleep(time.Second)
	if err := l.Forget(t.Context(), "copied", "a"); err != nil {
		t.Fatal(err)
	}
	where := ""
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		// A ledger in use gets a write now and then.
		if _, err := l.AddConfiguration(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		if where = has(t, dir, secret); where == "" && files(t, second) > 0 {
			return
		}
	}
	t.Errorf("it is still in %s", where)
}

func files(t *testing.T, dir string) (n int) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return nil
	})
	return n
}
