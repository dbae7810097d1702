package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// releasable is what a target must offer so that a bad version can be rolled
// out.
type releasable interface {
	Replicas() []deploy.Replica
	Serving(ctx context.Context, replica string) bool
	PID(name string) int
	Command(replica string) []string
	WithLedger() []string
	LogDir() string
	ModelFile(ctx context.Context) (string, error)
	Release(ctx context.Context, r deploy.Release, tell func(words.Sentence)) (deploy.Released, error)
	TakeBack(ctx context.Context) error
	Limits() string
	Reconfigure(ctx context.Context, file string) (deploy.Released, error)
	Deepen(ctx context.Context, model, to string) error
}

const (
	tooShort  = "1"      // tokens of context: too few for any prompt with its answer
	brokenOff = 64 << 20 // the most bytes of a model that are copied
)

// RollOutBad rolls a bad version out, as launchgate release does.
func (l *Local) RollOutBad(ctx context.Context, _ deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
	return rollOutBad(ctx, l.Local, f)
}

func rollOutBad(ctx context.Context, t releasable, f scenarios.Fault) (deploy.Effect, error) {
	if len(t.WithLedger()) == 0 {
		return nil, needsGateway("it has no registry of what was rolled out")
	}
	b := &bad{target: t, release: f.Release, within: time.Duration(f.Within), victim: t.Replicas()[0].Name, before: map[string][]string{}}
	if f.Release == scenarios.ReleaseBadConfig {
		b.victim = deploy.Gateway
	}
	b.version = fmt.Sprintf("%s-%s", f.Release, time.Now().UTC().Format("20060102T150405.000"))
	b.folder = filepath.Join(t.LogDir(), fmt.Sprintf("%s%d-%s", ofOurs, os.Getpid(), b.version))
	for _, replica := range deploy.Names(t.Replicas()) {
		b.before[replica] = t.Command(replica)
		if t.Serving(ctx, replica) {
			b.serving = append(b.serving, replica)
		}
	}
	if b.victim != deploy.Gateway && !slices.Contains(b.serving, b.victim) {
		return nil, words.Errorf("%s was to be the canary and does not serve", b.victim)
	}
	var err error
	b.model, err = t.ModelFile(ctx)
	return b, err
}

// bad is the roll-out of a bad version.
type bad struct {
	target  releasable
	release string // the kind of bad version
	within  time.Duration
	victim  string
	version string
	folder  string              // holds the file of the bad version
	model   string              // the model that the replicas serve
	before  map[string][]string // the commands of the replicas before
	serving []string            // the replicas that served before
	pid     int                 // the canary's pid before

	cancel context.CancelFunc
	ended  chan struct{} // closed at the end of the roll-out; nil before it begins
	// The result of the roll-out, and what had to be done by hand. Both are
	// valid once ended is closed.
	end    deploy.Released
	err    error
	byHand words.Sentence
}

func (b *bad) Victim() string { return b.victim }

// Undo only removes the file: if the supervisor dies, the kernel ends its
// processes.
func (b *bad) Undo() []deploy.Undo { return []deploy.Undo{undoing(undoRemove, object{Path: b.folder})} }

func (b *bad) Inject(ctx context.Context) (sight, error) {
	if err := os.Mkdir(b.folder, 0o700); err != nil {
		return sight{}, err
	}
	roll, how, err := b.make(ctx)
	if err != nil {
		return sight{}, err
	}
	b.pid = b.target.PID(b.victim)
	// If the run is stopped, the release ends too and rolls back at once.
	ctx, b.cancel = context.WithCancel(ctx)
	b.ended = make(chan struct{})
	go func() { // Revert waits for it
		defer close(b.ended)
		b.end, b.err = roll(ctx)
	}()
	return sight{How: how}, nil
}

// make makes the bad version and returns the function that rolls it out.
func (b *bad) make(ctx context.Context) (roll func(context.Context) (deploy.Released, error), how words.Sentence, err error) {
	r := deploy.Release{Version: b.version, Model: b.model}
	switch b.release {
	case scenarios.ReleaseBadConfig:
		file := filepath.Join(b.folder, "limits.yaml")
		err = os.WriteFile(file, []byte("network: {rate: ten}\n"), 0o600)
		return func(ctx context.Context) (deploy.Released, error) { return b.target.Reconfigure(ctx, file) }, words.Say("the gateway was given limits with the word ten for a rate"), err
	case scenarios.ReleaseErroring:
		r.Flags = []string{"--max-sequence-length", tooShort}
		how = words.Say("version %s was rolled out, the same model with a context of %s token", b.version, tooShort)
	case scenarios.ReleaseSlow:
		r.Model = filepath.Join(b.folder, "model.gguf")
		err = b.target.Deepen(ctx, b.model, r.Model)
		how = words.Say("version %s was rolled out, %s with more layers, which add nothing", b.version, filepath.Base(b.model))
	case scenarios.ReleaseCorruptModel:
		r.Model = filepath.Join(b.folder, "model.gguf")
		var n int64
		n, err = breakOff(b.model, r.Model)
		how = words.Say("version %s was rolled out, a copy of %s that breaks off after %d bytes", b.version, filepath.Base(b.model), n)
	default:
		err = words.Errorf("no bad release is called %q", b.release)
	}
	if err != nil {
		return nil, words.Sentence{}, err
	}
	return func(ctx context.Context) (deploy.Released, error) {
		return b.target.Release(ctx, r, func(words.Sentence) {})
	}, how, nil
}

