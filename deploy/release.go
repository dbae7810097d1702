package deploy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/launchgate/launchgate/internal/words"
)

// Release is a version of the model that is to replace the served one.
type Release struct {
	Version string `json:"version"`
	Model   string `json:"model"`            // a GGUF file, or a Hugging Face folder
	SHA256  string `json:"sha256,omitempty"` // expected of the file; empty: any
	// Flags are more flags of serve for this version.
	Flags []string `json:"flags,omitempty"`
}

// Released is how a release ended.
type Released struct {
	Live bool       `json:"live"`
	Why  words.Kept `json:"why"`
	// Took is the whole time in seconds. RollBack is the time in seconds from
	// when the version was found to be bad until every replica was ready with
	// the old one again.
	Took     float64 `json:"took"`
	RollBack float64 `json:"roll_back,omitempty"`
}

func kept(s words.Sentence) words.Kept { return words.Kept{Sentence: s} }

// How a canary is compared with the other replicas in the same time.
const (
	judgeFor     = 3 * time.Second  // at least
	judgeWithin  = 60 * time.Second // at most, while it has too few answers
	judgeAnswers = 20               // the answers that it needs
	leastErrors  = 3                // a single error may have any cause
	moreErrors   = 0.05             // added to the others' share of errors
	slower       = 1.8              // times as long as the others; medians, because a busy machine makes outliers
	slowerBy     = 5 * time.Millisecond
)

// drainsWithin is longer than a replica takes to finish its requests.
const drainsWithin = 30 * time.Second

// errBusy is returned while another release is under way.
var errBusy = words.Errorf("another release is under way; wait until it ends")

// releases is the state of the releases of a deployment.
type releases struct {
	releasing sync.Mutex                  // one at a time
	takeBack  func(context.Context) error // the last release; nil: it is taken back
}

// Release rolls a version out: first to one replica, the canary, and to the others
// after the canary has answered enough user requests well. A version that never
// gets ready, answers with errors or is slow is rolled back at once, and so is one
// that got too few requests to be judged.
//
//	hash → candidate → canary ready → judged → the others, one by one → live
//	                        └─────────┴──────────────┴──▶ rolled back, rejected
func (l *Local) Release(ctx context.Context, r Release, tell func(words.Sentence)) (Released, error) {
	if !l.releasing.TryLock() {
		return Released{}, errBusy
	}
	defer l.releasing.Unlock()
	if len(l.Spec.Models) > 0 {
		return Released{}, words.Errorf("the replicas serve several models (target.local.models), but a release replaces a single one; change target.local.models and start the deployment again")
	}
	began := time.Now()
	if err := l.register(ctx, &r); err != nil {
		return Released{Why: kept(words.Of(err)), Took: time.Since(began).Seconds()}, nil
	}
	name, err := l.servedName(ctx)
	if err != nil {
		return Released{}, words.Errorf("the models of the replicas cannot be read: %s", err)
	}
	before, err := l.ask(ctx)
	if err != nil {
		return Released{}, err
	}
	var done []func(context.Context) error // each restores a replica
	bad := func() error {
		for i, replica := range l.replicas {
			tell(words.Say("%s gets version %s", replica.name, r.Version))
			argv, _ := replica.command()
			old, err := l.change(ctx, replica, slices.Concat(serving(argv, name+"="+r.Model), r.Flags))
			done = append(done, func(ctx context.Context) error { _, err := l.change(ctx, replica, old); return err })
			if err != nil {
				return err
			}
			if i == 0 {
				tell(words.Say("%s is ready and is now judged on its answers to users", replica.name))
				if err := l.judge(ctx, replica.name, before); err != nil {
					return err
				}
			}
		}
		return nil
	}()
	l.takeBack = func(ctx context.Context) error {
		for _, undo := range slices.Backward(done) {
			if err := undo(ctx); err != nil {
				return words.Errorf("the rollback failed: %s", err)
			}
		}
		l.takeBack = nil
		return l.setModel(ctx, r, "rejected")
	}
	if bad == nil {
		err := l.setModel(ctx, r, "live")
		return Released{Live: true, Why: kept(words.Say("all %[2]d replicas serve version %[1]s", r.Version, len(l.replicas))), Took: time.Since(began).Seconds()}, err
	}
	tell(words.Say("rolled back: %s", bad))
	found := time.Now()
	// Complete it even if the caller has left, so that no release stays half done.
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	if err := l.takeBack(back); err != nil {
		return Released{Why: kept(words.Of(bad))}, err
	}
	return Released{Why: kept(words.Of(bad)), Took: time.Since(began).Seconds(), RollBack: time.Since(found).Seconds()}, nil
}

