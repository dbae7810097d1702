package host

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// dateError is the largest error of a clock that is read from a Date header.
// The header has whole seconds, and the answer takes time to arrive.
const dateError = 1500 * time.Millisecond

// canSkew tries whether the clock code of a process can be changed. It writes
// to this process's own copy the bytes that are already there.
func canSkew() error {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return lack("the code that reads the clock is changed in the machine's language, which is known for linux/amd64 only, and this is %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	v, err := findVDSO(os.Getpid())
	if err == nil {
		err = writeMemory(os.Getpid(), v.room, []byte{0})
	}
	if err != nil {
		return lack("the code that reads the clock cannot be changed here: %s", err)
	}
	return nil
}

// SkewClock changes the code with which a replica reads the wall clock.
func (l *Local) SkewClock(ctx context.Context, v deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
	p, err := prepareOnProcess(l.Local, v)
	if err != nil {
		return nil, err
	}
	code, err := findVDSO(p.pid)
	if err != nil {
		return nil, words.Errorf("%s: %s", p.victim, err)
	}
	if code.skewed { // reverting this fault would bring the other fault's skew back
		return nil, words.Errorf("the clock of %s is changed already, by another clock-skew", p.victim)
	}
	before, err := clockOf(ctx, p.target.Address(p.victim))
	return &skewed{onProcess: p, skew: time.Duration(f.Skew), vdso: code, before: before}, err
}

type skewed struct {
	onProcess
	skew   time.Duration
	vdso   vdso
	before time.Duration // the error of its clock before the fault
}

// Undo also lets the process run again, in case the harness dies while the
// process is stopped for the change.
func (s *skewed) Undo() []deploy.Undo {
	return []deploy.Undo{
		undoing(undoClock, object{PID: s.pid, Start: s.start, At: s.vdso.entry, Code: s.vdso.code}),
		undoing(undoContinue, object{PID: s.pid, Start: s.start}),
	}
}

func (s *skewed) Inject(context.Context) (sight, error) {
	err := whileStopped(s.pid, s.start, s.vdso.entry, func() error {
		if v, err := findVDSO(s.pid); err != nil || !bytes.Equal(v.code, s.vdso.code) {
			return words.Errorf("the clock of pid %d has been changed meanwhile, as by another clock-skew on it: %v", s.pid, err)
		}
		if err := writeMemory(s.pid, s.vdso.room, skewingClock(s.skew)); err != nil {
			return err
		}
		return writeMemory(s.pid, s.vdso.entry, jump(s.vdso.entry, s.vdso.room))
	})
	if err != nil {
		return sight{}, err
	}
	return sight{How: words.Say("pid %d reads a wall clock that is off by %s", s.pid, s.skew)}, nil
}

func (s *skewed) SeeInEffect(ctx context.Context) (sight, error) {
	return until(ctx, pollEvery, func() (words.Sentence, bool) {
		off, err := clockOf(ctx, s.target.Address(s.victim))
		return words.Say("the Date of a health answer of %s is off by %s, and by %s before", s.victim, off.Round(100*time.Millisecond), s.before.Round(100*time.Millisecond)),
			err == nil && (off-s.before-s.skew).Abs() <= dateError
	})
}

func (s *skewed) Revert(context.Context) (sight, error) {
	if err := Undo(s.Undo()[0]); err != nil {
		return sight{}, err
	}
	return sight{How: words.Say("pid %d reads the kernel's clock again", s.pid)}, nil
}

func (s *skewed) SeeGone(ctx context.Context) (sight, error) {
	return until(ctx, pollEvery, func() (words.Sentence, bool) {
		off, err := clockOf(ctx, s.target.Address(s.victim))
		return words.Say("the Date of a health answer is off by %s; the gateway routes to %s", off.Round(100*time.Millisecond), s.victim),
			err == nil && (off-s.before).Abs() <= dateError && s.target.Serving(ctx, s.victim)
	})
}

// clockOf returns by how much the clock of the server at addr is ahead of ours.
func clockOf(ctx context.Context, addr string) (time.Duration, error) {
	answer, _, err := health(ctx, nil, addr, 0, time.Second)
	if err != nil {
		return 0, err
	}
	date, err := http.ParseTime(answer.Get("Date"))
	if err != nil {
		return 0, words.Errorf("the health answer of %s has no Date: %s", addr, err)
	}
	return time.Until(date.Add(time.Second / 2)), nil
}

// vdso is the kernel's code with which a process reads the clock. Every process
// has its own copy of that page.
type vdso struct {
	entry uint64 // of clock_gettime
	code  []byte // the bytes at entry
	room  uint64 // the address of free space behind the image
	// skewed: the code already jumps behind the image, so another clock-skew
	// fault has changed it.
	skewed bool
}

// The length of the jump that replaces the code at the entry, and its first
// byte.
const (
	jumpLength = 5
	jumpOpcode = 0xe9
)

func findVDSO(pid int) (vdso, error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return vdso{}, err
	}
	var start, end uint64
	for line := range strings.Lines(string(maps)) {
		if strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			if _, err := fmt.Sscanf(line, "%x-%x", &start, &end); err != nil {
				return vdso{}, words.Errorf("/proc/%d/maps: %q: %s", pid, line, err)
			}
		}
	}
	if start == 0 || end-start > 1<<20 {
		return vdso{}, words.Errorf("pid %d has no vDSO", pid)
	}
	image := make([]byte, end-start)
	if err := memory(pid, os.O_RDONLY, func(f *os.File) error { _, err := f.ReadAt(image, int64(start)); return err }); err != nil {
		return vdso{}, err
	}
	return parseVDSO(image, start)
}

