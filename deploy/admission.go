package deploy

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// owner is the tenant, and the name of the key, of whoever deployed the
// service.
const owner = "launchgate"

// keysLast is how long keys are valid, as long as the development certificate.
const keysLast = 7 * 24 * time.Hour

// Allowance is how far the deployment's own key and 127.0.0.1 may exceed the
// gateway's limits. The zero Allowance leaves the limits as they are: only a
// load that is known before the run may exceed them.
type Allowance struct {
	PerSecond float64
	UnderWay  int
	Tenants   []string // other tenants that have the allowance
	Limited   []string // keys of the run without the allowance, by their variables
}

// AllowanceFor is twice the load that a gate plans, because random arrivals are
// above their mean half of the time.
func AllowanceFor(g scenarios.Gate) Allowance {
	perSecond, underWay := g.Peak()
	a := Allowance{PerSecond: 2 * perSecond, UnderWay: 2*underWay + 100}
	if g.Target.Local != nil {
		for variable, key := range g.Target.Local.Gateway.Keys {
			if key.Limited {
				a.Limited = append(a.Limited, variable)
			}
		}
	}
	slices.Sort(a.Limited)
	return a
}

// burst allows for random arrivals: ten seconds of the rate at once.
func (a Allowance) burst() int { return int(math.Ceil(10*a.PerSecond)) + 100 }

// connections is the limit of connections. It is enough even if each connection
// is used for one request only.
func (a Allowance) connections() int { return 2*a.UnderWay + a.burst() }

// Describe is the allowance in words.
func (a Allowance) Describe() words.Sentence {
	if a.PerSecond == 0 {
		return words.Say("the gateway's limits apply to every caller")
	}
	text := words.Say("127.0.0.1 and the run's own keys may send %.6g requests/s (burst %d) and have %d under way; the gateway's limits apply to every other address and key", a.PerSecond, a.burst(), a.UnderWay)
	if len(a.Limited) > 0 {
		text = words.Say("%s, and also %s", text, strings.Join(a.Limited, ", "))
	}
	return text
}

// admission is the part of a whole gateway that admits requests. Its folder
// has:
//
//	ledger.db     keys, usage, background responses
//	gateway.yaml  the limits, with the allowance
//	audit.log     who asked, when, and how it ended
//	second-place/ a copy of the ledger, a fifth of a second behind
//	tls/          the development CA, a certificate (and one that has expired), and its key while it runs
type admission struct {
	server, dir string
	allow       Allowance
	key         string // the deployment's own
	secret      string // shared by the gateway and the replicas
	replicated  bool   // the ledger has a second place
	onEvent     func(Event)

	mu       sync.Mutex
	issued   []issued       // keys to add again if the ledger starts empty
	returned words.Sentence // how the ledger was last restored
}

// issued is a key and its secret.
type issued struct {
	KeySpec
	secret string
}

// LedgerFolder is the folder of a gateway's ledger, below the folder of logs.
func LedgerFolder(logDir string) string { return filepath.Join(logDir, "gateway") }

func openAdmission(ctx context.Context, spec scenarios.Gateway, allow Allowance, o Setup) (*admission, error) {
	d := &admission{server: o.Build, dir: LedgerFolder(o.LogDir), allow: allow, replicated: !spec.Unreplicated, onEvent: o.OnEvent, secret: rand.Text()}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, err
	}
	config, err := limits(spec.Config, allow)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(d.file("gateway.yaml"), config, 0o600); err != nil {
		return nil, err
	}
	d.key, err = d.addKey(ctx, KeySpec{ID: fmt.Sprintf("%s-%d", owner, time.Now().UnixMilli()), Tenant: owner, Class: "interactive", Inside: true})
	return d, err
}

// SecretVariable is the environment variable that gives the processes of a
// deployment the secret of gateway and replicas. Everybody on the machine can
// see the arguments of a process.
const SecretVariable = "GATEWAY_SECRET"

// ReplicaSecret is the secret by which replicas recognize their gateway. It is
// empty behind a plain gateway, which lets everybody pass.
func (f *front) ReplicaSecret() string {
	if f.admission == nil {
		return ""
	}
	return f.admission.secret
}

func (f *front) secretEnv() []string {
	if f.admission == nil {
		return nil
	}
	return []string{SecretVariable + "=" + f.admission.secret}
}

