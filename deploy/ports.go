package deploy

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync/atomic"

	"github.com/launchgate/launchgate/internal/words"
)

// freePorts finds n ports of loopback on which nobody listens.
//
// They lie below the range of the kernel's source ports. A killed replica must
// find its port free when it restarts, and under load a connection of the
// client could otherwise take it. Each call continues where the last one ended,
// so that another deployment of this process does not get the same ports before
// the first one listens on them.
func freePorts(n int) ([]int, error) {
	low, high := 20000, ephemeralStart()
	if high-low < 1000 {
		low, high = 1024, max(high, 2048)
	}
	var ports []int
	var held []net.Listener
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	for tries := 0; len(ports) < n; tries++ {
		if tries > 200+20*n {
			return nil, words.Errorf("no %d free ports on 127.0.0.1 between %d and %d", n, low, high)
		}
		p := low + int(nextPort.Add(1)%uint64(high-low))
		l, err := listen(p)
		if err != nil {
			continue
		}
		held, ports = append(held, l), append(ports, p)
	}
	return ports, nil
}

// nextPort starts at a random port, so that two processes seldom choose the
// same.
var nextPort atomic.Uint64

func init() { nextPort.Store(uint64(rand.Uint32())) }

const loopback = "127.0.0.1"

// Loopback is the address of a port on this machine.
func Loopback(port int) string { return at(loopback, port) }

func at(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

func ephemeralStart() int {
	var low, high int
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 32768
	}
	if _, err := fmt.Sscan(string(b), &low, &high); err != nil {
		return 32768
	}
	return low
}

func listen(port int) (net.Listener, error) { return net.Listen("tcp", Loopback(port)) }
