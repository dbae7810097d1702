package deploy

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/launchgate/launchgate/internal/words"
)

// Node is the network of a simulated machine: a namespace that its replicas run
// in, and a pair of veth devices, which is its only way out and leads to this
// host alone.
//
//	gateway ──▶ lgate-3kq9xa-0 ════════ eth0 ──▶ replica-0
//	            10.83.7.0   the veth    10.83.7.1
//
// The namespace has no name: the kernel removes it, and the veth with it, when
// the last process in it and this one have ended. A nil Node is the host's own
// network.
type Node struct {
	name    string // name of the host's end of the veth
	address netip.Addr
	ns      netns.NsHandle
	ends    [2]end // the host's, and the namespace's

	mu          sync.Mutex
	impairments map[*Impairment]struct{}
	now         Impairment
	unsure      bool // now may be in effect only in part
}

// end is one end of a veth.
type end struct {
	netlink *netlink.Handle
	link    netlink.Link
}

const (
	nodePrefix = "lgate-" // prefix of the names of devices that may be removed
	inNode     = "eth0"   // name of the namespace's end
	delayed    = 100000   // the most packets that a delay holds
	upWithin   = 10 * time.Second
)

// NodeNames are names of veths that no other run uses.
func NodeNames(n int) []string {
	run := strings.ToLower(rand.Text()[:6])
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s%s-%d", nodePrefix, run, i)
	}
	return names
}

// MakeNodes makes a node for each name. After an error it leaves none.
func MakeNodes(names []string) (nodes []*Node, err error) {
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, words.Errorf("netlink: %s", err)
	}
	defer host.Close()
	network, err := freeNetwork(host)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			for _, n := range nodes {
				err = errors.Join(err, n.Remove())
			}
			nodes = nil
		}
	}()
	for i, name := range names {
		base := network.Addr().As4()
		base[3] = byte(2 * i)
		n := &Node{name: name, ns: netns.None(), impairments: map[*Impairment]struct{}{}}
		nodes = append(nodes, n)
		if err := n.make(netip.PrefixFrom(netip.AddrFrom4(base), 31)); err != nil {
			return nodes, words.Errorf("the network of a node, %s: %s", name, err)
		}
	}
	return nodes, nil
}

// freeNetwork is a range of private addresses to which no route of the host
// leads, except default routes.
func freeNetwork(host *netlink.Handle) (netip.Prefix, error) {
	routes, err := host.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return netip.Prefix{}, words.Errorf("the routes of this host: %s", err)
	}
	var taken []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		if to, err := netip.ParsePrefix(r.Dst.String()); err == nil && to.Bits() > 1 {
			taken = append(taken, to)
		}
	}
	return chooseNetwork(taken)
}

// make makes the namespace, and the veth with its addresses.
func (n *Node) make(network netip.Prefix) (err error) {
	hostAddress := network.Addr()
	n.address = hostAddress.Next()
	if err := n.unshare(); err != nil {
		return err
	}
	if n.ends[0].netlink, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	if n.ends[1].netlink, err = netlink.NewHandleAt(n.ns, unix.NETLINK_ROUTE); err != nil {
		return err
	}
	host, inside := n.ends[0].netlink, n.ends[1].netlink
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = n.name, linkMTU
	if err := host.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: inNode, PeerNamespace: netlink.NsFd(n.ns)}); err != nil {
		return words.Errorf("make a veth: %s", err)
	}
	for i, name := range []string{n.name, inNode} {
		at := []netip.Addr{hostAddress, n.address}[i]
		if n.ends[i].link, err = n.ends[i].netlink.LinkByName(name); err != nil {
			return err
		}
		address := &net.IPNet{IP: at.AsSlice(), Mask: net.CIDRMask(network.Bits(), 32)}
		if err := n.ends[i].netlink.AddrAdd(n.ends[i].link, &netlink.Addr{IPNet: address}); err != nil {
			return words.Errorf("give %s the address %s: %s", name, address, err)
		}
	}
	lo, err := inside.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := errors.Join(inside.LinkSetUp(lo), inside.LinkSetUp(n.ends[1].link), host.LinkSetUp(n.ends[0].link)); err != nil {
		return err
	}
	// The entry is permanent. If the host had to resolve the address of a node
	// that is cut off, connections would fail after some seconds instead of
	// waiting.
	if err := host.NeighSet(&netlink.Neigh{
		LinkIndex: n.ends[0].link.Attrs().Index, Family: netlink.FAMILY_V4, State: netlink.NUD_PERMANENT,
		IP: n.address.AsSlice(), HardwareAddr: n.ends[1].link.Attrs().HardwareAddr,
	}); err != nil {
		return words.Errorf("add a route to %s on this host: %s", n.address, err)
	}
	return n.settled()
}

