package deploy

import (
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/launchgate/launchgate/internal/words"
)

// Kernel is what this kernel can do to the network of simulated nodes. Each
// field is nil if a try succeeded, and else says why it failed.
type Kernel struct {
	Nodes     error // make a node and cut it off
	Bandwidth error // limit its bandwidth, with tbf
	Packets   error // delay and lose its packets, with netem
}

const (
	linkMTU = 1500
	frame   = linkMTU + 14 // bytes of the longest packet, as the kernel counts them
)

// Burst is how many bytes pass a link of a node at once after a time without
// data, before the bandwidth limits them. The kernel rounds it, and drops every
// packet that is longer than it.
func Burst(bandwidth int64) int64 { return max(2*frame, bandwidth/100) }

// chooseNetwork draws a random network for 128 nodes with two addresses each.
// It does not overlap a taken one.
func chooseNetwork(taken []netip.Prefix) (netip.Prefix, error) {
	for range 1000 {
		at := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(rand.IntN(256)), byte(rand.IntN(256))}), 24)
		if !slices.ContainsFunc(taken, at.Overlaps) {
			return at, nil
		}
	}
	return netip.Prefix{}, words.Errorf("no private address range is free, because this host has routes to all of 10.0.0.0/8")
}
