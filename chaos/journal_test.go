package chaos

import (
	"os"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/deploy/targets"
)

// TestMain lets the test program be the watchdog.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "watchdog" {
		if err := Watchdog(os.Args[2], os.Stdin, targets.Undo); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// journal is a real journal with a watchdog, in folders of the test. It is
// closed at the end of the test and must be empty then.
func journal(t *testing.T) *Journal {
	t.Helper()
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	j, err := OpenJournal(t.TempDir(), t.TempDir(), targets.Undo, os.Args[0], "watchdog")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Errorf("closing the journal: %v", err)
		}
	})
	return j
}

// Without its watchdog the harness injects nothing.
func TestNoFaultWithoutWatchdog(t *testing.T) {
	j := journal(t)
	if err := j.watchdog.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-j.gone
	b := &broken{t: t, path: j.path}
	if _, err := newMachine(b, "s/0", "pod-kill", j).inject(t.Context()); err == nil || !strings.Contains(err.Error(), "watchdog of the faults has ended") || b.strikes {
		t.Errorf("injected: %v, %v", b.strikes, err)
	}
}

// FuzzReadJournal: in any journal, the open faults are those that began and
// were not reverted.
func FuzzReadJournal(f *testing.F) {
	f.Add([]byte("{\"run\":\"r\",\"pid\":1}\n{\"fault\":\"s/0\",\"undo\":[{\"do\":\"kill\",\"pid\":7}]}\n{\"fault\":\"s/0\",\"reverted\":true}\n"))
	f.Add([]byte("{\"fault\":\"s/0\"}\n{\"fault\":\"s/0\"}\n{\"fault\""))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, open := readJournal(b)
		for _, e := range open {
			if e.Fault == "" || e.Reverted {
				t.Errorf("%+v is no open fault", e)
			}
		}
	})
}
