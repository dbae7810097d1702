package loadgen

import (
	"fmt"
	"os"
	"syscall"
)

// filesUsed is the share of the file descriptors this process may have that it
// has open.
func filesUsed() (float64, bool) {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0, false
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	var limit syscall.Rlimit
	if err != nil || syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil || limit.Cur == 0 {
		return 0, false
	}
	return float64(len(names)) / float64(limit.Cur), true
}

// portsUsed is the share of the ephemeral ports that are taken, by connections
// to one address and by those that wait for their end. It counts every waiting
// one of this network namespace: those of others take ports too.
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