// settled waits until packets pass. The kernel takes up to a second to notice
// that a link is up, and packets sent before are lost.
func (n *Node) settled() error {
	for deadline := time.Now().Add(upWithin); ; time.Sleep(time.Millisecond) {
		up := 0
		for _, e := range n.ends {
			link, err := e.netlink.LinkByName(e.link.Attrs().Name)
			if err != nil {
				return err
			}
			if link.Attrs().OperState == netlink.OperUp {
				up++
			}
		}
		if up == len(n.ends) {
			return nil
		}
		if time.Now().After(deadline) {
			return words.Errorf("the link of %s was not up after %s", n.name, upWithin)
		}
	}
}

// unshare makes the namespace. In it the kernel gives up a connection at once
// if its process is gone and its other side cannot be reached: a lost machine
// sends nothing when it is back.
func (n *Node) unshare() error {
	return apart(func() (err error) {
		if n.ns, err = netns.New(); err != nil {
			return words.Errorf("make a network namespace: %s", err)
		}
		return os.WriteFile("/proc/sys/net/ipv4/tcp_orphan_retries", []byte("1"), 0)
	})
}

// apart runs f on a thread of its own, which may change its network namespace
// and then returns to this one.
func apart(f func() error) error {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return words.Errorf("the network namespace of launchgate: %s", err)
	}
	defer home.Close()
	defer func() {
		if netns.Set(home) == nil { // on failure the thread stays locked, and ends with its goroutine
			runtime.UnlockOSThread()
		}
	}()
	return f()
}

// inside runs f in the node's network. Processes that f starts and listeners
// that it opens are in that network.
func (n *Node) inside(f func() error) error {
	if n == nil {
		return f()
	}
	return apart(func() error {
		if err := netns.Set(n.ns); err != nil {
			return words.Errorf("enter the network of %s: %s", n.name, err)
		}
		return f()
	})
}

// listen listens in the node's network.
func (n *Node) listen(addr string) (l net.Listener, err error) {
	err = n.inside(func() error {
		l, err = net.Listen("tcp", addr)
		return err
	})
	return l, err
}

