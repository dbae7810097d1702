package host

import (
	"bytes"
	"testing"
	"time"

	"github.com/launchgate/launchgate/deploy"
)

// The harness dies while a clock is skewed, or while the process is stopped for
// that change. Afterwards the clock code is as before and the process runs.
// Undoing a second time changes nothing.
func TestRecoverRestoresClock(t *testing.T) {
	if err := canSkew(); err != nil {
		t.Skipf("skipped: %v", err)
	}
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	p := sleeper(t)
	var before vdso
	await(t, "the sleeper to have its code", func() bool { var err error; before, err = findVDSO(p.pid); return err == nil })
	s := &skewed{onProcess: onProcess{pid: p.pid, start: p.start}, skew: time.Hour, vdso: before}
	if _, err := s.Inject(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Inject(t.Context()); err == nil {
		t.Error("a clock was skewed that is skewed already: the first to revert would leave the other's")
	}
	if v, err := findVDSO(p.pid); err != nil || bytes.Equal(v.code, before.code) || !v.skewed || before.skewed {
		t.Fatalf("nothing was changed, or it is not told: %v", err)
	}
	for range 3 {
		for _, u := range s.Undo() {
			if err := Undo(u); err != nil {
				t.Error(err)
			}
		}
		if v, err := findVDSO(p.pid); err != nil || !bytes.Equal(v.code, before.code) || v.skewed {
			t.Errorf("%x stands at the entry, and %x before: %v", v.code, before.code, err)
		}
	}
	await(t, "the process to run", func() bool { st, err := deploy.Stat(p.pid); return err == nil && st.State == "S" })
	wrong := object{PID: s.pid, Start: s.start, At: s.vdso.entry + 1, Code: s.vdso.code}
	if Undo(undoing(undoClock, wrong)) == nil {
		t.Error("a damaged journal made it write elsewhere")
	}
}
