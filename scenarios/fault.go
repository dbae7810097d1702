package scenarios

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// faultKind is what a fault of a kind is told with, besides kind, at and
// within, which all have.
type faultKind struct {
	name    string
	replica bool     // it strikes a replica: target and min_streams choose it
	needs   []string // keys it cannot do without
	may     []string // keys it may have
}

// faultKinds are the faults a scenario may inject. chaos knows how each is
// done.
var faultKinds = []faultKind{
	{name: "pod-kill", replica: true},
	{name: "pod-hang", replica: true, needs: []string{"for"}},
	{name: "pod-slow", replica: true, needs: []string{"for", "cores"}},
	{name: "gateway-kill"},
	{name: "node-loss", replica: true, may: []string{"for", "disk"}},
	{name: "spot-preemption", replica: true, needs: []string{"notice"}, may: []string{"for"}},
	{name: "network-delay", replica: true, needs: []string{"for", "delay"}},
	{name: "network-loss", replica: true, needs: []string{"for", "loss"}},
	{name: "network-bandwidth", replica: true, needs: []string{"for", "bandwidth"}},
	{name: "node-partition", replica: true, needs: []string{"for"}, may: []string{"cut"}},
	{name: "cpu-stress", needs: []string{"for", "cores"}},
	{name: "memory-pressure", replica: true, needs: []string{"for", "memory"}},
	{name: "gpu-oom", needs: []string{"for", "memory"}},
	{name: "kv-exhaustion", replica: true, needs: []string{"for"}},
	{name: "certificate-expiry", needs: []string{"for"}},
	{name: "ledger-loss", may: []string{"for"}},
	{name: "disk-full", needs: []string{"for"}},
	{name: "clock-skew", replica: true, needs: []string{"for", "skew"}},
	{name: "bad-release", needs: []string{"release"}},
}

// FaultKinds are the names of the faults a scenario may inject.
var FaultKinds = namesOf(faultKinds, func(k faultKind) string { return k.name })

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
	maxCores   = 1024
	maxSize    = Size(1 << 40)
	minRateCut = Size(256) // bytes a second: below it not even a health check gets through
	maxDelay   = Duration(time.Minute)
	minSkew    = Offset(5 * time.Second) // a Date has whole seconds
	maxSkew    = Offset(maxDuration)
)

func kindOf(name string) (faultKind, bool) {
	i := slices.IndexFunc(faultKinds, func(k faultKind) bool { return k.name == name })
	if i < 0 {
		return faultKind{}, false
	}
	return faultKinds[i], true
}

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
		{"memory", f.Memory != 0, func(c *checker, path string) { c.size(path, f.Memory, 64<<10) }},
	}
}

func (c *checker) size(path string, s, least Size) {
	if s < least || s > maxSize {
		c.add(path, "found %v, expected a size from %v to %v", s, least, maxSize)
	}
}

// fault checks a fault by what its kind is told with.
func (c *checker) fault(path string, first bool, f Fault, length time.Duration) {
	kind, known := kindOf(f.Kind)
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
	c.lasts(path+".within", f.Within, 1, maxTimeout)
	if f.Notice >= f.Within && f.Within > 0 && f.Notice > 0 {
		c.add(path+".notice", "found %v, expected less than within, %v, which bounds the wait for its end", f.Notice, f.Within)
	}
	c.victim(path, f, kind, known)
	if known {
		c.parameters(path, f, kind)
	}
}

func (c *checker) victim(path string, f Fault, kind faultKind, known bool) {
	if known && !kind.replica {
		if f.Target != "" {
			c.add(path+".target", "found %s, expected none: %s has only one victim", quoted(f.Target), f.Kind)
		}
		if f.MinStreams != 0 {
			c.add(path+".min_streams", "found %d, expected none: %s does not strike a replica", f.MinStreams, f.Kind)
		}
		return
	}
	if !replicaName.MatchString(f.Target) {
		c.word(path+".target", f.Target, VictimBusiest, VictimRandom, "replica-0")
	}
	c.between(path+".min_streams", f.MinStreams, 0, maxMinStreams)
}

func (c *checker) parameters(path string, f Fault, kind faultKind) {
	for _, p := range f.parameters() {
		switch at := path + "." + p.key; {
		case !p.given && slices.Contains(kind.needs, p.key):
			c.add(at, "missing key %q, which %s needs", p.key, kind.name)
		case p.given && !slices.Contains(kind.needs, p.key) && !slices.Contains(kind.may, p.key):
			c.add(at, "%s has no %s; %s", kind.name, p.key, kind.takes())
		case p.given:
			p.check(c, at)
		}
	}
}

// takes says which parameters a kind has.
func (k faultKind) takes() string {
	all := append(slices.Clone(k.needs), k.may...)
	if len(all) == 0 {
		return "it has no parameters"
	}
	return fmt.Sprintf("it has %s", strings.Join(all, ", "))
}