// DialContext connects from within the node's network, without passing its
// link.
func (n *Node) DialContext(ctx context.Context, network, addr string) (c net.Conn, err error) {
	err = n.inside(func() error {
		c, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

// Host is the address at which the node is reached.
func (n *Node) Host() string {
	if n == nil {
		return loopback
	}
	return n.address.String()
}

// Name is the host's end of the veth, which RemoveNode takes.
func (n *Node) Name() string { return n.name }

// Begin adds to the impairment on the node's link, as Link.Begin does, until
// end is called. While the link is down, neither side gets an error.
func (n *Node) Begin(w Impairment) (end func() error, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	front := &w
	n.impairments[front] = struct{}{}
	return func() error {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.impairments, front)
		return n.change()
	}, n.change()
}

// change puts the combined impairment into effect; the lock is held.
func (n *Node) change() error {
	all := together(n.impairments)
	if all == n.now && !n.unsure {
		return nil
	}
	n.now, n.unsure = all, true
	for _, e := range n.ends {
		if err := e.shape(all); err != nil {
			return err
		}
	}
	set := n.ends[1].netlink.LinkSetUp
	if all.Silent {
		set = n.ends[1].netlink.LinkSetDown
	}
	if err := set(n.ends[1].link); err != nil {
		return words.Errorf("the link of %s: %s", n.name, err)
	}
	if !all.Silent {
		if err := n.settled(); err != nil {
			return err
		}
	}
	n.unsure = false
	return nil
}

// shape makes the kernel apply the impairment to packets that leave at an end.
//
//	netem (delay, loss) ─▶ tbf (bandwidth) ─▶ the other end
func (e end) shape(w Impairment) error {
	index := e.link.Attrs().Index
	root := netlink.QdiscAttrs{LinkIndex: index, Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(1, 0)}
	// The device's default queue has the handle 0 and cannot be removed.
	have, err := e.netlink.QdiscList(e.link)
	if err != nil {
		return words.Errorf("the queues of %s: %s", e.link.Attrs().Name, err)
	}
	for _, q := range have {
		if a := q.Attrs(); a.Parent == netlink.HANDLE_ROOT && a.Handle != 0 {
			if err := e.netlink.QdiscDel(q); err != nil {
				return words.Errorf("remove %s from %s: %s", q.Type(), e.link.Attrs().Name, err)
			}
		}
	}
	var queues []netlink.Qdisc
	if w.Delay > 0 || w.Loss > 0 {
		queues = append(queues, netlink.NewNetem(root, netlink.NetemQdiscAttrs{Latency: uint32((w.Delay / 2).Microseconds()), Loss: float32(100 * w.Loss), Limit: delayed}))
		root.Parent, root.Handle = netlink.MakeHandle(1, 1), netlink.MakeHandle(2, 0)
	}
	if rate := uint64(w.Bandwidth); rate > 0 {
		burst := uint32(Burst(w.Bandwidth))
		queues = append(queues, &netlink.Tbf{QdiscAttrs: root, Rate: rate, Buffer: netlink.Xmittime(rate, burst), Limit: uint32(max(16*frame, rate/5))})
	}
	for _, q := range queues {
		if err := e.netlink.QdiscAdd(q); err != nil {
			return words.Errorf("set %s on %s: %s", q.Type(), e.link.Attrs().Name, err)
		}
	}
	return nil
}

// Counts are the packets that netem dropped and those that it let pass, at both
// ends.
func (n *Node) Counts() (lost, passed int64) {
	for _, e := range n.ends {
		queues, err := e.netlink.QdiscList(e.link)
		if err != nil {
			continue
		}
		for _, q := range queues {
			if s := q.Attrs().Statistics; q.Type() == "netem" && s != nil && s.Basic != nil && s.Queue != nil {
				lost, passed = lost+int64(s.Queue.Drops), passed+int64(s.Basic.Packets)
			}
		}
	}
	return lost, passed
}

// Remove removes the veth with everything on it. The kernel removes the
// namespace when no process is in it any more.
func (n *Node) Remove() error {
	err := RemoveNode(n.name)
	for _, e := range n.ends {
		if e.netlink != nil {
			e.netlink.Close()
		}
	}
	if n.ns.IsOpen() {
		err = errors.Join(err, n.ns.Close())
	}
	return err
}

// RemoveNode removes the veth of a node, if it exists.
func RemoveNode(name string) error {
	if !strings.HasPrefix(name, nodePrefix) {
		return words.Errorf("%q is not a device of launchgate", name)
	}
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return words.Errorf("netlink: %s", err)
	}
	defer host.Close()
	link, err := host.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil && link.Type() != "veth" {
		return words.Errorf("%s is a %s, which launchgate never creates", name, link.Type())
	}
	if err == nil {
		err = host.LinkDel(link)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) { // it was removed with its namespace meanwhile
		return words.Errorf("remove the veth %s: %s", name, err)
	}
	return nil
}

// TryKernel tries what the kernel can do to a node's network here. It removes
// what it made before it returns.
func TryKernel() Kernel {
	nodes, err := MakeNodes(NodeNames(1))
	if err != nil {
		if errors.Is(err, unix.EPERM) {
			err = words.Errorf("no network namespace can be created here, because that needs root")
		} else {
			err = words.Errorf("no network namespace can be created here: %s", err)
		}
		return Kernel{err, err, err}
	}
	n := nodes[0]
	defer func() { _ = n.Remove() }() // the kernel also removes it when this process ends
	var k Kernel
	if k.Nodes = n.try(); k.Nodes != nil {
		return Kernel{k.Nodes, k.Nodes, k.Nodes}
	}
	k.Bandwidth, k.Packets = n.tryImpairment("tbf", Impairment{Bandwidth: 1 << 20}), n.tryImpairment("netem", Impairment{Delay: time.Millisecond, Loss: 0.01})
	return k
}

// try checks that the host can connect to the node, and that it cannot while
// the link is down.
func (n *Node) try() error {
	const within = 5 * time.Second
	lis, err := n.listen(net.JoinHostPort(n.Host(), "0"))
	if err != nil {
		return words.Errorf("no process can listen in a new network namespace: %s", err)
	}
	defer lis.Close() // the kernel completes connections without a call of Accept
	c, err := net.DialTimeout("tcp", lis.Addr().String(), within)
	if err != nil {
		return words.Errorf("a new network namespace cannot be reached, perhaps because of a firewall: %s", err)
	}
	c.Close()
	up, err := n.Begin(Impairment{Silent: true})
	if err != nil {
		return err
	}
	if c, err = net.DialTimeout("tcp", lis.Addr().String(), within/100); err == nil {
		c.Close()
		return words.Errorf("a new network namespace is reachable although its link is down")
	}
	return up()
}

func (n *Node) tryImpairment(called string, w Impairment) error {
	end, err := n.Begin(w)
	if err = errors.Join(err, end()); errors.Is(err, unix.ENOENT) {
		return words.Errorf("this kernel has no %s", called)
	}
	return err
}
