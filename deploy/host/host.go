// Package host has the targets that run on this machine or are reached from it.
// It carries out their faults with signals, control groups, network namespaces,
// mounts and launchgate's own proxies. Other packages use it through the
// interfaces of deploy, which do not mention processes or devices.
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

// PlanEndpoint plans an existing service.
func PlanEndpoint(g scenarios.Gate) deploy.Plan {
	p := endpointPlan{gate: g}
	if e := g.Target.Endpoint; e != nil {
		p.Spec = *e
	}
	return p
}

type localPlan struct{ deploy.LocalPlan }

// whole are the capabilities that need the whole gateway, with its ledger and
// TLS.
var whole = []deploy.Capability{deploy.ExpireCertificate, deploy.LoseLedger, deploy.FillDisk, deploy.RollOutBad}

// machine has, for each capability that not every machine supports, the
// function that says why this machine does not.
var machine = map[deploy.Capability]func() error{
	deploy.HangReplica:    onLinux,
	deploy.SlowReplica:    canGroup("cpu"),
	deploy.LimitMemory:    canGroup("memory"),
	deploy.BurnCores:      onLinux,
	deploy.FillDevice:     onLinux,
	deploy.FillCache:      onLinux,
	deploy.ThrottleDevice: canThrottle,
	deploy.FillDisk:       canMount,
	deploy.SkewClock:      canSkew,
}

// Lacks returns nil for every capability that this machine and the gateway
// allow.
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

// ground gives the deployment what the gate's faults need: a disk for its
// ledger, networks for its nodes, and links. release removes what was made,
// also after an error.
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

// Local is the bundled service on this machine, with the effects of its faults.
type Local struct {
	*deploy.Local
	plan    localPlan
	release []func() error // removes what ground made
}

// Lacks is what its plan lacks.
func (l *Local) Lacks(c deploy.Capability, f scenarios.Fault) error { return l.plan.Lacks(c, f) }

// Stop stops the deployment and removes what ground made for it.
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

// Lacks gives the reason for every capability except ShapeNetwork, for which a
// proxy stands in front of the service.
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

// notOurs is the error of faults that need a deployment started by launchgate.
func notOurs(what words.Phrase, args ...any) error {
	return lack("launchgate did not deploy this target, so %s; use target.local, or break it by other means", words.Say(what, args...))
}

// needsGateway is the error of faults that need the whole gateway.
func needsGateway(what words.Phrase, args ...any) error {
	return lack("the gateway of this target is plain, so %s; take plain out of target.local.gateway", words.Say(what, args...))
}

// byHandWithin bounds the time to undo a fault by hand.
const byHandWithin = 15 * time.Second

// pollEvery is how often until checks a condition.
const pollEvery = 10 * time.Millisecond

// sight is what was seen of an effect.
type sight = deploy.Sight

// crowd reports which replicas of a deployment serve.
type crowd = deploy.Crowd

// until calls see periodically until it reports true or ctx ends.
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
