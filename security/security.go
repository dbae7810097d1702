// Package security finds out what a hostile tenant, or a stranger without a key, can do
// to a service, and checks the files with which it is deployed. Each check runs its
// control first and ends as safe, flaw or unproven. If a check could not look, its
// result is never safe. Results are recorded here, and judged elsewhere.
package security

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Check tests one kind of flaw.
type Check struct {
	Name    string
	Asks    string // the question that it answers
	Control string // what has to work first, so that the result means something
	Flaw    string // what counts as a flaw, and how false alarms are avoided
	Planted string // the switch that plants its flaw, in a test build or in the test service
	Needs   string // what the user has to provide; empty: only the target
	Cap     Cap
	// Disruptive: it may harm the service.
	Disruptive bool

	worst   string                                  // vector of its worst finding
	asked   func(s scenarios.Scan) bool             // whether what it needs is provided; nil: it needs nothing
	offline bool                                    // it checks files, not the service
	connect bool                                    // it needs only connections, no answers
	run     func(ctx context.Context, t *trial) end // runs if the control worked
}

// Cap bounds what a check may send and read, and its time.
type Cap struct {
	Requests int64
	Seconds  float64
	Bytes    int64 // sent and read
}

// Checks is the catalogue, in the order in which the checks run: disruptive ones come
// last.
var Checks = []Check{
	authentication, keyValidation, keyLifetime, tenantObjects, rateLimit, forwardedHeaders,
	billing, prefixCache, chatTemplate, crossSession, systemPrompt, smuggling, tlsCheck, leaks,
	openDoors, headersAndCORS, logInjection,
	costlyRequests, crash, slowConnections, unreadStreams, loadShedding, connectionExhaustion,
	manifests, nginx, gatewayConfig, permissions, knownVulnerabilities,
}

// Options say what to scan.
type Options struct {
	Scan   scenarios.Scan
	Target Target
	// Secrets are removed from evidence, as the keys are.
	Secrets []string
	Version string
	Seed    uint64
	Clock   recording.Clock
	Record  func(recording.ScanResult)
	// Tell receives the progress, for a person to watch.
	Tell func(text string)

	patience time.Duration // of the check slow-connections; 0: slowPatience, which tests shorten
	reply    time.Duration // that the checks of connections wait for another client's answer; 0: othersTimeout, which tests shorten
}

// Target is the service as its clients reach it.
type Target struct {
	URL        string
	Model      string // empty: the first model that it lists
	CAFile     string
	CertFile   string // the certificate that its clients show, and its key; empty: none
	KeyFile    string
	Key        string // of the first tenant
	OtherKey   string // of another tenant
	ExpiredKey string
	RevokedKey string
	Headers    map[string]string
	// Logs are the files and folders to which the service writes its logs.
	Logs []string
}

// Planned are the checks that a scan runs, and the other checks with the reason why
// each is left out.
func Planned(s scenarios.Scan) (made []Check, leftOut map[string]words.Sentence) {
	leftOut = map[string]words.Sentence{}
	for _, c := range Checks {
		switch {
		case len(s.Only) > 0 && !slices.Contains(s.Only, c.Name), slices.Contains(s.Skip, c.Name):
			leftOut[c.Name] = say("the gate leaves this check out")
		case c.Disruptive && !s.AllowDisruptive:
			leftOut[c.Name] = say("the check may harm the service and was not allowed (allow_disruptive, --allow-disruptive)")
		case c.asked != nil && !c.asked(s) && !slices.Contains(s.Only, c.Name):
			leftOut[c.Name] = say("the check needs %s, which was not given", c.Needs)
		default:
			made = append(made, c)
		}
	}
	return made, leftOut
}

// Run runs the scan and records the result of every check. It returns an error only if
// the scan could not begin.
func Run(ctx context.Context, o Options) error {
	made, leftOut := Planned(o.Scan)
	waivers, err := ReadWaivers(o.Scan.Waivers)
	if err != nil {
		return err
	}
	s, err := newSession(o)
	if err != nil {
		return err
	}
	needsService := slices.ContainsFunc(made, func(c Check) bool { return !c.offline })
	if needsService {
		s.learn(ctx)
		s.others = watchOthers(ctx, s)
		defer s.others.stop()
	}
	for _, c := range Checks {
		began := o.Clock.Now()
		if why, left := leftOut[c.Name]; left {
			o.Record(recording.ScanResult{At: o.Clock.Now(), Began: began, Check: c.Name, Outcome: recording.ScanUnproven, LeftOut: true,
				Disruptive: c.Disruptive, Worst: c.Worst(), Why: words.Kept{Sentence: why}})
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		o.Tell(fmt.Sprintf("scan: %s", c.Name))
		r := s.try(ctx, c)
		r.Began, r.At = began, o.Clock.Now()
		for i := range r.Findings {
			r.Findings[i].Waiver = waivers.of(c.Name, r.Findings[i].Fingerprint)
		}
		o.Record(r)
	}
	return ctx.Err()
}

// Worst is the highest score that a finding of the check can have.
func (c Check) Worst() float64 {
	score, _ := Score(c.worst) // a test covers every vector
	return score
}

// try runs one check within its bounds, and observes another client meanwhile.
func (s *session) try(ctx context.Context, c Check) recording.ScanResult {
	t := newTrial(s, c)
	if c.offline {
		return t.result(c.run(ctx, t), nil)
	}
	if why, down := s.down(ctx); down && !c.connect {
		return t.result(unproven("the target was not serving before the check: %s", why), nil)
	}
	within, cancel := context.WithTimeout(ctx, time.Duration(c.Cap.Seconds*float64(time.Second)))
	mark := s.others.mark()
	e := c.run(within, t)
	late := within.Err() != nil
	cancel()
	switch {
	case ctx.Err() != nil:
		e = unproven("the scan was stopped")
	case t.capped() && e.outcome != recording.ScanFlaw:
		e = unproven("the check reached its limit of %s requests and %s bytes", number(c.Cap.Requests), number(c.Cap.Bytes))
	case late && e.outcome == recording.ScanSafe:
		e = unproven("the check did not finish within %s s", number(int64(c.Cap.Seconds)))
	}
	others := s.others.since(mark)
	if c.Disruptive {
		s.settleDown(ctx)
	}
	return t.result(e, others)
}

// say is words.Say with texts of others shortened.
func say(p words.Phrase, args ...any) words.Sentence {
	for i, a := range args {
		switch a := a.(type) {
		case error:
			args[i] = clip(a.Error(), 300)
		case string:
			args[i] = clip(a, 600)
		}
	}
	return words.Say(p, args...)
}