// TakeBack restores the commands that the replicas ran before the last release, if
// that went live or could not be rolled back.
func (r *releases) TakeBack(ctx context.Context) error {
	r.releasing.Lock()
	defer r.releasing.Unlock()
	if r.takeBack == nil {
		return nil
	}
	return r.takeBack(ctx)
}

// Command is what a replica runs, from its next start on.
func (l *Local) Command(replica string) []string {
	p, err := l.process(replica)
	if err != nil {
		return nil
	}
	argv, _ := p.command()
	return argv
}

// ModelFile is the model that the replicas serve: a file, or a folder.
func (l *Local) ModelFile(ctx context.Context) (string, error) {
	argv, _ := l.replicas[0].command()
	i := slices.Index(argv, "--model")
	if i < 0 {
		out, err := exec.CommandContext(ctx, l.server, "model-file").Output()
		return strings.TrimSpace(string(out)), err
	}
	model := argv[i+1]
	if _, path, named := strings.Cut(model, "="); named {
		if _, err := os.Stat(model); err != nil { // a path may have a = in it
			return path, nil
		}
	}
	return model, nil
}

// serving returns the command of a replica for another model.
func serving(argv []string, model string) []string {
	argv = slices.Clone(argv)
	if i := slices.Index(argv, "--model"); i >= 0 {
		argv[i+1] = model
		return argv
	}
	return append(argv, "--model", model)
}

// register hashes the file and keeps it as a candidate, where there is a ledger.
func (l *Local) register(ctx context.Context, r *Release) error {
	if r.Version == "" {
		return words.Errorf("a release needs a version, such as 2026-11-24")
	}
	sum, err := hashOf(r.Model)
	if err != nil {
		return words.Errorf("the model cannot be read: %s", err)
	}
	if r.SHA256 != "" && !strings.EqualFold(r.SHA256, sum) {
		return words.Errorf("%s is corrupt or the wrong file: its SHA-256 is %s, and version %s has %s", r.Model, sum, r.Version, r.SHA256)
	}
	r.SHA256 = sum
	return l.setModel(ctx, *r, "candidate")
}

// hashOf is the SHA-256 of a file, or of all files of a folder.
func hashOf(path string) (string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	files := []string{path}
	if st.IsDir() {
		entries, err := os.ReadDir(path) // in the order of their names
		if err != nil {
			return "", err
		}
		files = nil
		for _, e := range entries {
			if e.Type().IsRegular() {
				fmt.Fprintf(h, "%s\n", e.Name())
				files = append(files, path+string(os.PathSeparator)+e.Name())
			}
		}
	}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return "", err
		}
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (l *Local) setModel(ctx context.Context, r Release, status string) error {
	if l.admission == nil {
		return nil // without a ledger there is no registry of models
	}
	_, err := l.admission.ledger(ctx, "set-model", "--version", r.Version, "--sha256", r.SHA256, "--status", status)
	return err
}

// servedName is what the replicas call their model.
func (l *Local) servedName(ctx context.Context) (string, error) {
	var list struct{ Data []struct{ ID string } }
	if err := askJSON(ctx, "http://"+l.addrs[l.replicas[0].name]+"/v1/models", &list, l.ReplicaSecret()); err != nil {
		return "", err
	}
	if len(list.Data) != 1 {
		return "", words.Errorf("they serve %d models, but a release replaces a single one", len(list.Data))
	}
	return list.Data[0].ID, nil
}

// change restarts a replica with another command: its requests under way end first,
// and then the new process has to become ready. It is an error if the new process
// exits.
func (l *Local) change(ctx context.Context, p *process, argv []string) (old []string, err error) {
	before := p.current()
	old = p.replace(argv)
	if before != nil {
		if err := Signal(before.pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
			return old, words.Errorf("stop %s: %s", p.name, err)
		}
		select {
		case <-before.exited:
		case <-time.After(drainsWithin):
			_ = Signal(before.pid, syscall.SIGKILL)
			<-before.exited
		case <-ctx.Done():
			return old, context.Cause(ctx)
		}
	}
	for deadline := time.Now().Add(time.Duration(l.Spec.ReadyTimeout)); ; {
		if l.Serving(ctx, p.name) {
			return old, nil
		}
		if _, starts := p.command(); starts > 1 {
			return old, words.Errorf("%s ended before it was ready: %s", p.name, tail(l.logFile(p.name), 1))
		}
		if time.Now().After(deadline) {
			return old, words.Errorf("%s was not ready within %s; its log ends with: %s", p.name, time.Duration(l.Spec.ReadyTimeout), tail(l.logFile(p.name), 1))
		}
		if !sleep(ctx, 50*time.Millisecond) {
			return old, context.Cause(ctx)
		}
	}
}

