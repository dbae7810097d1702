package scenarios

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// FaultKind describes a kind of fault: the keys that a gate may give it, besides
// kind, at and within, which every kind has, and the traits that playing and
// judging it depend on. The entry of the kind in chaos says how it is injected.
type FaultKind struct {
	Name    string
	Replica bool     // it strikes a replica: target and min_streams choose it
	Needs   []string // keys it cannot do without
	May     []string // keys it may have

	// UntilLoadEnds: without the key for, it lasts until the load of the scenario
	// ends. Every other kind is over at once without it.
	UntilLoadEnds bool
	// Node: it strikes a node, with all that is on it.
	Node bool
	// Device: it strikes the device of a replica, which target may choose.
	Device bool
	// NewConnections: only new connections can notice it.
	NewConnections bool
	// OwnDisk: the ledger has to be on a disk of its own.
	OwnDisk bool
	// Network is the property of a network that it changes; empty: none.
	Network Network
}

// Network is a property of a network that a fault changes.
type Network string

// The properties of a network that faults change.
const (
	NetworkPackets   Network = "packets"   // they are late, or lost
	NetworkBandwidth Network = "bandwidth" // there is less of it
	NetworkReach     Network = "reach"     // nothing comes through
)

// The kinds of faults that a scenario may inject.
var (
	PodKill           = FaultKind{Name: "pod-kill", Replica: true}
	PodHang           = FaultKind{Name: "pod-hang", Replica: true, Needs: []string{"for"}}
	PodSlow           = FaultKind{Name: "pod-slow", Replica: true, Needs: []string{"for", "cores"}}
	GatewayKill       = FaultKind{Name: "gateway-kill"}
	NodeLoss          = FaultKind{Name: "node-loss", Replica: true, May: []string{"for", "disk"}, UntilLoadEnds: true, Node: true}
	NodeDrain         = FaultKind{Name: "node-drain", Replica: true, May: []string{"for", "notice"}, UntilLoadEnds: true}
	SpotPreemption    = FaultKind{Name: "spot-preemption", Replica: true, Needs: []string{"notice"}, May: []string{"for"}}
	DelayedNetwork    = FaultKind{Name: "network-delay", Replica: true, Needs: []string{"for", "delay"}, Network: NetworkPackets}
	LossyNetwork      = FaultKind{Name: "network-loss", Replica: true, Needs: []string{"for", "loss"}, Network: NetworkPackets}
	NarrowNetwork     = FaultKind{Name: "network-bandwidth", Replica: true, Needs: []string{"for", "bandwidth"}, Network: NetworkBandwidth}
	NodePartition     = FaultKind{Name: "node-partition", Replica: true, Needs: []string{"for"}, May: []string{"cut"}, Network: NetworkReach}
	CPUStress         = FaultKind{Name: "cpu-stress", Needs: []string{"for", "cores"}}
	MemoryPressure    = FaultKind{Name: "memory-pressure", Replica: true, Needs: []string{"for", "memory"}}
	GPUOOM            = FaultKind{Name: "gpu-oom", Device: true, Needs: []string{"for", "memory"}}
	GPUThrottle       = FaultKind{Name: "gpu-throttle", Device: true, Needs: []string{"for", "power"}}
	KVExhaustion      = FaultKind{Name: "kv-exhaustion", Replica: true, Needs: []string{"for"}}
	CertificateExpiry = FaultKind{Name: "certificate-expiry", Needs: []string{"for"}, NewConnections: true}
	LedgerLoss        = FaultKind{Name: "ledger-loss", May: []string{"for"}}
	DiskFull          = FaultKind{Name: "disk-full", Needs: []string{"for"}, OwnDisk: true}
	ClockSkew         = FaultKind{Name: "clock-skew", Replica: true, Needs: []string{"for", "skew"}}
	BadRelease        = FaultKind{Name: "bad-release", Needs: []string{"release"}}
)

var faultKinds = []FaultKind{
	PodKill, PodHang, PodSlow, GatewayKill, NodeLoss, NodeDrain, SpotPreemption,
	DelayedNetwork, LossyNetwork, NarrowNetwork, NodePartition, CPUStress, MemoryPressure, GPUOOM, GPUThrottle, KVExhaustion,
	CertificateExpiry, LedgerLoss, DiskFull, ClockSkew, BadRelease,
}

// FaultKindOf is the kind of that name; false if there is none.
func FaultKindOf(name string) (FaultKind, bool) {
	i := slices.IndexFunc(faultKinds, func(k FaultKind) bool { return k.Name == name })
	if i < 0 {
		return FaultKind{}, false
	}
	return faultKinds[i], true
}

// AnyFault reports whether the condition holds for a fault of the gate.
func (g Gate) AnyFault(is func(Fault, FaultKind) bool) bool {
	return slices.ContainsFunc(g.Scenarios, func(s Scenario) bool { return s.AnyFault(is) })
}

