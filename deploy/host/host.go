// Package host has the targets that run on this machine, or are reached from it,
// and what faults may do to them by its means: signals, control groups, network
// namespaces, mounts, and proxies of launchgate's own. What is done is told to
// deploy's interfaces alone; nobody else knows of processes and devices.
package host

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// PlanLocal plans the bundled service, which a gate's target.local describes.
func PlanLocal(g scenarios.Gate) deploy.Plan {
	return localPlan{deploy.LocalPlan{Gate: g, Spec: *g.Resolved().Target.Local}}
}

// PlanEndpoint plans a service that is already there.
func PlanEndpoint(g scenarios.Gate) deploy.Plan {
	p := endpointPlan{gate: g}
	if e := g.Target.Endpoint; e != nil {
		p.Spec = *e
	}
	return p
}

type localPlan struct{ deploy.LocalPlan }

// whole are what takes the whole gateway.
var whole = []deploy.Capability{deploy.ExpireCertificate, deploy.LoseLedger, deploy.FillDisk, deploy.RollOutBad}

// machine is what takes more of this machine than every one has: why it cannot.
var machine = map[deploy.Capability]func() error{
	deploy.HangReplica: onLinux,
	deploy.SlowReplica: canGroup("cpu"),
	deploy.LimitMemory: canGroup("memory"),
	deploy.BurnCores:   onLinux,
	deploy.FillDevice:  onLinux,
	deploy.FillCache:   onLinux,
	deploy.FillDisk:    canMount,
	deploy.SkewClock:   canSkew,
}

// Lacks is nil of all that this machine and the gateway allow.
func (p localPlan) Lacks(c deploy.Capability, f scenarios.Fault) error {
	switch can := machine[c]; {
	case p.Spec.Gateway.Plain && slices.Contains(whole, c):
		return needsGateway("it cannot %s", c.Said())
	case p.Spec.Gateway.Plain && f.Disk == scenarios.DiskLost:
		return needsGateway("it has no disk with a ledger that could be lost")
	case can != nil:
		return can()
	}
	return nil
}

// Open prepares this machine for the faults of the gate, and starts the
// deployment.
func (p localPlan) Open(ctx context.Context, o deploy.Setup) (deploy.Target, error) {
	ground, release, err := p.ground(o)
	l := &Local{plan: p, release: release}
	if err == nil {
		l.Local, err = p.Start(ctx, o, ground)
	}
	if err != nil {
		return nil, errors.Join(err, l.takeAway())
	}
	return l, nil
}

// ground gives the deployment a disk for its ledger alone, networks for its
// nodes, and links, where the gate's faults need them. What is made is taken away
// by release, also after an error.
func (p localPlan) ground(o deploy.Setup) (ground deploy.Ground, release []func() error, err error) {
	ground.Links = needsLinks(p.Gate)
	if o.Journal == nil {
		return ground, nil, nil
	}
	if needsDisk(p.Gate, p.Spec) {
		back, err := OwnDisk(o.Journal, deploy.LedgerFolder(o.LogDir), DiskFor(p.Gate))
		if err != nil {
			return ground, nil, words.Errorf("a disk for the ledger alone, for disk-full: %s", err)
		}
		release = append(release, back)
	}
	if needsNodes(p.Gate) {
		nodes, back, err := OwnNodes(o.Journal, deploy.CountNodes(p.Spec))
		if err != nil {
			return ground, release, words.Errorf("networks for the simulated nodes: %s", err)
		}
		ground.Nodes = nodes
		release = append(release, back)
	}
	return ground, release, nil
}

// Local is the bundled service on this machine, with what faults may do to it.
type Local struct {
	*deploy.Local
	plan    localPlan
	release []func() error // of what it was given of the machine
}

// Lacks is what its plan lacks.
func (l *Local) Lacks(c deploy.Capability, f scenarios.Fault) error { return l.plan.Lacks(c, f) }

// Stop stops the deployment, and takes away what it was given of the machine.
func (l *Local) Stop() error {
	l.Local.Stop()
	return l.takeAway()
}

func (l *Local) takeAway() (err error) {
	for _, release := range l.release {
		err = errors.Join(err, release())
	}
	return err
}

type endpointPlan struct {
	deploy.EndpointPlan
	gate scenarios.Gate
}

// Lacks is why it lacks all but its network, in front of which a proxy can stand.
func (endpointPlan) Lacks(c deploy.Capability, f scenarios.Fault) error {
	switch {
	case c != deploy.ShapeNetwork:
		return notOurs("it cannot %s", c.Said())
	case f.MinStreams > 0:
		return notOurs("its streams in flight are not known, and min_streams cannot be waited for")
	}
	return nil
}

func (p endpointPlan) Open(_ context.Context, o deploy.Setup) (deploy.Target, error) {
	e, err := deploy.OpenEndpoint(p.Spec, p.gate.AnyFault(func(_ scenarios.Fault, k scenarios.FaultKind) bool { return k.Network != "" }))
	if err != nil {
		return nil, err
	}
	return onEndpoint(e, p)
}

func lack(p words.Phrase, args ...any) error { return deploy.Lack{Reason: words.Say(p, args...)} }

// notOurs is why faults need a deployment of launchgate's own.
func notOurs(what words.Phrase, args ...any) error {
	return lack("launchgate did not deploy this target, so %s; use target.local, or break it by other means", words.Say(what, args...))
}

// needsGateway is why faults need the whole gateway.
func needsGateway(what words.Phrase, args ...any) error {
	return lack("the gateway of this target is plain, so %s; take plain out of target.local.gateway", words.Say(what, args...))
}

// byHandWithin bounds what has to be taken back by hand.
const byHandWithin = 15 * time.Second

// pollEvery is how often a condition is looked at while it is waited for.
const pollEvery = 10 * time.Millisecond

// sight is what is seen of an effect.
type sight = deploy.Sight

// crowd is how a deployment is asked who serves.
type crowd = deploy.Crowd

// until looks every so often until see saw something, or ctx ends.
func until(ctx context.Context, every time.Duration, see func() (words.Sentence, bool)) (sight, error) {
	for {
		if how, ok := see(); ok {
			return sight{How: how}, nil
		}
		if err := sleep(ctx, every); err != nil {
			return sight{}, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
