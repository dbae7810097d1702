package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func sqliteLedger(t *testing.T) (*Ledger, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "led ger?.db") // a name that a URL would misread
	l, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, path
}

func TestSQLite(t *testing.T) {
	l, path := sqliteLedger(t)
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	contract(t, l)
}

// contract tests what a ledger on either database must do.
func contract(t *testing.T, l *Ledger) {
	t.Run("responses are bounded", func(t *testing.T) { boundsContract(t, l) })
	t.Run("keys", func(t *testing.T) { keysContract(t, l) })
	t.Run("usage is kept once", func(t *testing.T) { usageContract(t, l) })
	t.Run("responses", func(t *testing.T) { responsesContract(t, l) })
	t.Run("no response is claimed twice", func(t *testing.T) { claimContract(t, l) })
	t.Run("versions", func(t *testing.T) { versionsContract(t, l) })
	t.Run("shares", func(t *testing.T) { sharesContract(t, l) })
}

// If several write the next version at once, exactly one succeeds, so no change
// is lost.
func sharesContract(t *testing.T, l *Ledger) {
	ctx := t.Context()
	const gateways, each = 4, 10
	var writing sync.WaitGroup
	for range gateways {
		writing.Go(func() {
			for done := 0; done < each; {
				version, content, err := l.Shares(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				written, err := l.SetShares(ctx, version, content+"x")
				if err != nil {
					t.Error(err)
					return
				}
				if written {
					done++
				}
			}
		})
	}
	writing.Wait()
	if version, content, err := l.Shares(ctx); version != gateways*each || len(content) != gateways*each || err != nil {
		t.Errorf("version %d with %d changes (%v), want %d", version, len(content), err, gateways*each)
	}
}

func keysContract(t *testing.T, l *Ledger) {
	ctx := t.Context()
	secret := NewSecret()
	key := Key{ID: "k1", Tenant: "acme", Class: "batch", Scopes: []string{"inference"}, Expires: time.Now().Add(time.Hour).Truncate(time.Microsecond)}
	if err := l.AddKey(ctx, key, secret); err != nil {
		t.Fatal(err)
	}
	got, err := l.KeyOf(ctx, secret)
	if err != nil || got.Tenant != "acme" || got.Class != "batch" || !got.Allows("inference") || got.Allows("admin") || !got.Expires.Equal(key.Expires) || got.Revoked {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := l.KeyOf(ctx, NewSecret()); !errors.Is(err, ErrNotFound) {
		t.Errorf("an unknown secret: %v", err)
	}
	if err := l.RevokeKey(ctx, "k1"); err != nil {
		t.Fatal(err)
	}
	if got, err := l.KeyOf(ctx, secret); err != nil || !got.Revoked {
		t.Errorf("%+v %v", got, err)
	}
	if err := l.RevokeKey(ctx, "nobody"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func usageContract(t *testing.T, l *Ledger) {
	ctx := t.Context()
	u := Usage{Request: "r1", Tenant: "acme", Key: "k1", Model: "m", Prompt: 3, Output: 5, At: time.Now()}
	for _, output := range []int64{5, 50} {
		u.Output = output
		if err := l.AddUsage(ctx, u); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := l.UsageOf(ctx, "r1"); err != nil || got.Output != 5 || got.Prompt != 3 || got.Tenant != "acme" {
		t.Errorf("%+v %v", got, err)
	}
}

func responsesContract(t *testing.T, l *Ledger) {
	ctx := t.Context()
	if err := l.Accept(ctx, Response{ID: "a", Tenant: "acme", Request: `{"q":1}`, Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.ResponseOf(ctx, "a", "other"); !errors.Is(err, ErrNotFound) {
		t.Errorf("another tenant sees it: %v", err)
	}
	// The first owner dies: its lease runs out and another takes over.
	if r, err := l.Claim(ctx, "dead", time.Millisecond); err != nil || r.ID != "a" || r.Request != `{"q":1}` {
		t.Fatalf("%+v %v", r, err)
	}
	time.Sleep(5 * time.Millisecond)
	if r, err := l.Claim(ctx, "alive", time.Minute); err != nil || r.ID != "a" {
		t.Fatalf("%+v %v", r, err)
	}
	if _, err := l.Claim(ctx, "third", time.Minute); !errors.Is(err, ErrNotFound) {
		t.Errorf("claimed while another holds it: %v", err)
	}
	if ok, err := l.Finish(ctx, "a", "dead", "failed", "late"); ok || err != nil {
		t.Errorf("the owner that lost its lease finished it: %v %v", ok, err)
	}
	if ok, err := l.Finish(ctx, "a", "alive", "completed", "answer"); !ok || err != nil {
		t.Errorf("%v %v", ok, err)
	}
	if r, err := l.ResponseOf(ctx, "a", "acme"); err != nil || r.Status != "completed" || r.Result != "answer" {
		t.Errorf("%+v %v", r, err)
	}
	if err := l.Cancel(ctx, "a", "acme"); err != nil {
		t.Error(err)
	}
	if r, _ := l.ResponseOf(ctx, "a", "acme"); r.Status != "completed" {
		t.Errorf("what had ended was cancelled: %+v", r)
	}
	if err := l.Forget(ctx, "a", "acme"); err != nil {
		t.Error(err)
	}
	if _, err := l.ResponseOf(ctx, "a", "acme"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func claimContract(t *testing.T, l *Ledger) {
	ctx := t.Context()
	const many = 20
	for i := range many {
		if err := l.Accept(ctx, Response{ID: fmt.Sprint("c", i), Tenant: "acme", Request: "{}", Created: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	claimed := map[string]int{}
	var owners sync.WaitGroup
	for owner := range 4 {
		owners.Go(func() {
			for {
				r, err := l.Claim(ctx, fmt.Sprint(owner), time.Minute)
				if errors.Is(err, ErrNotFound) {
					// A rival may have taken the oldest one between this
					// owner's look and its write; only an empty queue ends it.
					mu.Lock()
					done := len(claimed) == many
					mu.Unlock()
					if done {
						return
					}
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				claimed[r.ID]++
				mu.Unlock()
			}
		})
	}
	owners.Wait()
	for id, n := range claimed {
		if n != 1 {
			t.Errorf("%s was claimed %d times", id, n)
		}
	}
}

func versionsContract(t *testing.T, l *Ledger) {
	ctx := t.Context()
	for want := int64(1); want <= 2; want++ {
		if v, err := l.AddConfiguration(ctx, fmt.Sprint("content ", want)); err != nil || v != want {
			t.Errorf("version %d %v, want %d", v, err, want)
		}
	}
	if v, content, err := l.Configuration(ctx); v != 2 || content != "content 2" || err != nil {
		t.Errorf("%d %q %v", v, content, err)
	}
	for _, status := range []string{"candidate", "live"} {
		if err := l.SetModel(ctx, Model{"m", "v1", "abc", status, time.Now()}); err != nil {
			t.Fatal(err)
		}
		if m, err := l.ModelOf(ctx, "m", "v1"); err != nil || m.Status != status || m.SHA256 != "abc" {
			t.Errorf("%+v %v", m, err)
		}
	}
	// A version has one file, and one version is live.
	if err := l.SetModel(ctx, Model{"m", "v1", "other", "live", time.Now()}); err == nil || !strings.Contains(err.Error(), "registered with another file") {
		t.Error(err)
	}
	if err := l.SetModel(ctx, Model{"m", "v2", "def", "live", time.Now().Add(time.Second)}); err != nil {
		t.Fatal(err)
	}
	all, err := l.Models(ctx)
	if err != nil || len(all) != 2 || all[0].Version != "v2" || all[0].Status != "live" || all[1].Version != "v1" || all[1].Status != "retired" || all[1].SHA256 != "abc" {
		t.Errorf("%+v %v", all, err)
	}
}

// The file has only the hashes of secrets.
func TestSecretsAreNotKept(t *testing.T) {
	l, path := sqliteLedger(t)
	secret := NewSecret()
	if err := l.AddKey(t.Context(), Key{ID: "k", Tenant: "t"}, secret); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), secret) {
			t.Errorf("the secret is in %s", path+suffix)
		}
	}
}

func TestBackupAndRestore(t *testing.T) {
	l, _ := sqliteLedger(t)
	ctx, dir := t.Context(), t.TempDir()
	stop := make(chan struct{})
	var writing sync.WaitGroup
	acknowledged := 0
	writing.Go(func() { // the ledger is in use all the while
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := l.AddUsage(ctx, Usage{Request: fmt.Sprint(acknowledged), At: time.Now()}); err != nil {
				t.Error(err)
				return
			}
			acknowledged++
		}
	})
	time.Sleep(20 * time.Millisecond)
	backup, restored := filepath.Join(dir, "backup.db"), filepath.Join(dir, "restored.db")
	counts, err := l.Backup(ctx, backup)
	close(stop)
	writing.Wait()
	if err != nil || counts["usage_records"] == 0 || counts["usage_records"] > int64(acknowledged) {
		t.Fatalf("%v %v of %d", counts, err, acknowledged)
	}
	if _, err := l.Backup(ctx, backup); err == nil || !strings.Contains(err.Error(), "there already") {
		t.Errorf("a backup was replaced: %v", err)
	}
	got, err := Restore(ctx, backup, restored)
	if err != nil || got["usage_records"] != counts["usage_records"] {
		t.Errorf("%v %v, want %v", got, err, counts)
	}
	// The backup has every record up to its last one: it is a consistent
	// snapshot.
	r, err := Open(ctx, restored)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i := range counts["usage_records"] {
		if _, err := r.UsageOf(ctx, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Restore(ctx, backup, restored); err == nil {
		t.Error("a ledger was overwritten")
	}
}

// A damaged backup is refused before any file is written.
func TestDamagedBackup(t *testing.T) {
	l, _ := sqliteLedger(t)
	ctx, dir := t.Context(), t.TempDir()
	for i := range 500 {
		if err := l.AddUsage(ctx, Usage{Request: fmt.Sprintf("request-%060d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	whole := filepath.Join(dir, "whole.db")
	if _, err := l.Backup(ctx, whole); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func([]byte) []byte{
		"cut":      func(b []byte) []byte { return b[:len(b)/2] },
		"no file":  func([]byte) []byte { return []byte("this is not a database, not at all, but some text") },
		"bad page": func(b []byte) []byte { clear(b[len(b)/2 : len(b)/2+4096]); return b },
	} {
		t.Run(name, func(t *testing.T) {
			bad, to := filepath.Join(dir, name), filepath.Join(dir, name+".restored")
			if err := os.WriteFile(bad, damage(append([]byte(nil), b...)), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Restore(context.Background(), bad, to); err == nil {
				t.Error("it was restored")
			}
			if _, err := os.Stat(to); err == nil {
				t.Error("something was made of it")
			}
		})
	}
}
