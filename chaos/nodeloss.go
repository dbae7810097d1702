package chaos

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

var nodeLoss = Kind{
	Name:      "node-loss",
	Does:      "takes the link of a simulated node down, ends every process on it at once with SIGKILL, and keeps them from being started for a time (for), or until the load ends. Who was connected to them is not told. Where nodes have no network of their own, the processes alone go, and the kernel breaks their connections. With disk: lost it is the node that the gateway and its ledger are on too, and its disk is lost for good, as by ledger-loss",
	Needs:     "a deployment of launchgate's own (target.local); target.local.nodes says how many nodes there are, one for each replica by default; for its network to go too, network namespaces that can be made (Linux, root); for disk: lost, a gateway that is not plain",
	Seen:      "every process of the node is gone, and none is back at the end; a connection to it gets no answer; gone again when the gateway routes to new processes of all of them",
	Simulates: "a machine that loses its power, with all that its memory held, or that does not come back, with all that its disk held",
	Example:   "{kind: node-loss, target: random, at: 5s, for: 20s, disk: lost}",
	prepare:   prepareNodeLoss,
}

var spotPreemption = Kind{
	Name:      "spot-preemption",
	Does:      "sends SIGTERM to one replica, and SIGKILL when its notice is over; with for, its place stays empty so long",
	Needs:     "a deployment of launchgate's own (target.local); notice",
	Seen:      "the process is gone, by itself within the notice or by the signal after it; gone again when the gateway routes to a new process",
	Simulates: "a spot instance taken back by the cloud, which gives it thirty seconds or two minutes of notice",
	Example:   "{kind: spot-preemption, target: busiest, at: 5s, notice: 10s, for: 20s}",
	prepare:   prepareSpotPreemption,
}

// removable is what taking replicas away needs of a target.
type removable interface {
	killable
	Terminate(name string) (deploy.Killed, error)
	Hold(names ...string) (release func(), err error)
	OnNodeOf(replica string) []string
}

func prepareNodeLoss(ctx context.Context, target any, f scenarios.Fault, seed uint64) (fault, error) {
	r, err := prepareRemoval(ctx, target, f, seed)
	if err != nil {
		return nil, err
	}
	r.all = r.target.OnNodeOf(r.victim)
	r.serving = slices.Clone(r.all)
	if t, ok := target.(onNode); ok {
		r.node, r.path = t.Node(r.victim), t.Path(r.victim)
	}
	if f.Disk == scenarios.DiskLost {
		err = r.withDisk(ctx)
	}
	return r, err
}

func prepareSpotPreemption(ctx context.Context, target any, f scenarios.Fault, seed uint64) (fault, error) {
	r, err := prepareRemoval(ctx, target, f, seed)
	if err != nil {
		return nil, err
	}
	r.all, r.serving, r.notice = []string{r.victim}, []string{r.victim}, time.Duration(f.Notice)
	return r, nil
}

func prepareRemoval(ctx context.Context, target any, f scenarios.Fault, seed uint64) (*removal, error) {
	t, ok := target.(removable)
	if !ok {
		return nil, notOurs("launchgate has no machine of it to take away")
	}
	victim, streams, err := chooseVictim(ctx, t, f, seed)
	return &removal{target: t, victim: victim, streams: streams}, err
}

// removal is replicas being taken away, with the place they ran in.
type removal struct {
	target  removable
	victim  string // the replica that was chosen
	streams int
	all     []string     // the processes that go
	serving []string     // the replicas that have to be routed to in the end
	disk    losable      // that goes with them; nil: none does
	node    *deploy.Node // whose network goes with them; nil: none does
	path    string       // where the gateway reached the victim
	linkUp  func() error // brings the network back
	notice  time.Duration
	told    time.Time // when they were given notice
	release func()    // lets them be started again
	ending  []deploy.Killed
}

func (r *removal) Victim() string { return r.victim }

// Undo is nothing of the processes: a supervisor that dies takes them with it.
func (r *removal) Undo() []Undo { return undoNode(r.node) }

func (r *removal) Inject(ctx context.Context) (sight, error) {
	var err error
	if r.release, err = r.target.Hold(r.all...); err != nil {
		return sight{}, err
	}
	if r.node != nil { // before the kernel can tell anybody that the processes end
		if r.linkUp, err = r.node.Begin(deploy.Weather{Silent: true}); err != nil {
			return sight{}, err
		}
	}
	end, signal := r.target.Kill, "SIGKILL"
	if r.notice > 0 {
		end, signal = r.target.Terminate, "SIGTERM"
	}
	r.told = time.Now()
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
	return sight{how: how}, nil
}

// loseDisk removes the ledger once nobody who is ending can make a file of it.
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

// SeeInEffect sees the processes go, and ends those that do not in time.
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
		if seen.at.IsZero() {
			seen.at = time.Now()
		}
		if seen.at.After(last.at) {
			last.at = seen.at
		}
		if pid := r.target.PID(r.all[i]); pid != 0 && pid != ending.PID {
			return sight{}, words.Errorf("%s was started again, as pid %d", r.all[i], pid)
		}
		how = append(how, words.Say("%s: %s", r.all[i], seen.how))
	}
	if r.disk != nil {
		if r.disk.HasLedger() {
			return sight{}, words.Errorf("the ledger's file is there again")
		}
		last.at, how = time.Now(), append(how, words.Say("the ledger's files are gone"))
	}
	if r.node != nil {
		_, err := roundTrip(ctx, r.path, 0, silence)
		if err == nil || refused(err) {
			return sight{}, words.Errorf("%s should be lost, but a connection to it was answered: %s", r.victim, err)
		}
		how = append(how, words.Say("a connection made now does not get through (%s)", err))
	}
	last.how = words.List("%s; %s", how...)
	return last, nil
}

// awaitNotice gives the process its time, and ends it after that. A process
// that ends by itself does so before.
func (r *removal) awaitNotice(ctx context.Context) error {
	timer := time.NewTimer(time.Until(r.told.Add(r.notice)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-r.ending[0].Exited:
		return nil
	case <-timer.C:
	}
	if _, err := r.target.Kill(r.victim); err != nil && r.target.PID(r.victim) == r.ending[0].PID {
		return err
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
	return sight{how: how}, nil
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