// limits is the configuration of a gateway: that of a file, with the allowance
// in front of its exceptions.
func limits(file string, a Allowance) ([]byte, error) {
	config := map[string]any{}
	if file != "" {
		src, err := os.ReadFile(file)
		if err != nil {
			return nil, words.Errorf("limits: %s", err)
		}
		if err := yaml.Unmarshal(src, &config); err != nil {
			return nil, words.Errorf("limits: %s: %s", file, err)
		}
	}
	if a.PerSecond == 0 {
		return yaml.Marshal(config)
	}
	networks, _ := config["networks"].([]any) // if it has another type, the gateway refuses the file
	config["networks"] = append([]any{map[string]any{"cidr": "127.0.0.1/32", "rate": a.PerSecond, "burst": a.burst(), "connections": a.connections()}}, networks...)
	tenants, _ := config["tenants"].(map[string]any)
	if tenants == nil {
		tenants = map[string]any{}
	}
	for _, name := range append([]string{owner}, a.Tenants...) {
		tenants[name] = map[string]any{"concurrency": a.UnderWay, "key": map[string]any{"rate": a.PerSecond, "burst": a.burst()}}
	}
	config["tenants"] = tenants
	return yaml.Marshal(config)
}

func (d *admission) file(name string) string { return filepath.Join(d.dir, name) }

func (d *admission) args() []string {
	return []string{"--ledger", d.file("ledger.db"), "--config", d.file("gateway.yaml"), "--audit-log", d.file("audit.log"), "--dev-tls", d.file("tls")}
}

// replicator keeps a second copy of the ledger. It is a process of its own, so
// that it also copies what the gateway wrote just before it was killed.
func (d *admission) replicator() *process {
	return &process{name: Replicator, argv: []string{d.server, "ledger", "replicate", "--ledger", d.file("ledger.db"), "--to", d.file("second-place")}}
}

// KeySpec is an API key that is to be made.
type KeySpec struct {
	ID, Tenant, Class string
	Inside            bool // answers to this key name the replica
}

// scopes are what the key may do.
func (k KeySpec) scopes() string {
	if k.Inside {
		return "inference,inside"
	}
	return "inference"
}

// addKey has the reference server put a key into the ledger.
func (d *admission) addKey(ctx context.Context, k KeySpec) (secret string, err error) {
	secret, err = d.ledger(ctx, "add-key", "--id", k.ID, "--tenant", k.Tenant, "--class", k.Class, "--scope", k.scopes(), "--valid", keysLast.String())
	if err != nil {
		return "", words.Errorf("add the API key %s: %s", k.ID, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.issued = append(d.issued, issued{k, secret})
	return secret, nil
}

// bringLedger restores a lost ledger before a process opens it: from the second
// copy, or as an empty ledger with the issued keys. The gateway serves with an
// empty ledger too, and the run measures what was lost.
func (d *admission) bringLedger(ctx context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hasLedger() {
		return
	}
	restored := 0.0
	if said, err := d.restore(ctx); err == nil {
		restored, d.returned = 1, words.Say("the ledger was restored from its second place (%s)", said)
	} else {
		d.returned = words.Say("the ledger is empty again: %s", err)
		for _, k := range d.issued {
			if _, err := d.ledgerWith(ctx, k.secret, "add-key", "--id", k.ID, "--tenant", k.Tenant, "--class", k.Class, "--scope", k.scopes(), "--valid", keysLast.String(), "--secret-from-stdin"); err != nil {
				d.returned = words.Say("%s; the key %s was not restored: %s", d.returned, k.ID, err)
			}
		}
	}
	d.onEvent(Event{At: time.Now(), Name: "ledger_returned", Subject: Gateway, Value: restored, Text: d.returned})
}

func (d *admission) restore(ctx context.Context) (said words.Sentence, err error) {
	if !d.replicated {
		return words.Sentence{}, words.Errorf("it has no second place")
	}
	began := time.Now()
	if _, err := d.ledger(ctx, "restore", "--replica", d.file("second-place")); err != nil {
		return words.Sentence{}, words.Errorf("its second place cannot be restored: %s", err)
	}
	return words.Say("restored and verified in %s", time.Since(began).Round(time.Millisecond)), nil
}

func (d *admission) hasLedger() bool {
	_, err := os.Stat(d.file("ledger.db"))
	return err == nil
}

// ledger runs a command of the reference server on the gateway's ledger.
func (d *admission) ledger(ctx context.Context, command string, args ...string) (string, error) {
	return d.ledgerWith(ctx, "", command, args...)
}

// ledgerWith is ledger, and gives the command something to read.
func (d *admission) ledgerWith(ctx context.Context, in, command string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, d.server, append([]string{"ledger", command, "--ledger", d.file("ledger.db")}, args...)...)
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = errors.New(strings.TrimPrefix(strings.TrimSpace(string(exit.Stderr)), "reference-server: "))
	}
	return strings.TrimSpace(string(out)), err
}

