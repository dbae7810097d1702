package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/launchgate/launchgate/internal/durable"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Standing is a deployment that stays up after the command that made it has ended:
// a process of its own keeps it, and writes to a folder how to reach it.
//
//	standing.json  this; there while the deployment is ready
//	api-key        of whoever deployed it
//	logs/          of its processes, and what its gateway keeps
type Standing struct {
	Spec    scenarios.Local `json:"spec"`
	URL     string          `json:"url"`
	CA      string          `json:"ca,omitempty"`
	KeyFile string          `json:"key_file,omitempty"`
	Allowed words.Kept      `json:"allowed,omitzero"`
	Status  string          `json:"status"` // URL of the gateway's /status
	Metrics []Scraped       `json:"metrics"`
	Watched words.Kept      `json:"watched"` // what monitors it, or the reason why nothing does
	Since   time.Time       `json:"since"`
	Keeper  Keeper          `json:"keeper"`
	Control string          `json:"control"` // the keeper's socket
}

// Where a standing deployment keeps its ledger, and the copy of it, below its
// folder.
const (
	LedgerFile  = "logs/gateway/ledger.db"
	SecondPlace = "logs/gateway/second-place"
)

// Scraped is the URL of the metrics of a process of the deployment.
type Scraped struct {
	Name    string `json:"name"`
	Address string `json:"address"`
}

// Keeper is the process that keeps a deployment up. A pid may be reused, so the
// start time identifies the process with it.
type Keeper struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

func self() Keeper {
	k := Keeper{PID: os.Getpid()}
	if st, err := Stat(k.PID); err == nil {
		k.Start = st.Start
	}
	return k
}

// Alive reports whether the keeper still runs.
func (k Keeper) Alive() bool {
	st, err := Stat(k.PID)
	if errors.Is(err, errors.ErrUnsupported) {
		return Signal(k.PID, 0) == nil
	}
	return err == nil && st.Start == k.Start && st.State != "Z" && st.State != "X"
}

// ErrNotStanding is returned if no deployment is up.
var ErrNotStanding = words.Errorf("no deployment is running")

// FindStanding reads the standing deployment of a folder. The files of a dead
// keeper give ErrNotStanding too, because its processes died with it.
func FindStanding(dir string) (Standing, error) {
	var s Standing
	b, err := os.ReadFile(standingFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return s, ErrNotStanding
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, words.Errorf("%s: %s", standingFile(dir), err)
	}
	if !s.Keeper.Alive() {
		return s, ErrNotStanding
	}
	return s, nil
}

func standingFile(dir string) string { return filepath.Join(dir, "standing.json") }

// Order describes a standing deployment before it is started.
type Order struct {
	Spec  scenarios.Local `json:"spec"`
	Allow Allowance       `json:"allow"`
}

// DefaultOrder is the bundled service without a gate. The limits of its gateway
// apply to everybody.
func DefaultOrder() Order {
	gate := scenarios.Gate{Target: scenarios.Target{Local: &scenarios.Local{}}}
	return Order{Spec: *gate.Resolved().Target.Local}
}

// OrderFor is a deployment as a gate describes it, which is allowed the gate's
// load.
func OrderFor(g scenarios.Gate) (Order, error) {
	if g.Target.Local == nil {
		return Order{}, words.Errorf("%s targets %s, which already runs; up needs a gate with target.local", g.Name, g.Target.Endpoint.URL)
	}
	return Order{Spec: *g.Target.Local, Allow: AllowanceFor(g)}, nil
}

// Keep starts a deployment and keeps it up until ctx ends. When the deployment
// is ready, Keep writes to dir how to reach it. Nothing of it runs when Keep
// has returned.
func Keep(ctx context.Context, dir string, order Order, server string) error {
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // releases the lock, as the end of the process would
	if err := lockFile(lock); err != nil {
		return words.Errorf("another deployment uses %s, or is being started there (%s)", dir, err)
	}
	l, err := StartLocal(ctx, order.Spec, order.Allow, Setup{Build: server, LogDir: filepath.Join(dir, "logs"), OnEvent: func(Event) {}}, Ground{})
	if err != nil {
		return err
	}
	defer l.Stop()
	if err := l.WaitReady(ctx); err != nil {
		return err
	}
	s := Standing{Spec: order.Spec, URL: l.URL(), Status: l.status, Metrics: l.scraped, Watched: kept(l.monitor.watched()), Since: time.Now().UTC().Truncate(time.Second), Keeper: self()}
	orders, err := openControl(l)
	if err != nil {
		return words.Errorf("the supervisor's socket: %s", err)
	}
	defer func() { _ = orders.close() }()
	s.Control = orders.socket()
	if l.admission != nil {
		s.CA, s.KeyFile, s.Allowed = l.admission.file("tls/ca.pem"), filepath.Join(dir, "api-key"), kept(order.Allow.Describe())
		if err := os.WriteFile(s.KeyFile, []byte(l.Key()+"\n"), 0o600); err != nil {
			return err
		}
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.Replace(standingFile(dir), 0o600, durable.Content(append(b, '\n'))); err != nil {
		return err
	}
	<-ctx.Done()
	err = os.Remove(standingFile(dir))
	if s.KeyFile != "" {
		err = errors.Join(err, os.Remove(s.KeyFile))
	}
	return err
}

// Ask asks the gateway for its status.
func (s Standing) Ask(ctx context.Context) (Status, error) { return askStatus(ctx, s.Status) }

// Down stops the deployment and returns when nothing of it runs. The keeper
// lets requests under way end. If it does not stop within the time, Down kills
// it, and the kernel kills its processes.
func (s Standing) Down(ctx context.Context, within time.Duration) error {
	if err := Signal(s.Keeper.PID, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return words.Errorf("stop process %d, the supervisor of the deployment: %s", s.Keeper.PID, err)
	}
	for began := time.Now(); s.Keeper.Alive(); {
		if !sleep(ctx, 20*time.Millisecond) {
			return context.Cause(ctx)
		}
		if time.Since(began) > within {
			if err := Signal(s.Keeper.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return words.Errorf("process %d did not stop within %s and cannot be killed: %s", s.Keeper.PID, within, err)
			}
			within += 5 * time.Second
		}
	}
	return nil
}
