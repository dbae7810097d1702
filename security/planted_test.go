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

// planted are the flaws of the test service, each with the check that has to find it.
// docs/flaws.md lists them.
var planted = []struct{ flaw, check, wrong string }{
	{"skip-auth", "authentication", "every route answers without a key"},
	{"auth-double-slash", "authentication", "a path that begins with two slashes needs no key"},
	{"auth-options", "authentication", "the method OPTIONS needs no key"},
	{"accept-any-key", "key-validation", "every key is accepted"},
	{"accept-prefix", "key-validation", "the first eight letters of a key are enough"},
	{"ignore-expiry", "key-lifetime", "expired and revoked keys are accepted"},
	{"responses-without-tenant", "tenant-objects", "whoever knows the id of a response can read, cancel and delete it"},
	{"no-limit", "rate-limit", "neither addresses nor keys have a limit of requests"},
	{"unlimited-guesses", "rate-limit", "requests with a wrong key have no limit"},
	{"trust-x-forwarded-for", "forwarded-headers", "limits count by the address that X-Forwarded-For claims"},
	{"usage-by-exact-key", "billing", "answers are billed only if stream is spelled in the usual way, and two choices are not billed"},
	{"usage-only-at-end", "billing", "a stream that its client leaves early is not billed"},
	{"shared-prefix-cache", "prefix-cache", "the prefix cache is not separated by tenant, and the usage shows its hits"},
	{"parse-special", "chat-template", "control tokens in user messages are parsed as control tokens"},
	{"shared-history", "cross-session", "an answer repeats what was said in other sessions"},
	{"leak-system-prompt", "system-prompt", "an answer to a question about instructions quotes the system prompt"},
	{"cl-te", "smuggling", "a proxy goes by Content-Length, and the server behind it by Transfer-Encoding"},
	{"tls10", "tls", "TLS 1.0 and 1.1 are accepted"},
	{"weak-cipher", "tls", "a CBC suite of TLS 1.2 is accepted"},
	{"no-hsts", "tls", "Strict-Transport-Security is missing"},
	{"echo-key", "leaks", "a refusal repeats the key"},
	{"log-prompts", "leaks", "prompts are logged"},
	{"stack-trace", "leaks", "a refusal contains a stack trace"},
	{"metrics-on-gateway", "open-doors", "/metrics is open to strangers"},
	{"pprof", "open-doors", "/debug/pprof/ is open to strangers"},
	{"vllm-admin", "open-doors", "vLLM's /sleep is open to strangers"},
	{"invocations", "open-doors", "/invocations answers without a key"},
	{"cors-reflect", "headers-and-cors", "every Origin is allowed, with credentials"},
	{"no-nosniff", "headers-and-cors", "X-Content-Type-Options is missing"},
	{"raw-audit-line", "log-injection", "the audit log contains the path as the client sent it"},
	{"quadratic-schema", "costly-requests", "the time for a schema grows with the square of its properties"},
	{"engine-blocks", "costly-requests", "everybody waits while the values of a large enum are prepared"},
	{"panic-on-max-tokens", "crash", "the largest number in max_tokens crashes the handler"},
	{"eject-on-client-error", "crash", "four requests that a replica cannot handle eject it for seconds"},
	{"no-header-timeout", "slow-connections", "headers may take for ever"},
	{"no-body-timeout", "slow-connections", "a body may take for ever"},
	{"shed-by-open-streams", "unread-streams", "streams that nobody reads count as load"},
	{"unfair-shedding", "load-shedding", "above a limit of requests under way, requests are refused regardless of the tenant"},
	{"no-connection-limit", "connection-exhaustion", "one address may hold all connections"},
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
		Target: target, Clock: recording.NewClock(), Seed: 7, patience: 6 * time.Second, reply: f.reply, Tell: func(string) {},
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

// A server that closes idle connections after a while serves others within the time of
// three requests, so it is not flawed, although one address holds all of its connections
// until then. Requests sent at the same time would all come too early.
func TestIdleConnectionsThatAreClosedKeepNobodyOut(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for connections to be closed")
	}
	t.Parallel()
	f := startFake(t, "no-connection-limit", "closes-idle")
	f.reply = 2 * time.Second
	if r := f.scan(t, f.url, "connection-exhaustion")["connection-exhaustion"]; r.Outcome != recording.ScanSafe {
		t.Fatalf("it ended as %s: %s; %+v", r.Outcome, r.Why, r.Findings)
	}
}
