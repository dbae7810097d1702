package host

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// linked is what a target must offer for faults of the network.
type linked interface {
	crowd
	onNode
	Address(replica string) string
	Serving(ctx context.Context, replica string) bool
	Link(replica string) (*deploy.Link, bool)
	OnNodeOf(replica string) []string
}

// look reports whether a network fault is in effect, with a sentence that says
// how that was seen.
type look func(ctx context.Context, s *networkFault) (words.Sentence, bool)

// networkFault impairs the links of a node or of one replica.
type networkFault struct {
	target     linked
	from       dialer       // makes connections that pass the impairment; nil: any connection does
	onHost     error        // why the victim has no node
	most       int          // the most bytes that a request may have
	serves     words.Phrase // what it means that the victim serves
	victim     string
	all        []string     // the replicas whose links are impaired
	node       *deploy.Node // the node whose veth is impaired; nil: the proxies play the fault
	links      []*deploy.Link
	impairment deploy.Impairment
	ends       []func() error // end the impairment, once it has begun
	played     words.Sentence // what plays the fault
	over       words.Sentence // the network that requests use
	what       words.Sentence
	before     time.Duration
	look       look
	padding    int
	seen       bool // it was in effect
}

// ShapeNetwork breaks the network between the gateway and a replica.
func (l *Local) ShapeNetwork(ctx context.Context, v deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
	s := &networkFault{target: l.Local, onHost: words.Errorf("its node has no network of its own"), most: 256 << 10, serves: "the gateway routes to %s"}
	return s.prepare(ctx, v, f)
}

// ShapeNetwork breaks the network between the load and the service.
func (e *Endpoint) ShapeNetwork(ctx context.Context, v deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
	s := &networkFault{target: e, from: e.through, onHost: words.Errorf("launchgate did not deploy it"), most: mostPadding, serves: "%s answers"}
	return s.prepare(ctx, v, f)
}

// prepare measures how quick the link is before the impairment.
func (s *networkFault) prepare(ctx context.Context, v deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
	s.victim, s.all = v.Replica, []string{v.Replica}
	if err := s.findMeans(meansOf(f), f); err != nil {
		return nil, err
	}
	switch {
	case f.Delay > 0:
		delayed(f, s)
	case f.Loss > 0:
		lossy(f, s)
	case f.Bandwidth > 0:
		narrow(f, s)
	default:
		cutOff(f, s)
	}
	var err error
	s.before, err = s.quickest(ctx, 3)
	return s, err
}

// findMeans chooses the kernel to play the fault if it can, and else the
// proxies.
func (s *networkFault) findMeans(m means, f scenarios.Fault) error {
	why := s.onHost
	if s.node = s.target.Node(s.victim); s.node != nil {
		why = m.lacks(kernel(), f)
	}
	if why == nil || m == linkDown {
		s.all = s.target.OnNodeOf(s.victim)
	}
	if why == nil {
		s.played, s.over = words.Say("the kernel, %s of %s", m.said(), strings.Join(s.all, ", ")), words.Say("over the veth")
		return nil
	}
	s.node = nil
	s.played, s.over = words.Say("a proxy in front of %s (%s)", s.victim, why), words.Say("through the proxy")
	for _, name := range s.all {
		link, ok := s.target.Link(name)
		if !ok {
			return words.Errorf("there is no proxy in front of %s", name)
		}
		s.links = append(s.links, link)
	}
	return nil
}

// quickest is the shortest of n round trips through the victim's link. The
// others may have waited for a processor.
func (s *networkFault) quickest(ctx context.Context, n int) (time.Duration, error) {
	var took []time.Duration
	for range n {
		t, err := s.across(ctx, 30*time.Second)
		if err != nil {
			return 0, words.Errorf("%s does not answer %s: %s", s.victim, s.over, err)
		}
		took = append(took, t)
	}
	return slices.Min(took), nil
}

// across is how long a request takes that passes the impairment.
func (s *networkFault) across(ctx context.Context, within time.Duration) (time.Duration, error) {
	_, took, err := health(ctx, s.from, s.target.Path(s.victim), s.padding, within)
	return took, err
}

func (s *networkFault) Victim() string { return s.victim }

// Undo has nothing to do for the proxies: they are in this process and end with
// it.
func (s *networkFault) Undo() []deploy.Undo { return undoNode(s.node) }

// undoNode removes the veth of a node with all its queues.
func undoNode(n *deploy.Node) []deploy.Undo {
	if n == nil {
		return nil
	}
	return []deploy.Undo{undoing(undoLink, object{Path: n.Name()})}
}

func (s *networkFault) Inject(context.Context) (sight, error) {
	if s.node != nil {
		end, err := s.node.Begin(s.impairment)
		s.ends = append(s.ends, end)
		if err != nil {
			return sight{}, err
		}
	}
	for _, link := range s.links {
		end := link.Begin(s.impairment)
		s.ends = append(s.ends, func() error { end(); return nil })
	}
	return sight{How: words.Say("by %s: %s", s.played, s.what)}, nil
}

func (s *networkFault) SeeInEffect(ctx context.Context) (sight, error) {
	began := time.Now()
	seen, err := until(ctx, pollEvery, func() (words.Sentence, bool) { return s.look(ctx, s) })
	seen.At = began // the effect is seen by missing answers, which takes a while
	s.seen = s.seen || err == nil
	return seen, err
}

