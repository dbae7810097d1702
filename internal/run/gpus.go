package run

import (
	"context"
	"net"
	"net/url"
	"slices"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/deploy/gpu"
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

// gpuEvery is how often the GPUs are read.
const gpuEvery = time.Second

// reader is NVML, or a fake of it.
type reader interface{ Read() []gpu.Reading }

// watchGPUs records what the GPUs of this machine do until ctx ends, if the service may
// use them.
func (c *conductor) watchGPUs(ctx context.Context) {
	if len(c.gpus) == 0 {
		return
	}
	lib, err := gpu.Open()
	if err != nil { // it was there when the GPUs were listed
		return
	}
	defer lib.Close()
	lib.Watch()
	c.readGPUs(ctx, lib)
}

func (c *conductor) readGPUs(ctx context.Context, lib reader) {
	held := map[string][]string{}
	tick := time.NewTicker(gpuEvery)
	defer tick.Stop()
	for {
		readings := lib.Read()
		at := c.clock.Now()
		for _, r := range readings {
			for _, o := range deviceObservations(r, held) {
				o.At = at
				c.observe(o)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// deviceObservations are those of a reading. held are the reasons for which the clocks
// of each device were held back at the last one.
func deviceObservations(r gpu.Reading, held map[string][]string) (all []recording.Observation) {
	for _, name := range []string{gpu.Memory, gpu.Power, gpu.Energy, gpu.Utilisation, gpu.Temperature, gpu.Clock, gpu.ECCErrors} {
		if v, reported := r.Values[name]; reported {
			all = append(all, recording.Observation{Name: name, Subject: r.UUID, Value: v})
		}
	}
	if before, known := held[r.UUID]; r.HeldKnown && !(known && slices.Equal(before, r.Held)) {
		held[r.UUID] = r.Held
		o := recording.Observation{Name: recording.ObsHeldBack, Subject: r.UUID, Names: r.Held}
		if len(r.Held) > 0 {
			o.Value = 1
		}
		all = append(all, o)
	}
	for _, n := range r.Xids {
		all = append(all, recording.Observation{Name: recording.ObsXid, Subject: r.UUID, Value: float64(n)})
	}
	return all
}

// readHere reports whether a device is one that watchGPUs reads.
func (c *conductor) readHere(device string) bool {
	return slices.ContainsFunc(c.gpus, func(g recording.GPU) bool { return g.UUID == device })
}
