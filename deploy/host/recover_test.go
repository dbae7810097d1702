package host

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/launchgate/launchgate/chaos"
	"github.com/launchgate/launchgate/deploy"
)

// recover undoes the journal of a dead harness as the watchdog does. Stopped
// processes run again, and burning ones are gone. A second time finds nothing
// to do.
func TestRecover(t *testing.T) {
	if err := onLinux(); err != nil {
		t.Skipf("skipped: %v", err)
	}
	state := t.TempDir()
	t.Setenv("XDG_STATE_HOME", state)
	stopped, burner, other := sleeper(t), sleeper(t), sleeper(t)
	if err := syscall.Kill(stopped.pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	await(t, "the sleeper to stop", func() bool { st, err := deploy.Stat(stopped.pid); return err == nil && st.State == "T" })
	lines := []entry{
		{Run: "runs/x", PID: 1 << 30, Start: 1, Boot: bootID()},
		{Fault: "s/0", Kind: "pod-hang", Victim: "replica-0", Undo: []deploy.Undo{undoing(undoContinue, object{PID: stopped.pid, Start: stopped.start})}},
		{Fault: "s/1", Kind: "cpu-stress", Undo: []deploy.Undo{undoing(undoKill, object{PID: burner.pid, Start: burner.start})}},
		{Fault: "s/2", Kind: "cpu-stress", Undo: []deploy.Undo{undoing(undoKill, object{PID: other.pid, Start: other.start})}},
		{Fault: "s/2", Reverted: true}, // reverted, so it must be left alone
		{Fault: "s/3", Kind: "cpu-stress", Undo: []deploy.Undo{undoing(undoKill, object{PID: other.pid, Start: other.start + 1})}}, // another process with the same pid must be left alone too
	}
	path := writeJournal(t, state, lines)
	for range 3 {
		all, err := chaos.Recover(Undo)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			if r.Err != nil || len(r.Undone) != 3 || r.Run != "runs/x" {
				t.Errorf("%+v", r)
			}
		}
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the journal is still there: %v", err)
	}
	await(t, "the stopped process to run", func() bool { st, err := deploy.Stat(stopped.pid); return err == nil && st.State == "S" })
	await(t, "the burner to end", func() bool { st, err := deploy.Stat(burner.pid); return err != nil || st.State == "Z" })
	if st, err := deploy.Stat(other.pid); err != nil || st.State == "Z" {
		t.Errorf("another process was ended: %v %v", st, err)
	}
}