func parseVDSO(image []byte, start uint64) (vdso, error) {
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return vdso{}, words.Errorf("the vDSO: %s", err)
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return vdso{}, words.Errorf("the vDSO: %s", err)
	}
	// The section table is the last part of the image. It may end in zeros.
	tables := binary.LittleEndian.Uint64(image[0x28:]) + uint64(binary.LittleEndian.Uint16(image[0x3a:]))*uint64(binary.LittleEndian.Uint16(image[0x3c:]))
	used := max(tables, uint64(len(bytes.TrimRight(image, "\x00"))))
	room := (used + 15) &^ 15
	if need := uint64(len(skewingClock(0))); room+need > uint64(len(image)) {
		return vdso{}, words.Errorf("the vDSO has %d bytes left behind it, expected %d", len(image)-int(used), need)
	}
	for _, s := range symbols {
		if s.Name == "__vdso_clock_gettime" && s.Size >= jumpLength && s.Value+s.Size <= uint64(len(image)) {
			v := vdso{entry: start + s.Value, code: image[s.Value : s.Value+jumpLength], room: start + room}
			to := s.Value + jumpLength + uint64(int32(binary.LittleEndian.Uint32(v.code[1:])))
			v.skewed = v.code[0] == jumpOpcode && to >= tables && to < uint64(len(image))
			return v, nil
		}
	}
	return vdso{}, words.Errorf("the vDSO has no clock_gettime")
}

// skewingClock is code that asks the kernel for the time and adds the skew to
// the time of a wall clock:
//
//	    mov eax, 228; syscall          clock_gettime(edi, rsi)
//	    test eax, eax; jnz done
//	    test edi, edi; jz add          CLOCK_REALTIME
//	    cmp edi, 5; jne done           CLOCK_REALTIME_COARSE
//	add:  mov rcx, seconds; add [rsi], rcx
//	    mov rcx, [rsi+8]; add rcx, nanoseconds
//	    cmp rcx, 1e9; jl store
//	    sub rcx, 1e9; inc qword [rsi]
//	store: mov [rsi+8], rcx
//	done: ret
func skewingClock(skew time.Duration) []byte {
	seconds, nanoseconds := int64(skew/time.Second), int64(skew%time.Second)
	if nanoseconds < 0 {
		seconds, nanoseconds = seconds-1, nanoseconds+int64(time.Second)
	}
	add := binary.LittleEndian.AppendUint64([]byte{0x48, 0xb9}, uint64(seconds))
	add = append(add, 0x48, 0x01, 0x0e, 0x48, 0x8b, 0x4e, 0x08, 0x48, 0x81, 0xc1)
	add = binary.LittleEndian.AppendUint32(add, uint32(nanoseconds))
	add = append(add, 0x48, 0x81, 0xf9, 0x00, 0xca, 0x9a, 0x3b, 0x7c, 0x0a,
		0x48, 0x81, 0xe9, 0x00, 0xca, 0x9a, 0x3b, 0x48, 0xff, 0x06,
		0x48, 0x89, 0x4e, 0x08)
	all := byte(len(add))
	code := []byte{0xb8, 228, 0, 0, 0, 0x0f, 0x05, 0x85, 0xc0, 0x75, 9 + all, 0x85, 0xff, 0x74, 5, 0x83, 0xff, 5, 0x75, all}
	return append(append(code, add...), 0xc3)
}

