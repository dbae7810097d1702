package run

import (
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen"
	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/scenarios"
)

// describe writes the environment of the run, before anything is started.
func (c *conductor) describe() error {
	src, err := scenarios.Marshal(c.Gate)
	if err != nil {
		return err
	}
	if err := c.rec.Gate(src); err != nil {
		return err
	}
	return c.rec.Environment(c.environment())
}

func (c *conductor) environment() recording.Environment {
	env := recording.Environment{
		Version: c.Version, StartedAt: c.clock.Start().UTC().Round(0), Command: c.Command, Seed: c.Gate.Seed, Labels: c.Gate.Labels,
		Host: recording.Host{
			OS: runtime.GOOS, Arch: runtime.GOARCH, CPU: cpuModel(), Cores: runtime.NumCPU(),
			MemoryBytes: memoryBytes(), Go: runtime.Version(),
		},
	}
	about := c.plan.About()
	if c.target != nil {
		about = c.target.About()
		env.Target.Watched = words.Kept{Sentence: about.Watched}
	}
	c.describeDevices(&env, about)
	env.Target.Kind, env.Target.URL, env.Target.Model = about.Kind, about.URL, about.Model
	env.Target.Settings = recording.Settings(about.Settings)
	env.Target.Replicas, env.Target.Allowance = about.Replicas, words.Kept{Sentence: about.Allowance}
	if c.client != nil {
		env.Target.Model, env.Target.Protocol = c.client.Model(), words.Kept{Sentence: c.client.Protocol()}
	}
	return env
}

// deploy deploys the target, or connects to it, and makes sure that it answers.
func (c *conductor) deploy(ctx context.Context) error {
	about := c.plan.About()
	if !about.Place.IsZero() {
		c.say("bringing up %s", about.Place)
	} else if about.Replicas > 0 {
		c.say("starting %s and a gateway", replicas(about.Replicas))
	} else {
		c.say("checking whether %s serves", about.URL)
	}
	setup := deploy.Setup{Build: c.Server, LogDir: c.rec.LogDir(), OnEvent: c.event}
	if c.journal != nil {
		setup.Journal = c.journal
	}
	target, err := c.plan.Open(ctx, setup)
	if err != nil {
		return err
	}
	c.target = target
	access := c.target.Access()
	if access.Via != "" {
		c.say("this gate breaks its network, so every request goes through a TCP proxy of launchgate")
	}
	if seating := c.target.About().Seating; seating != nil {
		for _, line := range seating.Describe() {
			c.Tell(Progress{Line: line})
		}
	}
	began := time.Now()
	if err := c.target.WaitReady(ctx); err != nil {
		return err
	}
	if about = c.target.About(); about.Replicas > 0 {
		c.say("%s ready behind %s after %.1f s", replicas(about.Replicas), access.Endpoint.URL, time.Since(began).Seconds())
	}
	return c.connect(ctx, access)
}

// replicas says how many there are.
func replicas(n int) words.Sentence { return words.Count(int64(n), "1 replica", "%d replicas") }

// event records an event of the target.
func (c *conductor) event(e deploy.Event) {
	c.observe(recording.Observation{At: c.clock.At(e.At), Name: e.Name, Subject: e.Subject, Value: e.Value, Text: e.Text, Names: e.Names})
	if !e.Text.IsZero() {
		c.Tell(Progress{Detail: true, Line: words.Say("  %s: %s", e.Subject, e.Text)})
	}
}

// connect makes the client and sends one small request, so that a wrong URL, key or
// model gives one clear error and not a thousand failed requests.
func (c *conductor) connect(ctx context.Context, to deploy.Access) error {
	issued := maps.Clone(c.Keys)
	if issued == nil {
		issued = map[string]string{}
	}
	maps.Copy(issued, to.Keys)
	c.keys = loadgen.KeysFor(c.Gate, to.Endpoint, issued)
	cl, err := loadgen.Connect(to.Endpoint, to.Via, c.keys)
	if err != nil {
		return err
	}
	if file := to.Endpoint.Tokenizer; file != "" {
		if err := cl.CountWith(file); err != nil {
			return err
		}
	}
	if err := c.Material.Keys(c.Gate, c.keys); err != nil {
		return err
	}
	for _, s := range c.Gate.Scenarios {
		for _, class := range s.Mix() {
			if _, err := cl.By(client.Connection(class.Workload.Connection)); err != nil {
				return words.Errorf("scenario %s: %s", s.Name, err)
			}
		}
	}
	if len(c.Gate.Scenarios) == 0 { // the scan has its own control, which reports a service that does not work
		c.client = cl
		return c.rec.Environment(c.environment())
	}
	first := c.Gate.Scenarios[0]
	if through := cl.Proxy(); through != "" {
		c.say("requests go through the proxy %s from the environment", through)
	}
	patience := client.Patience{Ready: time.Duration(to.Endpoint.ReadyTimeout), Tell: c.say}
	if err := cl.Preflight(ctx, loadgen.NewPlan(first, SeedFor(c.Gate, first.Name), c.Material).Warmup(0).Prompt, patience); err != nil {
		return words.Errorf("the target is not serving: %s", err)
	}
	if err := c.Material.Learn(ctx, c.Gate, cl); err != nil {
		return err
	}
	if how := c.Material.Vocabulary.How; !how.IsZero() {
		c.say("the tokens of prompts are counted %s", how)
		c.observe(recording.Observation{At: c.clock.Now(), Name: recording.ObsTokensCounted, Text: how})
	}
	c.client = cl
	return c.rec.Environment(c.environment())
}

func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, " \t:"))
		}
	}
	return ""
}

func memoryBytes() int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	var kib int64
	if _, err := fmt.Sscanf(string(b), "MemTotal: %d kB", &kib); err != nil {
		return 0
	}
	return kib << 10
}
