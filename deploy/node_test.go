package deploy

import (
	"net/netip"
	"testing"
)

// The addresses of nodes do not overlap existing routes.
func TestChooseNetwork(t *testing.T) {
	var taken []netip.Prefix
	for i := range 256 { // all but 10.7.0.0/16, and of that all but a quarter
		if i != 7 {
			taken = append(taken, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i)}), 16))
		}
	}
	taken = append(taken, netip.MustParsePrefix("10.7.0.0/17"), netip.MustParsePrefix("10.7.128.0/18"), netip.MustParsePrefix("192.168.0.0/16"))
	found := 0
	for range 20 {
		at, err := chooseNetwork(taken)
		if err != nil {
			continue // a thousand draws may miss it: one in a thousand is free
		}
		found++
		if !netip.MustParsePrefix("10.7.192.0/18").Overlaps(at) || at.Bits() != 24 {
			t.Errorf("%s is taken", at)
		}
	}
	if found == 0 {
		t.Error("none was found")
	}
	if at, err := chooseNetwork([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}); err == nil {
		t.Errorf("%s is taken", at)
	}
}