// judge compares the answers of the canary with those of the other replicas in the
// same time. A single replica is compared with itself before the release.
func (l *Local) judge(ctx context.Context, canary string, before Status) error {
	begin, err := l.ask(ctx)
	if err != nil {
		return err
	}
	for began := time.Now(); ; {
		if !sleep(ctx, 100*time.Millisecond) {
			return context.Cause(ctx)
		}
		now, err := l.ask(ctx)
		if err != nil {
			continue // the gateway may be restarting
		}
		own, others := since(begin, now, canary)
		if others.Answered < judgeAnswers {
			_, others = since(Status{}, before, "")
		}
		if why := worse(own, others); !why.IsZero() {
			return words.Errorf("%s: %s", canary, why)
		}
		watched := time.Since(began)
		switch {
		case own.Answered >= judgeAnswers && watched >= judgeFor && others.Median > 0:
			return nil
		case watched >= judgeWithin:
			return words.Errorf("%s answered %d requests in %s, but a verdict on a version needs %d of its answers and half as many of another replica; release under load", canary, own.Answered, judgeWithin, judgeAnswers)
		}
	}
}

// since is the counts of the canary between two statuses, and the sum of the counts
// of the others. A restarted gateway counts from zero.
func since(before, now Status, canary string) (own, others ReplicaStatus) {
	var medians []float64
	for i, r := range now.Replicas {
		if i < len(before.Replicas) && before.Replicas[i].Answered <= r.Answered {
			r.Answered -= before.Replicas[i].Answered
			r.Failed -= before.Replicas[i].Failed
		}
		if r.Name == canary {
			own = r
			continue
		}
		others.Answered, others.Failed = others.Answered+r.Answered, others.Failed+r.Failed
		if r.Timed >= judgeAnswers/2 {
			medians = append(medians, r.Median)
		}
	}
	if slices.Sort(medians); len(medians) > 0 {
		others.Median = medians[len(medians)/2]
	}
	return own, others
}

// worse says in what way the canary did worse than the others; empty if it did not,
// or if it is too early to say.
func worse(own, others ReplicaStatus) words.Sentence {
	share := func(r ReplicaStatus) float64 { return float64(r.Failed) / float64(max(1, r.Answered)) }
	if own.Failed >= leastErrors && share(own) > share(others)+moreErrors {
		return words.Say("%d of its %d answers were errors, compared with %.2g %% of the others'", own.Failed, own.Answered, 100*share(others))
	}
	if own.Timed >= judgeAnswers && others.Median > 0 && own.Median > slower*others.Median && own.Median-others.Median > slowerBy.Seconds() {
		took := func(seconds float64) time.Duration {
			return time.Duration(seconds * float64(time.Second)).Round(100 * time.Microsecond)
		}
		return words.Say("its answers take %s, those of the others %s", took(own.Median), took(others.Median))
	}
	return words.Sentence{}
}

// Limits is the gateway.yaml that the gateway started with; empty if it has the
// limits of the guide.
func (l *Local) Limits() string { return l.Spec.Gateway.Config }

// LogDir is where the deployment keeps its logs.
func (l *Local) LogDir() string { return l.logDir }

// Reconfigure gives the gateway other limits, from a file, without a request being
// lost. Invalid limits are refused before anything is changed.
func (l *Local) Reconfigure(ctx context.Context, file string) (Released, error) {
	if l.admission == nil {
		return Released{}, words.Errorf("this gateway is plain and has no limits; remove plain from target.local.gateway")
	}
	began := time.Now()
	refused := func(err error) (Released, error) {
		return Released{Why: kept(words.Of(err)), Took: time.Since(began).Seconds()}, ctx.Err()
	}
	content, err := limits(file, l.admission.allow)
	if err != nil {
		return refused(err)
	}
	next := l.admission.file("gateway.yaml.next")
	if err := os.WriteFile(next, content, 0o600); err != nil {
		return Released{}, err
	}
	version, err := l.admission.ledger(ctx, "add-configuration", "--from", next)
	if err != nil {
		return refused(errors.Join(err, os.Remove(next)))
	}
	if err := os.Rename(next, l.admission.file("gateway.yaml")); err != nil {
		return Released{}, err
	}
	if pid := l.PID(Gateway); pid != 0 { // a gateway that is starting reads it anyway
		if err := Signal(pid, syscall.SIGHUP); err != nil && !errors.Is(err, syscall.ESRCH) {
			return Released{}, err
		}
	}
	return Released{Live: true, Why: kept(words.Say("version %s of the configuration is in force", version)), Took: time.Since(began).Seconds()}, nil
}
