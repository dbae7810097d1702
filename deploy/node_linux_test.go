package deploy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// node is a node in which a server at addr sends back what it receives.
func node(t *testing.T, able func(Kernel) error) (n *Node, addr string) {
	t.Helper()
	if err := able(TryKernel()); err != nil {
		t.Skipf("skipped: %v", err)
	}
	nodes, err := MakeNodes(NodeNames(1))
	if err != nil {
		t.Fatal(err)
	}
	n = nodes[0]
	lis, err := n.listen(net.JoinHostPort(n.Host(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	_ = sendBack(lis) // connections that are cut off end with the process
	t.Cleanup(func() {
		lis.Close()
		if err := n.Remove(); err != nil {
			t.Error(err)
		}
	})
	return n, lis.Addr().String()
}

// connect connects from the host.
func connect(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// echoed sends so many bytes and returns how long it took until they came back.
func echoed(t *testing.T, c net.Conn, size int) time.Duration {
	t.Helper()
	sent := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	began := time.Now()
	var writing sync.WaitGroup
	writing.Go(func() { _, _ = c.Write(sent) })
	defer writing.Wait()
	_ = c.SetReadDeadline(began.Add(20 * time.Second))
	back := make([]byte, len(sent))
	if _, err := io.ReadFull(c, back); err != nil || !bytes.Equal(back, sent) {
		t.Errorf("%d bytes came back otherwise: %v", size, err)
	}
	return time.Since(began)
}

func impair(t *testing.T, n *Node, w Impairment) (end func() error) {
	t.Helper()
	end, err := n.Begin(w)
	if err != nil {
		t.Fatal(err)
	}
	return end
}

// Only the host can reach a node, and a process in the node can reach only the
// host. Removing the node leaves nothing behind and can be repeated.
func TestNodeIsOfTheHostAlone(t *testing.T) {
	n, addr := node(t, func(k Kernel) error { return k.Nodes })
	echoed(t, connect(t, addr), 1<<20)
	if c, err := n.DialContext(t.Context(), "tcp", "192.0.2.1:9"); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("from within, an address outside: %v %v", c, err)
	}
	for range 3 {
		if err := RemoveNode(n.Name()); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat("/sys/class/net/" + n.Name()); err == nil {
		t.Errorf("%s is still there", n.Name())
	}
	for _, other := range []string{"lo", "eth0", ""} {
		if err := RemoveNode(other); err == nil || !strings.Contains(err.Error(), "is not a device of launchgate") {
			t.Errorf("%q: %v", other, err)
		}
	}
}

// A link that is down is silent both ways. A new connection is not refused.
// Data that was sent arrives when the link is up again. Processes in the node
// go on.
func TestNodeIsCutOff(t *testing.T) {
	n, addr := node(t, func(k Kernel) error { return k.Nodes })
	c := connect(t, addr)
	echoed(t, c, 1<<10)
	first, second := impair(t, n, Impairment{Silent: true}), impair(t, n, Impairment{Silent: true})
	var timeout net.Error
	if _, err := net.DialTimeout("tcp", addr, 300*time.Millisecond); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("who connects is told: %v", err)
	}
	if beside, err := n.DialContext(t.Context(), "tcp", addr); err != nil {
		t.Errorf("from within: %v", err)
	} else {
		echoed(t, beside, 1<<10)
		beside.Close()
	}
	back := make(chan time.Duration)
	go func() { back <- echoed(t, c, 1<<10) }()
	if err := first(); err != nil {
		t.Fatal(err)
	}
	select {
	case took := <-back:
		t.Errorf("something came through after %s, and one of the two still goes on", took)
	case <-time.After(300 * time.Millisecond):
	}
	if err := errors.Join(second(), second()); err != nil {
		t.Fatal(err)
	}
	t.Logf("what was sent meanwhile was back after %s", <-back)
	echoed(t, connect(t, addr), 1<<10)
}

// All connections share the limited bandwidth, and nothing is limited
// afterwards.
func TestNodeIsNarrow(t *testing.T) {
	n, addr := node(t, func(k Kernel) error { return k.Bandwidth })
	const size, rate = 96 << 10, 128 << 10
	before := echoed(t, connect(t, addr), size)
	end := impair(t, n, Impairment{Bandwidth: rate})
	took := echoed(t, connect(t, addr), size)
	if want := 750 * time.Millisecond; took < want*9/10 {
		t.Errorf("%d bytes took %s, want %s at least", size, took, want)
	}
	if err := end(); err != nil {
		t.Fatal(err)
	}
	after := echoed(t, connect(t, addr), size)
	t.Logf("%d bytes took %s before, %s at %d a second, %s after", size, before, took, rate, after)
	if after > took/2 {
		t.Errorf("%s before, %s after", before, after)
	}
}

// The kernel delays and drops packets, also together with a limited bandwidth.
func TestNodeLosesAndDelays(t *testing.T) {
	n, addr := node(t, func(k Kernel) error { return errors.Join(k.Packets, k.Bandwidth) })
	end := impair(t, n, Impairment{Delay: 100 * time.Millisecond, Bandwidth: 64 << 10})
	c := connect(t, addr)
	if took := echoed(t, c, 16); took < 100*time.Millisecond || took > 5*time.Second {
		t.Errorf("a round trip took %s", took)
	}
	if took := echoed(t, c, 64<<10); took < time.Second {
		t.Errorf("64 KiB took %s at 64 KiB a second", took)
	}
	lossy := impair(t, n, Impairment{Loss: 0.2})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for lost := int64(0); lost < 5; lost, _ = n.Counts() {
		if ctx.Err() != nil {
			t.Fatal("nothing was lost")
		}
		echoed(t, c, 16<<10)
	}
	if err := errors.Join(lossy(), end()); err != nil {
		t.Fatal(err)
	}
	if took := echoed(t, connect(t, addr), 16); took > 50*time.Millisecond {
		t.Errorf("afterwards a round trip took %s", took)
	}
}
