package chaos

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/scenarios"
)

const needsLink = "a deployment of launchgate's own (target.local), which then has a TCP proxy of launchgate's in front of every replica; no root; for"

var networkDelay = Kind{
	Name:      "network-delay",
	Does:      "adds a delay to every round trip between the gateway and one replica, half of it each way",
	Needs:     needsLink + ", delay",
	Seen:      "a request through the proxy takes longer by the delay than before; gone when it does not any more",
	Simulates: "a replica in another zone or region, a congested path",
	Example:   "{kind: network-delay, target: replica-0, at: 5s, for: 20s, delay: 200ms}",
	links:     true,
	prepare:   prepareNetwork(delayed),
}

var networkLoss = Kind{
	Name:      "network-loss",
	Does:      "loses a share of the segments between the gateway and one replica, as TCP sees it: what was lost comes again 200 ms later, doubled each time, and all behind it waits",
	Needs:     needsLink + ", loss",
	Seen:      "the proxy counts lost segments, and a request through it took 200 ms longer than before; gone when none are lost and requests are quick again",
	Simulates: "a bad cable, an overloaded switch, wireless",
	Example:   "{kind: network-loss, target: replica-0, at: 5s, for: 20s, loss: 10%}",
	links:     true,
	prepare:   prepareNetwork(lossy),
}

var networkBandwidth = Kind{
	Name:      "network-bandwidth",
	Does:      "lets only so many bytes a second through between the gateway and one replica, each way, all connections together",
	Needs:     needsLink + ", bandwidth",
	Seen:      "a request of known size takes as long as the bandwidth makes it; gone when it is quick again",
	Simulates: "a saturated link, a shaped or metered one",
	Example:   "{kind: network-bandwidth, target: replica-0, at: 5s, for: 20s, bandwidth: 64KiB}",
	links:     true,
	prepare:   prepareNetwork(narrow),
}

var nodePartition = Kind{
	Name:      "node-partition",
	Does:      "cuts the network between the gateway and the node of one replica: silently, so that nothing arrives and nobody is told, or by resets (cut: reset). The kernel still accepts connections to a silent replica",
	Needs:     needsLink,
	Seen:      "a request through the proxy gets no answer, or is refused, while the replica itself still answers beside it; gone when the gateway routes to it again",
	Simulates: "a partition: a failed switch, a wrong firewall rule, a node that only its own kind can still see",
	Example:   "{kind: node-partition, target: busiest, at: 5s, for: 20s, cut: silent}",
	links:     true,
	prepare:   prepareNetwork(cutOff),
}

// linked is what faults of the network need of a target.
type linked interface {
	reachable
	Link(replica string) (*deploy.Link, bool)
	OnNodeOf(replica string) []string
}

// look is how a storm is seen to be in effect: a sentence, and whether it is.
type look func(ctx context.Context, s *storm) (string, bool)

// storm is bad weather on the links of a node or of one replica.
type storm struct {
	target  linked
	victim  string
	all     []string // whose links it is on
	links   []*deploy.Link
	weather deploy.Weather
	ends    []func() // of the weather, once it has begun
	what    string   // in words
	before  time.Duration
	look    look
	padding int
}

// prepareNetwork measures how quick the link is in fine weather.
func prepareNetwork(of func(f scenarios.Fault, s *storm)) func(context.Context, any, scenarios.Fault, uint64) (fault, error) {
	return func(ctx context.Context, target any, f scenarios.Fault, seed uint64) (fault, error) {
		t, ok := target.(linked)
		if !ok {
			return nil, notOurs("its network is not launchgate's to break")
		}
		victim, _, err := chooseVictim(ctx, t, f, seed)
		if err != nil {
			return nil, err
		}
		s := &storm{target: t, victim: victim, all: []string{victim}}
		of(f, s)
		for _, name := range s.all {
			link, ok := t.Link(name)
			if !ok {
				return nil, fmt.Errorf("there is no proxy in front of %s", name)
			}
			s.links = append(s.links, link)
		}
		s.before, err = s.quickest(ctx, 3)
		return s, err
	}
}

// quickest is the quickest of n round trips through the victim's link: the
// others may have waited for a processor.
func (s *storm) quickest(ctx context.Context, n int) (time.Duration, error) {
	var took []time.Duration
	for range n {
		t, err := roundTrip(ctx, s.links[0].Addr(), s.padding, 30*time.Second)
		if err != nil {
			return 0, fmt.Errorf("%s does not answer through its proxy: %w", s.victim, err)
		}
		took = append(took, t)
	}
	return slices.Min(took), nil
}

