package deploy

import (
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/launchgate/launchgate/internal/words"
)

// Kernel is what a kernel can do to the network of simulated nodes: nil where it
// was tried and works, and else why it cannot.
type Kernel struct {
	Nodes     error // make one, and cut it off
	Bandwidth error // limit its bandwidth, with tbf
	Packets   error // delay and lose its packets, with netem
}

const (
	linkMTU = 1500
	frame   = linkMTU + 14 // bytes of the longest packet, as the kernel counts it
)

// Burst is how many bytes come through a link of a node at once, when nothing
// did for a while, before its bandwidth counts. The kernel rounds it, and would
// let no packet through that is longer.
func Burst(bandwidth int64) int64 { return max(2*frame, bandwidth/100) }

// chooseNetwork draws a network of 128 nodes with two addresses each, none of
// which is taken.
func chooseNetwork(taken []netip.Prefix) (netip.Prefix, error) {
	for range 1000 {
		at := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(rand.IntN(256)), byte(rand.IntN(256))}), 24)
		if !slices.ContainsFunc(taken, at.Overlaps) {
			return at, nil
		}
	}
	return netip.Prefix{}, words.Errorf("no private address range is free, because this host has routes to all of 10.0.0.0/8")
}