// jump is the machine code of a jump between two addresses.
func jump(from, to uint64) []byte {
	return binary.LittleEndian.AppendUint32([]byte{jumpOpcode}, uint32(to-from-jumpLength))
}

// whileStopped calls change while no thread of the process runs and none is
// within the code that is changed at entry.
func whileStopped(pid int, start, entry uint64, change func() error) error {
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(time.Millisecond) {
		st, err := deploy.Stat(pid)
		if err != nil || st.Start != start {
			return words.Errorf("pid %d is gone", pid)
		}
		if st.State != "T" { // if it is already stopped, another fault did that, and it stays stopped
			if err := deploy.Signal(pid, deploy.Pause); err != nil {
				return words.Errorf("stop pid %d: %s", pid, err)
			}
		}
		still, err := standsOutside(pid, entry)
		if still && err == nil {
			err = change()
		}
		if st.State != "T" {
			err = errors.Join(err, signalIf(pid, start, deploy.Resume))
		}
		if still || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return words.Errorf("the threads of pid %d did not all stop outside the code that reads the clock in 2s", pid)
		}
	}
}

// standsOutside waits a moment for all threads to stop. It reports whether all
// did and none is within the bytes that are replaced at entry.
func standsOutside(pid int, entry uint64) (bool, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(tasks) == 0 {
		return false, words.Errorf("pid %d has no threads: %v", pid, err)
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(filepath.Base(task))
		if err != nil {
			return false, err
		}
		stopped := func() bool { st, err := deploy.Stat(tid); return err != nil || st.State == "T" }
		for range 100 {
			if stopped() {
				break
			}
			time.Sleep(time.Millisecond)
		}
		b, err := os.ReadFile(task + "/syscall") // "NUMBER ARGUMENTS… SP PC", or "-1 SP PC"
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			return false, err
		}
		fields := strings.Fields(string(b))
		pc, err := strconv.ParseUint(fields[len(fields)-1], 0, 64)
		if err != nil || !stopped() || pc > entry && pc < entry+jumpLength {
			return false, nil // the thread runs or is within the bytes: try again
		}
	}
	return true, nil
}

// restoreClock puts the original bytes back at the entry. The code behind the
// image stays, because a thread may still be in it. Nothing jumps there any
// more.
func restoreClock(pid int, start, entry uint64, code []byte) error {
	if st, err := deploy.Stat(pid); err != nil || st.Start != start || st.State == "Z" || pid <= 1 {
		return nil
	}
	v, err := findVDSO(pid)
	if err != nil {
		return words.Errorf("undo: %s", err)
	}
	if v.entry != entry || len(code) != jumpLength {
		return words.Errorf("undo: clock_gettime of pid %d is at %s, and the journal says %d bytes at %s", pid, fmt.Sprintf("%#x", v.entry), len(code), fmt.Sprintf("%#x", entry))
	}
	if bytes.Equal(v.code, code) {
		return nil
	}
	return whileStopped(pid, start, entry, func() error { return writeMemory(pid, entry, code) })
}

func writeMemory(pid int, at uint64, b []byte) error {
	return memory(pid, os.O_WRONLY, func(f *os.File) error { _, err := f.WriteAt(b, int64(at)); return err })
}

func memory(pid, flag int, do func(*os.File) error) error {
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), flag, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return do(f)
}