func (s *networkFault) Revert(context.Context) (sight, error) {
	for _, end := range s.ends {
		if err := end(); err != nil {
			return sight{}, err
		}
	}
	if s.node != nil {
		return sight{How: words.Say("the veth of %s is as it was", strings.Join(s.all, ", "))}, nil
	}
	return sight{How: words.Say("the proxy in front of %s passes everything on again", s.victim)}, nil
}

// SeeGone waits until the link is about as quick as before. It allows for a
// busy machine.
func (s *networkFault) SeeGone(ctx context.Context) (sight, error) {
	quick := s.before + max(s.before, 20*time.Millisecond)
	return until(ctx, pollEvery, func() (words.Sentence, bool) {
		took, err := s.quickest(ctx, 1)
		if err != nil || took > quick {
			return words.Sentence{}, false
		}
		for _, name := range s.all {
			if !s.target.Serving(ctx, name) {
				return words.Sentence{}, false
			}
		}
		return words.Say("a request %s took %s; %s", s.over, round(took), words.Say(s.serves, s.victim)), true
	})
}

// counts returns the packets that were lost on the victim's link and those that
// passed.
func (s *networkFault) counts() (lost, passed int64) {
	if s.node != nil {
		return s.node.Counts()
	}
	return s.links[0].Counts()
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

func delayed(f scenarios.Fault, s *networkFault) {
	delay := time.Duration(f.Delay)
	s.impairment, s.what = deploy.Impairment{Delay: delay}, words.Say("adds %s to every round trip", delay)
	s.look = func(ctx context.Context, s *networkFault) (words.Sentence, bool) {
		took, err := s.quickest(ctx, 2)
		return words.Say("a request %s took %s, and %s before: %s more", s.over, round(took), round(s.before), round(took-s.before)),
			err == nil && took >= s.before/2+delay
	}
}

func lossy(f scenarios.Fault, s *networkFault) {
	s.impairment, s.what = deploy.Impairment{Loss: float64(f.Loss)}, words.Say("loses %v of the packets, each way", f.Loss)
	s.look = func(ctx context.Context, s *networkFault) (words.Sentence, bool) {
		took, err := s.quickest(ctx, 1)
		lost, passed := s.counts()
		return words.Say("%d of %d packets were lost and came again later; a request %s took %s, and %s before", lost, lost+passed, s.over, round(took), round(s.before)),
			err == nil && lost > 0 && took >= s.before/2+200*time.Millisecond
	}
}

// narrow sees a limited bandwidth by a request that takes half a second at that
// bandwidth. The request is longer if the kernel's burst would let it pass at
// once.
func narrow(f scenarios.Fault, s *networkFault) {
	bandwidth, atOnce := int64(f.Bandwidth), int64(0)
	s.padding = min(max(int(bandwidth/2), 512), s.most)
	if s.node != nil {
		atOnce = deploy.Burst(bandwidth)
		s.padding = max(s.padding, int(2*atOnce))
	}
	least := time.Duration(float64(int64(s.padding)-atOnce) / float64(bandwidth) * float64(time.Second))
	s.impairment, s.what = deploy.Impairment{Bandwidth: bandwidth}, words.Say("lets %v a second through, each way", f.Bandwidth)
	s.look = func(ctx context.Context, s *networkFault) (words.Sentence, bool) {
		patience := 30 * time.Second
		if s.seen { // queued data could delay the request for as long as the fault lasts
			patience = 2*least + time.Second
		}
		took, err := s.across(ctx, patience)
		if s.seen && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			how := words.Say("a request %s got no answer in %s", s.over, round(patience))
			took, err := s.beside(ctx)
			return words.Say("%s, and %s itself answered in %s", how, s.victim, round(took)), err == nil
		}
		return words.Say("a request of %v %s took %s, and %s before: %.1f KiB a second", scenarios.Size(s.padding), s.over, round(took), round(s.before), float64(s.padding)/1024/took.Seconds()),
			err == nil && took >= least && took > s.before
	}
}

func cutOff(f scenarios.Fault, s *networkFault) {
	s.impairment = deploy.Impairment{Silent: f.Cut != scenarios.CutReset, Reset: f.Cut == scenarios.CutReset}
	s.what = words.Say("drops every packet, so that neither side notices")
	if s.impairment.Reset {
		s.what = words.Say("resets every connection, and refuses new ones")
	}
	s.look = func(ctx context.Context, s *networkFault) (words.Sentence, bool) {
		_, through := s.across(ctx, silence)
		took, beside := s.beside(ctx)
		how := words.Say("a request %s got no answer in %s", s.over, silence)
		if s.impairment.Reset {
			how = words.Say("a request %s was refused", s.over)
		}
		if s.node != nil {
			how = words.Say("a connection made now does not get through (%s)", through)
		}
		return words.Say("%s, and %s itself answered in %s", how, s.victim, round(took)),
			through != nil && beside == nil && refused(through) == s.impairment.Reset
	}
}

// beside sends the victim a request that does not pass the impairment: it goes
// around the proxy, or starts within the victim's node.
func (s *networkFault) beside(ctx context.Context) (time.Duration, error) {
	if s.node == nil {
		return roundTrip(ctx, s.target.Address(s.victim), 0, time.Second)
	}
	_, took, err := health(ctx, s.node.DialContext, s.target.Address(s.victim), 0, time.Second)
	return took, err
}
