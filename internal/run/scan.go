package run

import (
	"context"
	"fmt"
	"os"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
	"github.com/launchgate/launchgate/security"
)

// scan makes the gate's security scan, when the scenarios are over: what it may
// harm was measured before.
func (c *conductor) scan(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s, target, err := c.scanned(ctx)
	if err != nil {
		return fmt.Errorf("the security scan: %w", err)
	}
	made, _ := security.Planned(s)
	c.observe(recording.Observation{At: c.clock.Now(), Name: recording.ObsScanStarted, Value: float64(len(made))})
	ended := 0
	err = security.Run(ctx, security.Options{
		Scan: s, Target: target, Version: c.Version, Seed: SeedFor(c.Gate, "security scan"), Clock: c.clock,
		Record: func(r recording.ScanResult) { ended++; c.rec.Scan(r) },
		Tell:   func(text string) { c.say("%s", text) },
	})
	if err != nil {
		return fmt.Errorf("the security scan: %w", err)
	}
	c.observe(recording.Observation{At: c.clock.Now(), Name: recording.ObsScanEnded, Value: float64(ended)})
	return c.rec.Flush()
}

// scanned is what is scanned, with the keys. Of a deployment of launchgate's own
// everything is at hand: keys of two tenants who are held to its limits, keys that
// must not work, its logs, its configuration and its ledger.
func (c *conductor) scanned(ctx context.Context) (scenarios.Scan, security.Target, error) {
	s := *c.Gate.Scan
	if e := c.Gate.Target.Endpoint; e != nil {
		return s, security.Target{
			URL: e.URL, Model: e.Model, CAFile: e.CAFile, Headers: e.Headers, Logs: s.Logs,
			Key: os.Getenv(e.APIKeyEnv), OtherKey: os.Getenv(s.OtherKeyEnv), ExpiredKey: os.Getenv(s.ExpiredKeyEnv), RevokedKey: os.Getenv(s.RevokedKeyEnv),
		}, nil
	}
	local, ok := c.target.(*deploy.Local)
	if !ok {
		return s, security.Target{}, fmt.Errorf("found a target that is neither an endpoint nor local")
	}
	at := local.Endpoint("")
	t := security.Target{URL: at.URL, CAFile: at.CAFile}
	if c.client != nil {
		t.Model = c.client.Model()
	}
	if local.Key() == "" { // a plain gateway
		s.Logs = append(s.Logs, local.LogDir())
		t.Logs = s.Logs
		return s, t, nil
	}
	var err error
	for _, k := range []struct {
		tenant string
		into   *string
	}{{"scan-one", &t.Key}, {"scan-other", &t.OtherKey}} {
		if *k.into, err = local.AddKey(ctx, deploy.KeySpec{ID: k.tenant, Tenant: k.tenant, Class: scenarios.DefaultKeyClass}); err != nil {
			return s, t, err
		}
	}
	if t.ExpiredKey, t.RevokedKey, err = local.AddOldKeys(ctx, "scan-one"); err != nil {
		return s, t, err
	}
	// What is named is what a check asks for: these keys are in no variable.
	const here = "of the deployment itself"
	s.OtherKeyEnv, s.ExpiredKeyEnv, s.RevokedKeyEnv = here, here, here
	s.Logs = append(s.Logs, local.LogDir())
	s.Secrets = append(s.Secrets, local.LedgerFolder())
	if s.Gateway == "" {
		s.Gateway = local.Limits()
	}
	t.Logs = s.Logs
	return s, t, nil
}
