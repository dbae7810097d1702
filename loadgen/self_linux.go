package loadgen

import (
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// filesUsed is the share of its limit of file descriptors that this process has open.
func filesUsed() (float64, bool) {
	open, ok := openFiles()
	limit := fileLimit()
	if !ok || limit == 0 {
		return 0, false
	}
	return float64(open) / float64(limit), true
}

// openFiles counts descriptors. Linux 6.2 and newer give the number as the size of the
// folder. On older ones the folder has to be read, which takes a millisecond for some
// thousand.
func openFiles() (int, bool) {
	if fi, err := os.Stat("/proc/self/fd"); err == nil && fi.Size() > 0 {
		return int(fi.Size()), true
	}
	names, err := os.ReadDir("/proc/self/fd")
	return len(names), err == nil
}

// fileLimit is how many descriptors this process may have, 0 if it is unknown.
func fileLimit() uint64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return limit.Cur
}

// growFiles grows the kernel's table of this process's descriptors to its limit now.
// Otherwise the kernel doubles the table whenever it is full, and every thread that
// opens a connection meanwhile waits for an RCU grace period: ten milliseconds in which
// due requests are not sent.
func growFiles() {
	highest := min(fileLimit(), 1<<16)
	if highest == 0 {
		return
	}
	if fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, int(highest-1)); err == nil {
		unix.Close(fd)
	}
}

// portsUsed is the share of the ephemeral ports that are taken by connections to one
// address and by those in TIME_WAIT. It counts all connections in TIME_WAIT of this
// network namespace, because those of other processes take ports too.
func portsUsed(connections int) (float64, bool) {
	var low, high int
	ports, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 0, false
	}
	if _, err := fmt.Sscan(string(ports), &low, &high); err != nil || high <= low {
		return 0, false
	}
	return float64(connections+waiting()) / float64(high-low+1), true
}

// waiting is how many TCP connections are in TIME_WAIT.
func waiting() int {
	stat, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return 0
	}
	return sockstatWaiting(string(stat))
}

// raisePriority raises the priority of the threads of this process if that is allowed
// (as root, or with CAP_SYS_NICE). Processes that it starts keep the normal priority.
// Otherwise a client on the same machine as the service would wait for it, and measure
// that wait.
func raisePriority() {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if now, err := unix.SchedGetAttr(id, 0); err != nil || now.Policy != unix.SCHED_NORMAL || now.Nice != 0 { // it is raised already, or somebody set another
			continue
		}
		attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Flags: unix.SCHED_FLAG_RESET_ON_FORK, Nice: precedence}
		if unix.SchedSetAttr(id, &attr, 0) != nil {
			return // not allowed
		}
	}
}

// precedence is a nice value: the lower, the higher the priority.
const precedence = -10
