package run

import (
	"net"
	"net/url"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

// describeDevices describes the GPUs of this machine, if the service is on it, and
// which replica computes on which.
func (c *conductor) describeDevices(env *recording.Environment, about deploy.About) {
	if about.Kind != "local" && !loopback(about.URL) {
		return
	}
	if c.gpus == nil {
		all, _ := deploy.ListGPUs() // a machine without NVML has none that could be described
		c.gpus = []recording.GPU{}
		for _, g := range all {
			c.gpus = append(c.gpus, recording.GPU{
				Index: g.Index, Name: g.Name, UUID: g.UUID, MemoryBytes: g.Total, FreeBytes: g.Free, PCI: g.PCI, Driver: g.Driver, CUDA: g.CUDAOf,
				PowerLimitWatts: g.PowerLimit, ClockMHz: g.SMClock, MemoryClockMHz: g.MemClock, ECC: g.ECC, MIG: g.MIG, NVLinks: g.NVLinks,
			})
		}
	}
	env.Host.GPUs = c.gpus
	if about.Seating == nil {
		return
	}
	for _, line := range about.Seating.Describe() {
		env.Target.Devices = append(env.Target.Devices, words.Kept{Sentence: line})
	}
	for i := range env.Host.GPUs {
		env.Host.GPUs[i].Replicas = nil
	}
	for _, s := range about.Seating.Seats {
		seat := recording.Seat{Replica: s.Replica, Device: s.Device, Bytes: s.Share}
		if s.GPU != nil {
			seat.GPU = s.GPU.UUID
			for i := range env.Host.GPUs {
				if env.Host.GPUs[i].UUID == seat.GPU {
					env.Host.GPUs[i].Replicas = append(env.Host.GPUs[i].Replicas, s.Replica)
				}
			}
		}
		env.Target.Seats = append(env.Target.Seats, seat)
	}
}

// loopback reports whether a URL is of this machine.
func loopback(at string) bool {
	u, err := url.Parse(at)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}