// close removes the certificate's private key, because users pass run folders
// on.
func (d *admission) close() { _ = os.Remove(d.file("tls/key.pem")) }

// Certificate describes the certificate that the gateway sends to clients.
type Certificate struct {
	Address string // of the listener that sends it
	File    string // the gateway reads it again when it changes
	Expired string // the file of an expired one from the same authority and for the same key
	CA      string // the file of the certificate authority
}

// Certificate is the certificate of the gateway, if it has one.
func (f *front) Certificate() (Certificate, bool) {
	if f.admission == nil {
		return Certificate{}, false
	}
	return Certificate{Address: strings.TrimPrefix(f.url, "https://"), File: f.admission.file("tls/cert.pem"), Expired: f.admission.file("tls/expired.pem"), CA: f.admission.file("tls/ca.pem")}, true
}

// LedgerFolder is where the gateway's ledger and its audit log are; empty where
// it has none.
func (f *front) LedgerFolder() string {
	if f.admission == nil {
		return ""
	}
	return f.admission.dir
}

// HasLedger reports whether the gateway's ledger is there.
func (f *front) HasLedger() bool { return f.admission != nil && f.admission.hasLedger() }

// LedgerReturned says how the ledger was last restored.
func (f *front) LedgerReturned() words.Sentence {
	f.admission.mu.Lock()
	defer f.admission.mu.Unlock()
	return f.admission.returned
}

// WithLedger names the processes that use the ledger's disk.
func (l *Local) WithLedger() []string {
	switch {
	case l.admission == nil:
		return nil
	case l.replicator == nil:
		return []string{Gateway}
	}
	return []string{Gateway, Replicator}
}

// LoseLedger removes the ledger, with its log and the replicator's files beside
// it. No process that has it open may run.
func (f *front) LoseLedger() error {
	files, err := filepath.Glob(f.admission.file("ledger.db*"))
	for _, file := range append(files, f.admission.file(".ledger.db-litestream")) {
		err = errors.Join(err, os.RemoveAll(file))
	}
	return err
}

// Key is the API key of whoever deployed the service. It is empty if the
// gateway asks for none.
func (f *front) Key() string {
	if f.admission == nil {
		return ""
	}
	return f.admission.key
}

// AddKey makes another API key, for a tenant without the allowance.
func (f *front) AddKey(ctx context.Context, k KeySpec) (string, error) {
	if f.admission == nil {
		return "", words.Errorf("the gateway of this deployment is plain and requires no API keys; remove plain from target.local.gateway")
	}
	return f.admission.addKey(ctx, k)
}

// AddOldKeys makes two keys of a tenant that must not work: one has expired and
// one was revoked.
func (f *front) AddOldKeys(ctx context.Context, tenant string) (expired, revoked string, err error) {
	if f.admission == nil {
		return "", "", words.Errorf("the gateway of this deployment is plain and requires no API keys; remove plain from target.local.gateway")
	}
	add := func(id, valid string) (string, error) {
		return f.admission.ledger(ctx, "add-key", "--id", id, "--tenant", tenant, "--class", "standard", "--valid", valid)
	}
	if expired, err = add(tenant+"-expired", "1ns"); err != nil {
		return "", "", words.Errorf("make a key that has expired: %s", err)
	}
	if revoked, err = add(tenant+"-revoked", keysLast.String()); err == nil {
		_, err = f.admission.ledger(ctx, "revoke-key", "--id", tenant+"-revoked")
	}
	if err != nil {
		return "", "", words.Errorf("make a key that was revoked: %s", err)
	}
	return expired, revoked, nil
}
