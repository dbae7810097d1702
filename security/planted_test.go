package security

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// planted are the flaws of the catalogue, each with the check that has to find it.
var planted = []struct{ flaw, check string }{
	{"skip-auth", "authentication"}, {"auth-double-slash", "authentication"}, {"auth-options", "authentication"},
	{"accept-any-key", "key-validation"}, {"accept-prefix", "key-validation"},
	{"ignore-expiry", "key-lifetime"},
	{"responses-without-tenant", "tenant-objects"},
	{"no-limit", "rate-limit"}, {"unlimited-guesses", "rate-limit"},
	{"trust-x-forwarded-for", "forwarded-headers"},
	{"usage-by-exact-key", "billing"}, {"usage-only-at-end", "billing"},
	{"shared-prefix-cache", "prefix-cache"},
	{"parse-special", "chat-template"},
	{"shared-history", "cross-session"},
	{"leak-system-prompt", "system-prompt"},
	{"cl-te", "smuggling"},
	{"tls10", "tls"}, {"weak-cipher", "tls"}, {"no-hsts", "tls"},
	{"echo-key", "leaks"}, {"log-prompts", "leaks"}, {"stack-trace", "leaks"},
	{"metrics-on-gateway", "open-doors"}, {"pprof", "open-doors"}, {"vllm-admin", "open-doors"}, {"invocations", "open-doors"},
	{"cors-reflect", "headers-and-cors"}, {"no-nosniff", "headers-and-cors"},
	{"raw-audit-line", "log-injection"},
	{"quadratic-schema", "costly-requests"}, {"engine-blocks", "costly-requests"},
	{"panic-on-max-tokens", "crash"}, {"eject-on-client-error", "crash"},
	{"no-header-timeout", "slow-connections"}, {"no-body-timeout", "slow-connections"},
	{"shed-by-open-streams", "unread-streams"},
	{"no-connection-limit", "connection-exhaustion"},
}

// scan runs checks on the fake and returns their results.
func (f *fake) scan(t *testing.T, url string, only ...string) map[string]recording.ScanResult {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("several addresses of this machine are needed, as Linux has them")
	}
	results := map[string]recording.ScanResult{}
	target := Target{URL: url, Key: keyOne, OtherKey: keyOther, ExpiredKey: keyExpired, RevokedKey: keyRevoked, Logs: []string{f.log}}
	if strings.HasPrefix(url, "https") {
		target.CAFile = f.ca
	}
	err := Run(t.Context(), Options{
		Scan:   scenarios.Scan{Only: only, AllowDisruptive: true, Logs: []string{f.log}, SystemCanary: f.canary, ExpiredKeyEnv: "X", OtherKeyEnv: "Y"},
		Target: target, Clock: recording.NewClock(), Seed: 7, patience: 6 * time.Second, Tell: func(string) {},
		Record: func(r recording.ScanResult) { results[r.Check] = r },
	})
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// On a service with one flaw, the right check finds it.
func TestPlantedFlawsAreFound(t *testing.T) {
	if testing.Short() {
		t.Skip("some flaws take a minute to be seen")
	}
	for _, p := range planted {
		t.Run(p.flaw, func(t *testing.T) {
			t.Parallel()
			f := startFake(t, p.flaw)
			url := f.url
			if p.check == "smuggling" {
				url = disagree(t, f)
			}
			r := f.scan(t, url, p.check)[p.check]
			if r.Outcome != recording.ScanFlaw {
				t.Fatalf("%s ended as %s: %s", p.check, r.Outcome, r.Why)
			}
			for _, found := range r.Findings {
				text := fmt.Sprint(found.Evidence, found.Title, found.Verified)
				if strings.Contains(text, keyOne) || strings.Contains(text, keyOther) {
					t.Errorf("a key is in the evidence: %s", text)
				}
				if found.Score > r.Worst || found.Fix.IsZero() || found.Verified.IsZero() || len(found.Evidence) == 0 || len(found.Tags) < 2 {
					t.Errorf("the finding is not whole, or worse (%.1f) than the check says (%.1f): %+v", found.Score, r.Worst, found)
				}
			}
		})
	}
}

// On a service without a flaw, every check is safe.
func TestSoundServiceIsSafe(t *testing.T) {
	var quick, all []string
	for _, c := range Checks {
		if c.offline {
			continue
		}
		all = append(all, c.Name)
		if !c.Disruptive {
			quick = append(quick, c.Name)
		}
	}
	if testing.Short() {
		all = quick
	}
	f := startFake(t)
	began := time.Now()
	for name, r := range f.scan(t, f.url, all...) {
		if !r.LeftOut && r.Outcome != recording.ScanSafe {
			t.Errorf("%s ended as %s: %s\n%+v", name, r.Outcome, r.Why, r.Findings)
		}
	}
	if took := time.Since(began); testing.Short() && took > time.Minute {
		t.Errorf("the checks that do not disturb took %s, want a minute at most", took)
	}
}

// A service that cannot be reached is never safe.
func TestNothingThereIsUnproven(t *testing.T) {
	results := map[string]recording.ScanResult{}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := Run(ctx, Options{Scan: scenarios.Scan{AllowDisruptive: true}, Target: Target{URL: "http://127.0.0.1:1", Key: "x"}, Clock: recording.NewClock(), Tell: func(string) {},
		Record: func(r recording.ScanResult) { results[r.Check] = r }})
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != len(Checks) {
		t.Errorf("%d checks ended, want %d", len(results), len(Checks))
	}
	for name, r := range results {
		if r.Outcome != recording.ScanUnproven || r.Why.IsZero() {
			t.Errorf("%s ended as %s: %s", name, r.Outcome, r.Why)
		}
	}
}
