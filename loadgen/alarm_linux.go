package loadgen

import (
	"context"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// alarm wakes a goroutine after a time. On an idle processor Go's own timers are up to
// a millisecond late, because they wait by epoll_wait, which counts in whole
// milliseconds. A timerfd is an event of its own in the same epoll.
type alarm struct {
	file *os.File
	raw  syscall.RawConn
	stop func() bool
}

// newAlarm makes an alarm that is cut short when ctx ends.
func newAlarm(ctx context.Context) (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	a := &alarm{file: os.NewFile(uintptr(fd), "timerfd")}
	a.raw, err = a.file.SyscallConn()
	if err != nil {
		a.file.Close()
		return nil, err
	}
	a.stop = context.AfterFunc(ctx, func() { a.file.Close() })
	return a, nil
}

func (a *alarm) close() {
	a.stop()
	a.file.Close()
}

// wait waits for d, or returns at once when the alarm is cut short.
func (a *alarm) wait(d time.Duration) {
	once := unix.ItimerSpec{Value: unix.NsecToTimespec(max(int64(d), 1))}
	err := a.raw.Control(func(fd uintptr) { _ = unix.TimerfdSettime(int(fd), 0, &once, nil) })
	if err == nil {
		_, _ = a.file.Read(make([]byte, 8))
	}
}
