package host

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// removable is what a target must offer so that replicas can be removed.
type removable interface {
	killable
	Terminate(name string) (deploy.Killed, error)
	Hold(names ...string) (release func(), err error)
	OnNodeOf(replica string) []string
}

// TakeNode ends everything on the node of a replica, with its network and its
// disk, and prevents a restart.
func (l *Local) TakeNode(ctx context.Context, v deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
	return takeNode(ctx, l.Local, v, f)
}

func takeNode(ctx context.Context, t removable, v deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
	r := newRemoval(t, v)
	var err error
	r.all = r.target.OnNodeOf(r.victim)
	r.serving = slices.Clone(r.all)
	if n, ok := t.(onNode); ok {
		r.node, r.path = n.Node(r.victim), n.Path(r.victim)
	}
	if f.Disk == scenarios.DiskLost {
		err = r.withDisk(ctx)
	}
	return r, err
}

// drainNotice is how long a replica has to end on a drained node, if the fault does not
// say.
const drainNotice = 20 * time.Second

// DrainNode gives every replica of a node notice, and prevents a restart. The network of
// the node stays.
func (l *Local) DrainNode(_ context.Context, v deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
	r := newRemoval(l.Local, v)
	r.all = r.target.OnNodeOf(r.victim)
	r.serving, r.notice = slices.Clone(r.all), cmp.Or(time.Duration(f.Notice), drainNotice)
	return r, nil
}

// Preempt gives a replica notice, ends it after that, and prevents a restart.
func (l *Local) Preempt(_ context.Context, v deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
	return preempt(l.Local, v, f), nil
}

func preempt(t removable, v deploy.Victim, f scenarios.Fault) deploy.Effect {
	r := newRemoval(t, v)
	r.all, r.serving, r.notice = []string{r.victim}, []string{r.victim}, time.Duration(f.Notice)
	return r
}

func newRemoval(t removable, v deploy.Victim) *removal {
	return &removal{target: t, victim: v.Replica, streams: v.Streams}
}

// removal is the loss of replicas together with the machine that they ran on.
type removal struct {
	target  removable
	victim  string // the replica that was chosen
	streams int
	all     []string     // the processes that end
	serving []string     // the replicas that must serve again at the end
	disk    losable      // the disk that is lost too; nil: none
	node    *deploy.Node // the node whose network is lost too; nil: none
	path    string       // where the gateway reached the victim
	linkUp  func() error // brings the network back
	notice  time.Duration
	noticed time.Time // when they got notice
	release func()    // allows the restart
	ending  []deploy.Killed
}

func (r *removal) Victim() string { return r.victim }

// Undo has nothing to do for the processes: if the supervisor dies, the kernel
// ends them.
func (r *removal) Undo() []deploy.Undo { return undoNode(r.node) }

func (r *removal) Inject(ctx context.Context) (sight, error) {
	var err error
	if r.release, err = r.target.Hold(r.all...); err != nil {
		return sight{}, err
	}
	if r.node != nil { // before the kernel can close the connections of the processes that end
		if r.linkUp, err = r.node.Begin(deploy.Impairment{Silent: true}); err != nil {
			return sight{}, err
		}
	}
	end, signal := r.target.Kill, "SIGKILL"
	if r.notice > 0 {
		end, signal = r.target.Terminate, "SIGTERM"
	}
	r.noticed = time.Now()
	for _, name := range r.all {
		ending, err := end(name)
		if err != nil {
			return sight{}, err
		}
		r.ending = append(r.ending, ending)
	}
	if err := r.loseDisk(ctx); err != nil {
		return sight{}, err
	}
	how := words.Say("%s sent to %s with %d streams in flight at %s", signal, strings.Join(r.all, ", "), r.streams, r.victim)
	if r.notice > 0 {
		how = words.Say("%s; %s of notice", how, r.notice)
	}
	if r.node != nil {
		how = words.Say("the kernel took the veth of their node down; %s", how)
	}
	if r.disk != nil {
		how = words.Say("%s; the ledger's files were removed", how)
	}
	return sight{How: how}, nil
}

// loseDisk removes the ledger once no process that is ending can create its
// files again.
func (r *removal) loseDisk(ctx context.Context) error {
	if r.disk == nil {
		return nil
	}
	for _, ending := range r.ending {
		select {
		case <-ending.Exited:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return r.disk.LoseLedger()
}

// SeeInEffect waits until the processes have ended, and kills those that do not
// end in time.
func (r *removal) SeeInEffect(ctx context.Context) (sight, error) {
	if r.notice > 0 {
		if err := r.awaitNotice(ctx); err != nil {
			return sight{}, err
		}
	}
	var last sight
	var how []words.Sentence
	for i, ending := range r.ending {
		seen, err := seeDeath(ctx, ending)
		if err != nil {
			return sight{}, err
		}
		if seen.At.IsZero() {
			seen.At = time.Now()
		}
		if seen.At.After(last.At) {
			last.At = seen.At
		}
		if pid := r.target.PID(r.all[i]); pid != 0 && pid != ending.PID {
			return sight{}, words.Errorf("%s was started again, as pid %d", r.all[i], pid)
		}
		how = append(how, words.Say("%s: %s", r.all[i], seen.How))
	}
	if r.disk != nil {
		if r.disk.HasLedger() {
			return sight{}, words.Errorf("the ledger's file is there again")
		}
		last.At, how = time.Now(), append(how, words.Say("the ledger's files are gone"))
	}
	if r.node != nil {
		_, err := roundTrip(ctx, r.path, 0, silence)
		if err == nil || refused(err) {
			return sight{}, words.Errorf("%s should be lost, but a connection to it was answered: %s", r.victim, err)
		}
		how = append(how, words.Say("a connection made now does not get through (%s)", err))
	}
	last.How = words.List("%s; %s", how...)
	return last, nil
}

// awaitNotice waits for the time of the notice and then kills the processes that have
// not ended. It returns earlier if all end by themselves.
func (r *removal) awaitNotice(ctx context.Context) error {
	timer := time.NewTimer(time.Until(r.noticed.Add(r.notice)))
	defer timer.Stop()
	for i, ending := range r.ending {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ending.Exited:
			continue
		case <-timer.C:
			timer.Reset(0) // the notice is over for the others too
		}
		if _, err := r.target.Kill(r.all[i]); err != nil && r.target.PID(r.all[i]) == ending.PID {
			return err
		}
	}
	return nil
}

func (r *removal) Revert(context.Context) (sight, error) {
	how := words.Say("%s may be started again", strings.Join(r.all, ", "))
	if r.linkUp != nil {
		if err := r.linkUp(); err != nil {
			return sight{}, err
		}
		how = words.Say("the veth is up; %s", how)
	}
	if r.release != nil {
		r.release()
	}
	return sight{How: how}, nil
}

func (r *removal) SeeGone(ctx context.Context) (sight, error) {
	return until(ctx, pollEvery, func() (words.Sentence, bool) {
		var back []words.Sentence
		for i, name := range r.all {
			pid := r.target.PID(name)
			if pid == 0 || pid == r.ending[i].PID {
				return words.Sentence{}, false
			}
			back = append(back, words.Say("%s again, now pid %d", name, pid))
		}
		for _, name := range r.serving {
			if !r.target.Serving(ctx, name) {
				return words.Sentence{}, false
			}
		}
		if r.disk == nil {
			return words.Say("the gateway routes to %s", words.List("%s, and to %s", back...)), true
		}
		return words.Say("%s; the gateway routes to %d replicas; %s", words.List("%s; %s", back...), len(r.serving), r.disk.LedgerReturned()), r.disk.HasLedger()
	})
}
