package run

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
	"github.com/launchgate/launchgate/security"
)

// scan runs the gate's security scan after the scenarios, so that a disruptive check
// cannot affect their measurements.
func (c *conductor) scan(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s, target, err := c.scanned(ctx)
	if err != nil {
		return words.Errorf("the security scan: %s", err)
	}
	if len(s.Binaries) > 0 {
		if err := c.bill(s.Binaries); err != nil {
			return words.Errorf("the security scan: %s", err)
		}
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
		return words.Errorf("the security scan: %s", err)
	}
	c.observe(recording.Observation{At: c.clock.Now(), Name: recording.ObsScanEnded, Value: float64(ended)})
	return c.rec.Flush()
}

// bill writes the list of the modules that the programs are made of.
func (c *conductor) bill(binaries []string) error {
	f, err := os.OpenFile(filepath.Join(c.Dir, "sbom.cdx.json"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(security.SBOM(f, binaries), f.Close())
}

// tenanted is a target deployed by launchgate whose gateway requires keys. It can issue
// keys for the scan, and the checks can read its files.
type tenanted interface {
	Key() string // empty: its gateway requires none
	AddKey(ctx context.Context, k deploy.KeySpec) (string, error)
	AddOldKeys(ctx context.Context, tenant string) (expired, revoked string, err error)
	LedgerFolder() string
	Limits() string
}

// scanned is the scan with its target and the keys. For a deployment of launchgate
// these are the keys of two tenants with its usual limits, and two keys that must not
// work.
func (c *conductor) scanned(ctx context.Context) (scenarios.Scan, security.Target, error) {
	s := *c.Gate.Scan
	at := c.target.Access().Endpoint
	t := security.Target{URL: at.URL, Model: at.Model, CAFile: at.CAFile, CertFile: at.CertFile, KeyFile: at.KeyFile, Headers: at.Headers}
	if c.client != nil {
		t.Model = c.client.Model()
	}
	own, ok := c.target.(tenanted)
	if !ok {
		t.Logs = s.Logs
		t.Key = orEnvironment(c.keys, at.APIKeyEnv)
		t.OtherKey, t.ExpiredKey, t.RevokedKey = os.Getenv(s.OtherKeyEnv), os.Getenv(s.ExpiredKeyEnv), os.Getenv(s.RevokedKeyEnv)
		return s, t, nil
	}
	s.Logs = append(slices.Clone(s.Logs), c.rec.LogDir())
	t.Logs = s.Logs
	if own.Key() == "" {
		return s, t, nil
	}
	var err error
	for _, k := range []struct {
		tenant string
		into   *string
	}{{"scan-one", &t.Key}, {"scan-other", &t.OtherKey}} {
		if *k.into, err = own.AddKey(ctx, deploy.KeySpec{ID: k.tenant, Tenant: k.tenant, Class: scenarios.DefaultKeyClass}); err != nil {
			return s, t, err
		}
	}
	if t.ExpiredKey, t.RevokedKey, err = own.AddOldKeys(ctx, "scan-one"); err != nil {
		return s, t, err
	}
	// A check needs the name of a variable for each key, and these keys have none.
	const here = "of the deployment itself"
	s.OtherKeyEnv, s.ExpiredKeyEnv, s.RevokedKeyEnv = here, here, here
	s.Secrets = append(slices.Clone(s.Secrets), own.LedgerFolder())
	if s.Gateway == "" {
		s.Gateway = own.Limits()
	}
	return s, t, nil
}

func orEnvironment(keys map[string]string, variable string) string {
	if key := keys[variable]; key != "" {
		return key
	}
	return os.Getenv(variable)
}
