// Package gpu reads what NVIDIA's management library (NVML) tells of the GPUs of this
// machine: what they are, how much memory is free, and what they are doing now.
package gpu

import (
	"slices"
	"strconv"
	"strings"

	"github.com/launchgate/launchgate/internal/words"
)

// GPU is what is known of a device before anything runs on it. What a device does not
// tell is zero.
type GPU struct {
	// Index is its number in the order of the PCI bus, as nvidia-smi shows it.
	Index int
	// CUDA is its number for programs that this one starts with Order; -1 if
	// CUDA_VISIBLE_DEVICES hides it from them.
	CUDA       int
	UUID, Name string
	Total      int64 // bytes of memory
	Free       int64 // bytes that nobody has now
	PCI        string
	Driver     string  // version
	CUDAOf     string  // the newest version of CUDA that the driver can run
	PowerLimit float64 // watts
	SMClock    int     // MHz at the most
	MemClock   int     // likewise
	ECC        string
	MIG        string
	// NVLinks is how many of its links to other GPUs are up.
	NVLinks int
}

// The words of ECC and MIG; empty where the device does not tell.
const (
	On  = "on"
	Off = "off"
)

// Reading is what a device does at a moment. What it does not tell is absent.
type Reading struct {
	UUID string
	// Values are by the name of what is measured.
	Values map[string]float64
	// Held are the reasons for which its clocks are held back, in words; HeldKnown is whether
	// the driver reports them.
	Held      []string
	HeldKnown bool
	// Xids are the numbers of the errors that its driver has reported since the last
	// reading (NVIDIA's "Xid errors").
	Xids []uint64
}

// The names of values. They are those of the recording's observations.
const (
	Memory      = "device_memory_bytes"
	Power       = "power_watts"
	Energy      = "energy_joules" // since the driver was loaded
	Utilisation = "device_utilisation_ratio"
	Temperature = "device_temperature_celsius"
	Clock       = "device_clock_mhz"
	ECCErrors   = "device_ecc_errors" // since the driver was loaded
)

// Order is the environment with which CUDA numbers devices as Index does.
const Order = "CUDA_DEVICE_ORDER=PCI_BUS_ID"

// VisibleVariable is the environment variable that shows CUDA some devices alone.
const VisibleVariable = "CUDA_VISIBLE_DEVICES"

// visible numbers devices as CUDA does, which shows a program those that the variable
// names, in that order, until the first that is not there.
func visible(all []GPU, variable string, set bool) ([]GPU, error) {
	all = slices.Clone(all)
	for i := range all {
		all[i].CUDA = all[i].Index
		if set {
			all[i].CUDA = -1
		}
	}
	if !set {
		return all, nil
	}
	next := 0
	for name := range strings.SplitSeq(variable, ",") {
		name = strings.TrimSpace(name)
		if strings.HasPrefix(name, "MIG-") {
			return nil, words.Errorf("%s names %s, an instance of a partitioned GPU (MIG); replicas are placed on whole GPUs: name those, or start the replicas yourself", VisibleVariable, name)
		}
		i := slices.IndexFunc(all, func(g GPU) bool {
			n, err := strconv.Atoi(name)
			return err == nil && n == g.Index || strings.HasPrefix(name, "GPU-") && strings.HasPrefix(g.UUID, name)
		})
		if i < 0 || all[i].CUDA >= 0 {
			break
		}
		all[i].CUDA = next
		next++
	}
	return all, nil
}

// reasons are the bits of NVML's clocks event reasons that hold clocks back. Idle, and
// clocks that somebody chose, are none.
var reasons = []struct {
	bit  uint64
	said string
}{
	{0x4, "power limit"},
	{0x8, "hardware slowdown"},
	{0x20, "temperature"},
	{0x40, "hardware temperature"},
	{0x80, "power brake"},
}

// held says the reasons of a set of bits.
func held(bits uint64) (said []string) {
	for _, r := range reasons {
		if bits&r.bit != 0 {
			said = append(said, r.said)
		}
	}
	return said
}