// AnyFault reports whether the condition holds for a fault of the scenario.
func (s Scenario) AnyFault(is func(Fault, FaultKind) bool) bool {
	return slices.ContainsFunc(s.Faults, func(f Fault) bool {
		k, known := FaultKindOf(f.Kind)
		return known && is(f, k)
	})
}

// FaultKinds are the names of the faults a scenario may inject.
var FaultKinds = namesOf(faultKinds, func(k FaultKind) string { return k.Name })

// The words of a fault's cut.
const (
	CutSilent = "silent"
	CutReset  = "reset"
)

// The words of a lost node's disk.
const (
	DiskKept = "kept"
	DiskLost = "lost"
)

// The words of a bad release: what is bad about it.
const (
	ReleaseCorruptModel = "corrupt-model"
	ReleaseErroring     = "erroring"
	ReleaseSlow         = "slow"
	ReleaseBadConfig    = "bad-config"
)

// AfterPrevious has a fault wait for the end of the one before it.
const AfterPrevious = "previous"

// Bounds of a fault's parameters.
const (
	maxRepeat  = 1000
	maxCores   = 1024
	maxSize    = Size(1 << 40)
	minRateCut = Size(256) // bytes a second: below it not even a health check gets through
	maxDelay   = Duration(time.Minute)
	minSkew    = Offset(5 * time.Second) // a Date has whole seconds
	maxSkew    = Offset(maxDuration)
)

// Strikes are the faults of a scenario as they are played. A fault that repeats is
// listed as often as it is played, each time after the end of the time before.
func (s Scenario) Strikes() []Fault {
	var strikes []Fault
	for _, f := range s.Faults {
		times := max(f.Repeat, 1)
		for f.Repeat = 1; times > 0; times-- {
			strikes = append(strikes, f)
			f.After = AfterPrevious
		}
	}
	return strikes
}

// repeated checks that all repetitions of a fault fit into the scenario's load.
func (c *checker) repeated(path string, f Fault, kind FaultKind, length time.Duration) {
	c.between(path, f.Repeat, 1, maxRepeat)
	if f.Repeat <= 1 || f.Repeat > maxRepeat {
		return
	}
	if kind.UntilLoadEnds && f.For == 0 {
		c.add(path, "found %d of a %s that lasts until the load ends, expected for to say how long each lasts", f.Repeat, f.Kind)
		return
	}
	each := time.Duration(max(f.At, f.Latest) + f.For)
	if all := time.Duration(f.Repeat) * each; all > length && length > 0 {
		c.add(path, "found %d faults of %v each (at and for), which are %v, expected them to be over before the scenario's load is, at %v: lengthen it, or repeat less", f.Repeat, Duration(each), Duration(all), Duration(length))
	}
}

// objectName is what a replica can be called: a name of a Kubernetes object, such
// as web-7f9c-abcde.
var objectName = regexp.MustCompile(`^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$`)

const maxObjectName = 253

// parameter is one key of a fault that some kinds have.
type parameter struct {
	key   string
	given bool
	check func(c *checker, path string)
}

func (f Fault) parameters() []parameter {
	return []parameter{
		{"for", f.For != 0, func(c *checker, path string) { c.lasts(path, f.For, Duration(100*time.Millisecond), maxStage) }},
		{"notice", f.Notice != 0, func(c *checker, path string) { c.lasts(path, f.Notice, 1, maxTimeout) }},
		{"delay", f.Delay != 0, func(c *checker, path string) { c.lasts(path, f.Delay, Duration(time.Millisecond), maxDelay) }},
		{"loss", f.Loss != 0, func(c *checker, path string) {
			if f.Loss < 0.01 || f.Loss > 0.9 {
				c.add(path, "found %v, expected a share from 1%% to 90%%", f.Loss)
			}
		}},
		{"bandwidth", f.Bandwidth != 0, func(c *checker, path string) { c.size(path, f.Bandwidth, minRateCut) }},
		{"cut", f.Cut != "", func(c *checker, path string) { c.word(path, f.Cut, CutSilent, CutReset) }},
		{"disk", f.Disk != "", func(c *checker, path string) { c.word(path, f.Disk, DiskKept, DiskLost) }},
		{"release", f.Release != "", func(c *checker, path string) {
			c.word(path, f.Release, ReleaseCorruptModel, ReleaseErroring, ReleaseSlow, ReleaseBadConfig)
		}},
		{"cores", f.Cores != 0, func(c *checker, path string) {
			if !(f.Cores >= 0.01 && f.Cores <= maxCores) {
				c.add(path, "found %v, expected a number of cores from 0.01 to %d", f.Cores, maxCores)
			}
		}},
		{"skew", f.Skew != 0, func(c *checker, path string) {
			if d := max(f.Skew, -f.Skew); d < minSkew || d > maxSkew {
				c.add(path, "found %v, expected a time from %v to %v, or as far back, such as -90s", f.Skew, minSkew, maxSkew)
			}
		}},
		{"power", f.Power != 0, func(c *checker, path string) {
			if f.Power < 0.05 || f.Power > 0.95 {
				c.add(path, "found %v, expected a share from 5%% to 95%%", f.Power)
			}
		}},
		{"memory", f.Memory != 0, func(c *checker, path string) { c.size(path, f.Memory, 64<<10) }},
	}
}