// A harness that is alive reverts its faults itself, so recover leaves them
// alone. A damaged journal cannot make recover change anything but a fault.
func TestRecoverLeavesAlone(t *testing.T) {
	if err := onLinux(); err != nil {
		t.Skipf("skipped: %v", err)
	}
	state := t.TempDir()
	t.Setenv("XDG_STATE_HOME", state)
	victim := sleeper(t)
	self, err := deploy.Stat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	undo := []deploy.Undo{undoing(undoKill, object{PID: victim.pid, Start: victim.start})}
	mine := writeJournal(t, state, []entry{{Run: "runs/mine", PID: os.Getpid(), Start: self.Start, Boot: bootID()}, {Fault: "s/0", Undo: undo}})
	rebooted := writeJournal(t, state, []entry{{Run: "runs/old", PID: 1 << 30, Boot: "another"}, {Fault: "s/0", Undo: undo}})
	folder := t.TempDir()
	wrong := writeJournal(t, state, []entry{{Run: "runs/wrong", PID: 1 << 30, Boot: bootID()}, {Fault: "s/0", Undo: []deploy.Undo{undoing(undoCgroup, object{Path: folder, Home: folder})}}})
	cut := writeJournal(t, state, []entry{{Run: "runs/cut", PID: 1 << 30, Boot: bootID()}})
	if err := os.WriteFile(cut, append(read(t, cut), `{"fault":"s/0","undo":[{"do":"kill","pi`...), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := chaos.Recover(Undo)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		switch r.Run {
		case "runs/mine":
			if r.Alive != os.Getpid() {
				t.Errorf("%+v", r)
			}
		case "runs/wrong":
			if r.Err == nil || !strings.Contains(r.Err.Error(), "no control group of launchgate's") {
				t.Errorf("%+v", r)
			}
		default:
			if r.Err != nil {
				t.Errorf("%+v", r)
			}
		}
	}
	if st, err := deploy.Stat(victim.pid); err != nil || st.State == "Z" {
		t.Errorf("the process was ended: %v %v", st, err)
	}
	for path, stays := range map[string]bool{mine: true, wrong: true, rebooted: false, cut: false} {
		if _, err := os.Stat(path); (err == nil) != stays {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := os.Stat(folder); err != nil {
		t.Error(err)
	}
}

// recover moves the process out of a control group that was left, and removes
// it.
func TestRecoverEmptiesControlGroups(t *testing.T) {
	if err := canGroup("cpu")(); err != nil {
		t.Skipf("skipped: %v", err)
	}
	state := t.TempDir()
	t.Setenv("XDG_STATE_HOME", state)
	p := sleeper(t)
	g, err := findGroup("cpu")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.take(p.pid, nil); err != nil {
		t.Fatal(err)
	}
	writeJournal(t, state, []entry{{PID: 1 << 30, Boot: bootID()}, {Fault: "s/0", Kind: "pod-slow", Undo: g.undo()}})
	if !g.has(p.pid) {
		t.Error("the process is not in the group")
	}
	all, err := chaos.Recover(Undo)
	if err != nil || len(all) != 1 || all[0].Err != nil {
		t.Errorf("%+v %v", all, err)
	}
	if g.exists() {
		t.Errorf("%s is still there", g.path)
	}
	if st, err := deploy.Stat(p.pid); err != nil || st.State == "Z" {
		t.Errorf("the process did not live through it: %v %v", st, err)
	}
}

// A swapped file comes back, at whatever step of the swap the harness died. The
// folder that kept it is removed.
func TestRecoverSwapsBack(t *testing.T) {
	for _, tt := range []struct{ name, kept, swapped, want string }{
		{"before it was kept", "", "good", "good"},
		{"kept and not swapped", "good", "good", "good"},
		{"swapped", "good", "expired", "good"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			state, dir := t.TempDir(), t.TempDir()
			t.Setenv("XDG_STATE_HOME", state)
			home, kept := filepath.Join(dir, "cert.pem"), filepath.Join(dir, ofOurs+"1-certificate")
			if err := errors.Join(os.WriteFile(home, []byte(tt.swapped), 0o600), os.Mkdir(kept, 0o700)); err != nil {
				t.Fatal(err)
			}
			if tt.kept != "" {
				if err := errors.Join(os.WriteFile(filepath.Join(kept, "cert.pem"), []byte(tt.kept), 0o600), os.WriteFile(filepath.Join(kept, "expired"), nil, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			writeJournal(t, state, []entry{{PID: 1 << 30, Boot: bootID()}, {Fault: "s/0", Kind: "certificate-expiry", Undo: []deploy.Undo{undoing(undoSwap, object{Path: kept, Home: home})}}})
			for range 2 {
				if all, err := chaos.Recover(Undo); err != nil || len(all) > 0 && all[0].Err != nil {
					t.Fatalf("%+v %v", all, err)
				}
			}
			if got := string(read(t, home)); got != tt.want {
				t.Errorf("the file holds %q", got)
			}
			if _, err := os.Stat(kept); !os.IsNotExist(err) {
				t.Errorf("what was kept is still there: %v", err)
			}
		})
	}
}

func TestParseGroup(t *testing.T) {
	const v1 = "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
	const v2 = "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
	tests := []struct {
		name, controller, own, mounts string
		home                          string
		v2                            bool
		err                           string
	}{
		{"version 1", "cpu", "4:memory:/x\n3:cpu,cpuacct:/y\n0::/\n", v1, "/sys/fs/cgroup/cpu,cpuacct/y", false, ""},
		{"version 1, another controller", "memory", "4:memory:/x\n3:cpu,cpuacct:/y\n", v1, "/sys/fs/cgroup/memory/x", false, ""},
		{"version 2", "cpu", "0::/user.slice/a.scope\n", v2, "/sys/fs/cgroup/user.slice/a.scope", true, ""},
		{"in a container, which sees a part of the tree", "cpu", "3:cpu,cpuacct:/docker/7\n", strings.Replace(v1, "0:26 / ", "0:26 /docker/7 ", 1), "/sys/fs/cgroup/cpu,cpuacct", false, ""},
		{"none", "cpu", "0::/\n", "1 1 0:1 / / rw - ext4 /dev/vda rw\n", "", false, "no control groups of cpu are mounted"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g, err := parseGroup(tt.controller, []byte(tt.own), []byte(tt.mounts))
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Errorf("%v, want %s", err, tt.err)
				}
				return
			}
			if err != nil || g.home != tt.home || g.v2 != tt.v2 || filepath.Dir(g.path) != tt.home || !strings.HasPrefix(filepath.Base(g.path), ofOurs) {
				t.Errorf("%+v %v", g, err)
			}
		})
	}
}

// entry is a line of a journal, as chaos writes it.
type entry struct {
	Run      string        `json:"run,omitempty"`
	PID      int           `json:"pid,omitempty"`
	Start    uint64        `json:"start,omitempty"`
	Boot     string        `json:"boot,omitempty"`
	Fault    string        `json:"fault,omitempty"`
	Kind     string        `json:"kind,omitempty"`
	Victim   string        `json:"victim,omitempty"`
	Undo     []deploy.Undo `json:"undo,omitempty"`
	Reverted bool          `json:"reverted,omitempty"`
}

func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // if it fails, chaos writes none either
	return strings.TrimSpace(string(b))
}

type running struct {
	pid   int
	start uint64
}

func sleeper(t *testing.T) running {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	st, err := deploy.Stat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return running{cmd.Process.Pid, st.Start}
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// writeJournal writes a journal as a harness that died leaves it.
func writeJournal(t *testing.T, state string, lines []entry) string {
	t.Helper()
	dir := filepath.Join(state, "launchgate", "faults")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.CreateTemp(dir, "*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, line := range lines {
		if err := json.NewEncoder(f).Encode(line); err != nil {
			t.Fatal(err)
		}
	}
	return f.Name()
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
