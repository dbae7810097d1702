package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/launchgate/launchgate/chaos"
	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/loadgen"
	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/scenarios"
)

// target is what the conductor needs of a service; faults ask it for more.
type target interface {
	URL() string
	Stop()
}

// describe writes what the run is, before anything is started.
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
		Version: c.Version, StartedAt: c.clock.Start().UTC().Round(0), Command: c.Command, Seed: c.Gate.Seed,
		Host: recording.Host{
			OS: runtime.GOOS, Arch: runtime.GOARCH, CPU: cpuModel(), Cores: runtime.NumCPU(),
			MemoryBytes: memoryBytes(), Go: runtime.Version(),
		},
		Target: recording.Target{Kind: "endpoint"},
	}
	if l := c.Gate.Target.Local; l != nil {
		env.Target = recording.Target{Kind: "local", Replicas: l.Replicas, Model: l.Model}
		if !l.Gateway.Plain {
			env.Target.Allowance = deploy.AllowanceFor(c.Gate).Told()
		}
	}
	if e := c.Gate.Target.Endpoint; e != nil {
		env.Target.URL, env.Target.Model = e.URL, e.Model
	}
	if c.target != nil {
		env.Target.URL = c.target.URL()
	}
	if local, ok := c.target.(*deploy.Local); ok {
		env.Target.Watched = local.Watched()
	}
	if c.client != nil {
		env.Target.Model, env.Target.Protocol = c.client.Model(), c.client.Protocol()
	}
	return env
}

// deploy brings the target up, or points at it, and makes sure that it
// answers.
func (c *conductor) deploy(ctx context.Context) error {
	if l := c.Gate.Target.Local; l != nil {
		return c.deployLocal(ctx, *l)
	}
	e := c.Gate.Target.Endpoint
	c.say("asking %s whether it serves", e.URL)
	endpoint, err := deploy.OpenEndpoint(e.URL, chaos.NeedsLinks(c.Gate))
	if err != nil {
		return err
	}
	c.target = endpoint
	if endpoint.Via() != "" {
		c.say("its network is broken in this gate: every request goes through a TCP proxy of launchgate's")
	}
	return c.connect(ctx, *e, endpoint.Via())
}

func (c *conductor) deployLocal(ctx context.Context, spec scenarios.Local) error {
	c.say("starting %d replicas and a gateway", spec.Replicas)
	if chaos.NeedsDisk(c.Gate) {
		release, err := chaos.OwnDisk(c.journal, deploy.LedgerFolder(c.rec.LogDir()), chaos.DiskFor(c.Gate))
		if err != nil {
			return fmt.Errorf("a disk for the ledger alone, for disk-full: %w", err)
		}
		c.made = append(c.made, release)
	}
	var nodes []*deploy.Node
	if chaos.NeedsNodes(c.Gate) {
		var release func() error
		var err error
		if nodes, release, err = chaos.OwnNodes(c.journal, deploy.CountNodes(spec)); err != nil {
			return fmt.Errorf("networks for the simulated nodes: %w", err)
		}
		c.made = append(c.made, release)
	}
	local, endpoint, err := startLocal(ctx, c.Gate, deploy.Setup{Server: c.Server, LogDir: c.rec.LogDir(), Nodes: nodes, Allow: deploy.AllowanceFor(c.Gate), OnEvent: func(e deploy.Event) {
		c.memory.see(e)
		c.observe(recording.Observation{At: c.clock.At(e.At), Name: e.Name, Subject: e.Subject, Value: e.Value, Text: e.Text})
	}})
	if err != nil {
		return err
	}
	c.target = local
	began := time.Now()
	if err := local.WaitReady(ctx); err != nil {
		return err
	}
	c.say("%d replicas ready behind %s after %.1f s", spec.Replicas, local.URL(), time.Since(began).Seconds())
	return c.connect(ctx, endpoint, "")
}

// startLocal starts the deployment of a gate. Where its gateway asks for keys,
// they are put into the environment, as for a service that was there before:
// the workers and the gates of further runs find them there, and no file holds
// one. Each workload that names a variable of its own is a tenant of its own.
func startLocal(ctx context.Context, gate scenarios.Gate, o deploy.Setup) (*deploy.Local, scenarios.Endpoint, error) {
	spec := *gate.Target.Local
	o.Links = chaos.NeedsLinks(gate)
	var variables []string
	for _, s := range gate.Scenarios {
		for _, class := range s.Mix() {
			v := class.Workload.APIKeyEnv
			if v == "" || slices.Contains(variables, v) {
				continue
			}
			variables = append(variables, v)
			if !spec.Gateway.Keys[v].Limited {
				o.Allow.Tenants = append(o.Allow.Tenants, strings.ToLower(v))
			}
		}
	}
	local, err := deploy.StartLocal(ctx, spec, o)
	if err != nil {
		return nil, scenarios.Endpoint{}, err
	}
	if spec.Gateway.Plain {
		return local, local.Endpoint(""), nil
	}
	// Two deployments may stand at a time, and have two ports.
	mine := "LAUNCHGATE_KEY_" + local.URL()[strings.LastIndexByte(local.URL(), ':')+1:]
	err = os.Setenv(mine, local.Key())
	for _, v := range variables {
		tenant := strings.ToLower(v)
		class := cmp.Or(spec.Gateway.Keys[v].Class, scenarios.DefaultKeyClass)
		key, addErr := local.AddKey(ctx, deploy.KeySpec{ID: tenant, Tenant: tenant, Class: class})
		err = errors.Join(err, addErr, os.Setenv(v, key))
	}
	if err != nil {
		local.Stop()
		return nil, scenarios.Endpoint{}, err
	}
	return local, local.Endpoint(mine), nil
}

// connect makes the client and has it ask the service for one small answer,
// so that a wrong URL, key or model is one clear sentence and not a thousand
// failed requests. What is connected to in its place is via, if not empty.
func (c *conductor) connect(ctx context.Context, e scenarios.Endpoint, via string) error {
	cl, err := loadgen.Connect(e, via)
	if err != nil {
		return err
	}
	if err := c.Material.Keys(c.Gate); err != nil {
		return err
	}
	for _, s := range c.Gate.Scenarios {
		for _, class := range s.Mix() {
			if _, err := cl.By(client.Connection(class.Workload.Connection)); err != nil {
				return fmt.Errorf("scenario %s: %w", s.Name, err)
			}
		}
	}
	first := c.Gate.Scenarios[0]
	if err := cl.Preflight(ctx, loadgen.NewPlan(first, SeedFor(c.Gate, first.Name), c.Material).Warmup(0).Prompt); err != nil {
		return fmt.Errorf("the target does not serve: %w", err)
	}
	if err := c.Material.Learn(ctx, c.Gate, cl); err != nil {
		return err
	}
	if how := c.Material.Vocabulary.How; how != "" {
		c.say("tokens of prompts are counted %s", how)
		c.observe(recording.Observation{At: c.clock.Now(), Name: recording.ObsTokensCounted, Text: how})
	}
	c.client = cl
	if c.Workers > 0 {
		if err := c.recruit(ctx, e, via); err != nil {
			return fmt.Errorf("the workers: %w", err)
		}
	}
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

// Version is what this program was built from.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version, dirty := info.Main.Version, ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && (version == "" || version == "(devel)"):
			version = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+changes"
		}
	}
	if strings.HasSuffix(version, "+dirty") {
		dirty = ""
	}
	return version + dirty
}
