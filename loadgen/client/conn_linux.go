//go:build linux && (amd64 || arm64)

package client

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// early is how much earlier a byte may have been stamped than the socket was last seen
// empty: the kernel stamps a packet before it queues it.
const early = time.Millisecond

// receiver reads by recvmsg, which also returns the kernel's time of arrival
// (SO_TIMESTAMPNS). If one read takes several packets, the time is that of the last
// one.
type receiver struct {
	raw     syscall.RawConn // nil if the kernel cannot stamp packets
	attempt func(fd uintptr) bool
	msg     unix.Msghdr
	vec     unix.Iovec
	control [64]byte
	n       int
	errno   syscall.Errno
	empty   time.Duration // since epoch: when the socket was last seen empty
	last    time.Duration // since epoch: the newest arrival
}

// stamped reports whether the arrival times are the kernel's.
func (r *receiver) stamped() bool { return r.raw != nil }

func (r *receiver) stamp(c *net.TCPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	var refused error
	if err := raw.Control(func(fd uintptr) {
		refused = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	}); err != nil || refused != nil {
		return
	}
	r.raw, r.attempt = raw, r.receive
}

func (r *receiver) read(c *net.TCPConn, b []byte) (int, time.Duration, error) {
	if r.raw == nil || len(b) == 0 {
		n, err := c.Read(b)
		return n, time.Since(epoch), err
	}
	r.vec.Base = &b[0]
	r.vec.SetLen(len(b))
	err := r.raw.Read(r.attempt)
	r.vec.Base = nil
	switch {
	case err != nil:
		return 0, 0, err
	case r.errno != 0:
		return 0, 0, &net.OpError{Op: "read", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError("recvmsg", r.errno)}
	case r.n == 0:
		return 0, 0, io.EOF
	}
	r.last = max(r.last, r.arrival(time.Now())) // packets may be stamped out of order
	return r.n, r.last, nil
}

// receive tries to read once. It is false if it has to wait for data.
func (r *receiver) receive(fd uintptr) bool {
	for {
		r.msg.Iov, r.msg.Iovlen = &r.vec, 1
		r.msg.Control = &r.control[0]
		r.msg.SetControllen(len(r.control))
		n, _, errno := syscall.Syscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&r.msg)), 0)
		r.n, r.errno = int(n), errno
		switch {
		case errors.Is(errno, syscall.EINTR):
			continue
		case errors.Is(errno, syscall.EAGAIN):
			r.empty = time.Since(epoch)
			return false
		}
		if raced {
			_, _ = syscall.Read(int(fd), nil)
		}
		return true
	}
}

// arrival is the kernel's time of arrival, converted from the wall clock to the time
// since epoch by reading both clocks now. It is used only if it is after the socket was
// last seen empty and not in the future; otherwise the wall clock was probably set in
// between.
func (r *receiver) arrival(now time.Time) time.Duration {
	read := now.Sub(epoch)
	head := (*unix.Cmsghdr)(unsafe.Pointer(&r.control[0]))
	if int(r.msg.Controllen) < unix.CmsgSpace(int(unsafe.Sizeof(unix.Timespec{}))) || head.Level != unix.SOL_SOCKET || head.Type != unix.SO_TIMESTAMPNS {
		return read
	}
	stamp := (*unix.Timespec)(unsafe.Pointer(&r.control[unix.CmsgLen(0)]))
	at := read - time.Duration(now.UnixNano()-stamp.Nano())
	if at > read || at < r.empty-early {
		return read
	}
	return at
}