// breakOff copies the first half of a model file. For a folder, it truncates
// the largest file.
func breakOff(model, to string) (int64, error) {
	st, err := os.Stat(model)
	if err == nil && st.IsDir() {
		model, st, err = largest(model)
	}
	if err != nil {
		return 0, err
	}
	from, err := os.Open(model)
	if err != nil {
		return 0, err
	}
	defer from.Close()
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	n, err := io.CopyN(f, from, min(st.Size()/2, brokenOff))
	return n, errors.Join(err, f.Close())
}

func largest(folder string) (path string, st os.FileInfo, err error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return "", nil, err
	}
	for _, e := range entries {
		info, err := os.Stat(filepath.Join(folder, e.Name()))
		if err == nil && info.Mode().IsRegular() && (st == nil || info.Size() > st.Size()) {
			path, st = filepath.Join(folder, e.Name()), info
		}
	}
	if st == nil {
		return "", nil, words.Errorf("%s holds no file", folder)
	}
	return path, st, nil
}

func (b *bad) SeeInEffect(ctx context.Context) (sight, error) {
	var failed error
	seen, err := until(ctx, pollEvery, func() (words.Sentence, bool) {
		select {
		case <-b.ended:
			var how words.Sentence
			how, failed = b.seenToEnd()
			return how, true
		default:
		}
		pid := b.target.PID(b.victim)
		onCanary := b.victim != deploy.Gateway && pid != 0 && pid != b.pid && !slices.Equal(b.target.Command(b.victim), b.before[b.victim])
		return words.Say("%s runs version %s, now pid %d", b.victim, b.version, pid), onCanary
	})
	return seen, errors.Join(err, failed)
}

// seenToEnd says how a roll-out that has ended was in effect.
func (b *bad) seenToEnd() (words.Sentence, error) {
	switch {
	case b.err != nil:
		return words.Sentence{}, b.err
	case b.end.Live:
		return words.Say("version %s is live: %s", b.version, b.end.Why), nil
	case b.victim == deploy.Gateway:
		return words.Say("refused after %.2f s: %s", b.end.Took, b.end.Why), nil
	case b.end.RollBack == 0: // no replica ever ran it
		return words.Sentence{}, words.Errorf("version %s was refused before %s had it: %s", b.version, b.victim, b.end.Why)
	}
	return words.Say("version %s was on %s, and is found to be bad: %s", b.version, b.victim, b.end.Why), nil
}

// Revert waits until the deployment rolls back on its own, because that time is
// measured. It waits for the whole of within, which is longer than other
// reverts may take. After that it rolls back by hand, so that no bad version
// outlives the fault.
func (b *bad) Revert(ctx context.Context) (sight, error) {
	if b.ended == nil {
		return sight{How: words.Say("nothing was rolled out")}, os.RemoveAll(b.folder)
	}
	select {
	case <-b.ended:
	case <-time.After(b.within):
		b.byHand = words.Say("it was not rolled back within %s", b.within)
	}
	b.cancel()
	<-b.ended
	switch {
	case b.err != nil:
		b.byHand = words.Of(b.err)
	case b.end.Live:
		b.byHand = words.Say("it went live: %s", b.end.Why)
	}
	if b.byHand.IsZero() {
		how := words.Say("rolled back on its own in %.1f s, %.1f s after it began: %s", b.end.RollBack, b.end.Took, b.end.Why)
		if b.victim == deploy.Gateway {
			how = words.Say("nothing to roll back: the limits from before were in force all the time")
		}
		return sight{How: how}, os.RemoveAll(b.folder)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), byHandWithin)
	defer cancel()
	if err := b.takeBack(ctx); err != nil {
		return sight{}, words.Errorf("%s, nor taken back by hand: %s", b.byHand, err)
	}
	return sight{How: words.Say("taken back by hand: %s", b.byHand)}, os.RemoveAll(b.folder)
}

func (b *bad) takeBack(ctx context.Context) error {
	if b.victim == deploy.Gateway {
		end, err := b.target.Reconfigure(ctx, b.target.Limits())
		if err == nil && !end.Live {
			err = words.Error(end.Why.Sentence)
		}
		return err
	}
	return b.target.TakeBack(ctx)
}

// SeeGone reports a version as gone only if the deployment rolled it back
// itself.
func (b *bad) SeeGone(ctx context.Context) (sight, error) {
	if !b.byHand.IsZero() {
		return sight{}, words.Errorf("the bad version was not rolled back on its own: %s", b.byHand)
	}
	return until(ctx, pollEvery, func() (words.Sentence, bool) {
		for replica, command := range b.before {
			if !slices.Equal(b.target.Command(replica), command) {
				return words.Sentence{}, false
			}
		}
		for _, replica := range b.serving {
			if !b.target.Serving(ctx, replica) {
				return words.Sentence{}, false
			}
		}
		return words.Say("every replica runs its previous command, and the gateway routes to %d", len(b.serving)), true
	})
}
