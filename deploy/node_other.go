//go:build !linux

package deploy

import (
	"context"
	"net"

	"github.com/launchgate/launchgate/internal/words"
)

// Node is the network of a simulated machine, which needs Linux. A nil Node is
// the host's own network, which is the only one here.
type Node struct{}

var errNoNodes = words.Errorf("network namespaces exist only on Linux")

// NodeNames returns nil.
func NodeNames(int) []string { return nil }

// MakeNodes returns an error.
func MakeNodes([]string) ([]*Node, error) { return nil, errNoNodes }

func (n *Node) inside(f func() error) error { return f() }

func (n *Node) listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

// DialContext connects from the host.
func (n *Node) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, network, addr)
}

// Host is the loopback address.
func (n *Node) Host() string { return loopback }

// Name is empty.
func (n *Node) Name() string { return "" }

// Begin returns an error.
func (n *Node) Begin(Impairment) (end func() error, err error) {
	return func() error { return nil }, errNoNodes
}

// Counts are zero.
func (n *Node) Counts() (lost, passed int64) { return 0, 0 }

// Remove has nothing to remove.
func (n *Node) Remove() error { return nil }

// RemoveNode has nothing to remove.
func RemoveNode(string) error { return nil }

// TryKernel reports that nothing works.
func TryKernel() Kernel { return Kernel{errNoNodes, errNoNodes, errNoNodes} }