func (s *storm) Victim() string { return s.victim }

// Undo is nothing: the proxies are in this process, and end with it.
func (s *storm) Undo() []Undo { return nil }

func (s *storm) Inject(context.Context) (sight, error) {
	for _, link := range s.links {
		s.ends = append(s.ends, link.Begin(s.weather))
	}
	return sight{how: fmt.Sprintf("the proxy in front of %s %s", s.victim, s.what)}, nil
}

func (s *storm) SeeInEffect(ctx context.Context) (sight, error) {
	began := time.Now()
	seen, err := until(ctx, pollEvery, func() (string, bool) { return s.look(ctx, s) })
	seen.at = began // it is seen by what it takes away, which takes a while
	return seen, err
}

func (s *storm) Revert(context.Context) (sight, error) {
	for _, end := range s.ends {
		end()
	}
	return sight{how: fmt.Sprintf("the proxy in front of %s does so no more", s.victim)}, nil
}

// SeeGone waits until the link is quick again, as far as a busy machine lets
// one say so.
func (s *storm) SeeGone(ctx context.Context) (sight, error) {
	quick := s.before + max(s.before, 20*time.Millisecond)
	return until(ctx, pollEvery, func() (string, bool) {
		took, err := s.quickest(ctx, 1)
		if err != nil || took > quick {
			return "", false
		}
		for _, name := range s.all {
			if !s.target.Serving(ctx, name) {
				return "", false
			}
		}
		return fmt.Sprintf("a request through the proxy took %s; the gateway routes to %s", round(took), s.victim), true
	})
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

func delayed(f scenarios.Fault, s *storm) {
	delay := time.Duration(f.Delay)
	s.weather, s.what = deploy.Weather{Delay: delay}, fmt.Sprintf("adds %s to every round trip", delay)
	s.look = func(ctx context.Context, s *storm) (string, bool) {
		took, err := s.quickest(ctx, 2)
		return fmt.Sprintf("a request through the proxy took %s, and %s before: %s more", round(took), round(s.before), round(took-s.before)),
			err == nil && took >= s.before/2+delay
	}
}

func lossy(f scenarios.Fault, s *storm) {
	s.weather, s.what = deploy.Weather{Loss: float64(f.Loss)}, fmt.Sprintf("loses %v of the segments, each way", f.Loss)
	s.look = func(ctx context.Context, s *storm) (string, bool) {
		took, err := s.quickest(ctx, 1)
		lost, passed := s.links[0].Counts()
		return fmt.Sprintf("%d of %d segments were lost and came again later; a request through the proxy took %s, and %s before", lost, lost+passed, round(took), round(s.before)),
			err == nil && lost > 0 && took >= s.before/2+200*time.Millisecond
	}
}

// narrow asks with a request that takes half a second at the bandwidth.
func narrow(f scenarios.Fault, s *storm) {
	s.padding = int(min(max(int64(f.Bandwidth)/2, 512), 256<<10))
	least := time.Duration(float64(s.padding) / float64(f.Bandwidth) * float64(time.Second))
	s.weather, s.what = deploy.Weather{Bandwidth: int64(f.Bandwidth)}, fmt.Sprintf("lets %v a second through, each way", f.Bandwidth)
	s.look = func(ctx context.Context, s *storm) (string, bool) {
		took, err := s.quickest(ctx, 1)
		return fmt.Sprintf("a request of %v through the proxy took %s, and %s before", scenarios.Size(s.padding), round(took), round(s.before)),
			err == nil && took >= least && took > s.before
	}
}

func cutOff(f scenarios.Fault, s *storm) {
	s.all = s.target.OnNodeOf(s.victim)
	s.weather = deploy.Weather{Silent: f.Cut == scenarios.CutSilent, Reset: f.Cut == scenarios.CutReset}
	s.what = "lets nothing through, and tells nobody"
	if s.weather.Reset {
		s.what = "breaks every connection, and refuses new ones"
	}
	s.look = func(ctx context.Context, s *storm) (string, bool) {
		_, through := roundTrip(ctx, s.links[0].Addr(), 0, silence)
		took, beside := roundTrip(ctx, s.target.Address(s.victim), 0, time.Second)
		how := fmt.Sprintf("a request through the proxy got no answer in %s", silence)
		if s.weather.Reset {
			how = "a request through the proxy was refused"
		}
		return fmt.Sprintf("%s, and %s itself answered in %s", how, s.victim, round(took)),
			through != nil && beside == nil && refused(through) == s.weather.Reset
	}
}