func (c *checker) size(path string, s, least Size) {
	if s < least || s > maxSize {
		c.add(path, "found %v, expected a size from %v to %v", s, least, maxSize)
	}
}

// fault checks a fault against its kind.
func (c *checker) fault(path string, first bool, f Fault, length time.Duration) {
	kind, known := FaultKindOf(f.Kind)
	if !known {
		c.add(path+".kind", "unknown fault kind %s; %s", f.Kind, oneOf(f.Kind, FaultKinds))
	}
	if f.Latest != 0 {
		if f.Latest <= f.At {
			c.add(path+".latest", "found %v, expected more than at, %v: the moment is drawn between them", f.Latest, f.At)
		} else if time.Duration(f.Latest) >= length && length > 0 {
			c.add(path+".latest", "found %v, expected a moment before the end of the scenario's load, %v", f.Latest, Duration(length))
		} else if f.For > 0 && time.Duration(f.Latest+f.For) > length && length > 0 {
			c.add(path+".for", "found %v from %v on at the latest, expected the fault to be over before the scenario's load is, at %v", f.For, f.Latest, Duration(length))
		}
	}
	if f.After != "" {
		c.word(path+".after", f.After, AfterPrevious)
		if first {
			c.add(path+".after", "found %s for the first fault, expected another one before it", f.After)
		}
	}
	if f.At < 0 || time.Duration(f.At) >= length && length > 0 {
		c.add(path+".at", "found %v, expected a moment before the end of the scenario's load, %v", f.At, Duration(length))
	} else if end := f.At + f.For; f.For > 0 && time.Duration(end) > length && length > 0 {
		c.add(path+".for", "found %v from %v on, expected the fault to be over before the scenario's load is, at %v", f.For, f.At, Duration(length))
	}
	c.repeated(path+".repeat", f, kind, length)
	c.lasts(path+".within", f.Within, 1, maxTimeout)
	if f.Notice >= f.Within && f.Within > 0 && f.Notice > 0 {
		c.add(path+".notice", "found %v, expected less than within, %v, which bounds the wait for its end", f.Notice, f.Within)
	}
	c.victim(path, f, kind, known)
	if known {
		c.parameters(path, f, kind)
	}
}

func (c *checker) victim(path string, f Fault, kind FaultKind, known bool) {
	if known && !kind.Replica && !(kind.Device && f.Target != "") {
		if f.Target != "" {
			c.add(path+".target", "found %s, expected none: %s has only one victim", quoted(f.Target), f.Kind)
		}
		if f.MinStreams != 0 {
			c.add(path+".min_streams", "found %d, expected none: %s does not strike a replica", f.MinStreams, f.Kind)
		}
		return
	}
	victims := append([]string{VictimBusiest, VictimRandom}, c.replicas...)
	misspelled := !strings.Contains(f.Target, "-") && nearest(f.Target, victims) != "" // such as bussiest
	switch at := path + ".target"; {
	case slices.Contains(victims, f.Target):
	case c.replicas != nil || misspelled:
		c.word(at, f.Target, victims...)
	case !objectName.MatchString(f.Target) || len(f.Target) > maxObjectName:
		c.add(at, "found %s, expected %s, %s or the name of a replica: up to %d lower-case letters, digits, - and ., beginning and ending with a letter or digit", quoted(f.Target), VictimBusiest, VictimRandom, maxObjectName)
	}
	c.between(path+".min_streams", f.MinStreams, 0, maxMinStreams)
}

func (c *checker) parameters(path string, f Fault, kind FaultKind) {
	for _, p := range f.parameters() {
		switch at := path + "." + p.key; {
		case !p.given && slices.Contains(kind.Needs, p.key):
			c.add(at, "missing key %q, which %s needs", p.key, kind.Name)
		case p.given && !slices.Contains(kind.Needs, p.key) && !slices.Contains(kind.May, p.key):
			c.add(at, "%s has no %s; %s", kind.Name, p.key, kind.takes())
		case p.given:
			p.check(c, at)
		}
	}
}

// takes says which parameters a kind has.
func (k FaultKind) takes() string {
	all := append(slices.Clone(k.Needs), k.May...)
	if len(all) == 0 {
		return "it has no parameters"
	}
	return fmt.Sprintf("it has %s", strings.Join(all, ", "))
}
