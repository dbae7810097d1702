package worker

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen"
	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/loadgen/prompt"
	"github.com/launchgate/launchgate/scenarios"
)

const (
	sendEvery = 50 * time.Millisecond // how often results are sent to the coordinator
	sendMost  = 512                   // entries in one message
)

// Work connects to a coordinator and obeys its orders until it hangs up.
func Work(ctx context.Context, address, token, version string) error {
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return words.Errorf("connect to the coordinator: %s", err)
	}
	return work(ctx, newWire(conn), token, version)
}

// Wait listens for a coordinator, which has to show the token with a given SHA-256 sum,
// and obeys its orders until it hangs up. The sum may be known to others: it does not
// tell the token. If nobody shows the token for a while, that is an error.
func Wait(ctx context.Context, address, sum, version string, patience time.Duration) error {
	listen, err := net.Listen("tcp", address)
	if err != nil {
		return words.Errorf("listen for the coordinator: %s", err)
	}
	waiting, done := context.WithTimeoutCause(ctx, patience, words.Errorf("no coordinator connected within %s", patience))
	defer done()
	stop := context.AfterFunc(waiting, func() { listen.Close() })
	defer stop()
	type called struct {
		wire  *wire
		token string
	}
	calls, refused := make(chan called), make(chan error, 1)
	var listening sync.WaitGroup
	defer listening.Wait()
	defer done()
	listening.Go(func() {
		for {
			conn, err := listen.Accept()
			if err != nil {
				refused <- err
				return
			}
			listening.Go(func() {
				hangUp := context.AfterFunc(waiting, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
				w := newWire(conn)
				token, ok := w.called(sum)
				if ok && hangUp() {
					select {
					case calls <- called{w, token}:
						return
					case <-waiting.Done():
					}
				}
				conn.Close() // not our coordinator, or too late
			})
		}
	})
	select {
	case c := <-calls:
		done() // nobody else is heard
		return work(ctx, c.wire, c.token, version)
	case <-waiting.Done():
		if ctx.Err() != nil {
			return nil
		}
		return context.Cause(waiting)
	case err := <-refused:
		return words.Errorf("listen for the coordinator: %s", err)
	}
}

// called reads the coordinator's first message, and reports whether its token is right.
func (w *wire) called(sum string) (token string, ok bool) {
	if w.conn.SetReadDeadline(time.Now().Add(helloFor)) != nil {
		return "", false
	}
	var c call
	if w.in.Decode(&c) != nil || subtle.ConstantTimeCompare([]byte(Sum(c.Token)), []byte(sum)) != 1 {
		return "", false
	}
	return c.Token, w.conn.SetReadDeadline(time.Time{}) == nil
}

// Sum is what Wait is told of a token.
func Sum(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

func work(ctx context.Context, wire *wire, token, version string) error {
	defer wire.conn.Close()
	stop := context.AfterFunc(ctx, func() { wire.conn.Close() })
	defer stop()
	w := &worker{wire: wire, clock: recording.NewClock()}
	if err := w.say(hello{protocol, version, token, os.Getpid(), runtime.GOMAXPROCS(0)}); err != nil {
		return err
	}
	err := w.obey(ctx)
	if errors.Is(err, io.EOF) || ctx.Err() != nil {
		return nil // the coordinator has no more orders
	}
	return err
}

// worker is one process's part of a load.
type worker struct {
	*wire
	clock  recording.Clock
	task   Task
	gate   scenarios.Gate
	plans  []*loadgen.Plan
	client *client.Client
}

// obey carries out one order after the other. It also listens while a scenario is
// played, so that it can be stopped.
func (w *worker) obey(ctx context.Context) error {
	var playing sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer playing.Wait()
	defer cancel()
	for {
		var o order
		if err := w.in.Decode(&o); err != nil {
			return err
		}
		switch o.Do {
		case doPrepare:
			if err := w.prepare(o.Task); err != nil {
				return errors.Join(err, w.say(report{Error: words.Of(err)}))
			}
		case doTell:
			if err := w.say(report{Now: w.clock.Now()}); err != nil {
				return err
			}
			continue
		case doSet:
			w.clock = recording.ClockAt(w.clock.Now() + o.Behind)
		case doPlay:
			playing.Go(func() { w.play(ctx, o.Play) })
			continue
		case doStop:
			cancel()
			continue
		default:
			return words.Errorf("the coordinator requests %q, which this worker does not know", o.Do)
		}
		if err := w.say(report{}); err != nil {
			return err
		}
	}
}

func (w *worker) prepare(t Task) (err error) {
	w.task = t
	w.task.Files = nil // they are written below
	if w.gate, err = scenarios.Parse("gate.yaml", t.Gate); err != nil {
		return err
	}
	if len(t.Files) > 0 {
		folder, err := os.MkdirTemp("", "launchgate-worker-")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(folder)) }() // everything is read here
		if err := unpack(t.Files, folder, &w.gate, &t.Endpoint); err != nil {
			return err
		}
	}
	material, err := prompt.Gather(w.gate)
	if err != nil {
		return err
	}
	if err := material.Keys(w.gate, t.Keys); err != nil {
		return err
	}
	material.Vocabulary, material.Nonce = t.Vocabulary, t.Nonce
	for i, s := range w.gate.Scenarios {
		w.plans = append(w.plans, loadgen.NewPlan(s, t.Seeds[i], material))
	}
	w.client, err = loadgen.Connect(t.Endpoint, t.Via, t.Keys)
	return err
}

// play drives the worker's share of a scenario, and reports what happens meanwhile.
func (w *worker) play(ctx context.Context, p play) {
	out := outbox{wire: w.wire, wake: make(chan struct{}, 1)}
	sending, stop := context.WithCancel(context.Background())
	var beside sync.WaitGroup
	beside.Go(func() { out.send(sending) })
	watching, unwatch := context.WithCancel(ctx)
	beside.Go(func() {
		loadgen.WatchSelf(watching, w.clock, w.client, func(o recording.Observation) {
			o.Subject = Name(w.task.Share.Worker)
			out.observe(o)
		})
	})
	driver := loadgen.Driver{Clock: w.clock, Client: w.client, Share: w.task.Share, Sink: out.request, Observe: out.observe}
	err := driver.Drive(ctx, w.gate.Scenarios[p.Scenario].Name, w.plans[p.Scenario], p.Start)
	unwatch()
	stop()
	beside.Wait()
	last := report{Played: true}
	if err != nil {
		last.Error = words.Of(err)
	}
	_ = w.say(last) // an error of the connection is noticed by the reader
}

// outbox collects what happens and sends it in batches.
type outbox struct {
	*wire
	wake chan struct{}
	mu   sync.Mutex
	next report
}

func (o *outbox) request(r recording.Request) {
	o.add(func(n *report) { n.Requests = append(n.Requests, r) })
}

func (o *outbox) observe(seen recording.Observation) {
	o.add(func(n *report) { n.Observations = append(n.Observations, seen) })
}

func (o *outbox) add(to func(*report)) {
	o.mu.Lock()
	to(&o.next)
	full := len(o.next.Requests) >= sendMost
	o.mu.Unlock()
	if full {
		select {
		case o.wake <- struct{}{}:
		default:
		}
	}
}

// send sends what has been collected until ctx ends, and then once more.
func (o *outbox) send(ctx context.Context) {
	tick := time.NewTicker(sendEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			o.flush()
			return
		case <-tick.C:
		case <-o.wake:
		}
		o.flush()
	}
}

func (o *outbox) flush() {
	o.mu.Lock()
	batch := o.next
	o.next = report{}
	o.mu.Unlock()
	if len(batch.Requests)+len(batch.Observations) > 0 {
		_ = o.say(batch) // an error of the connection is noticed by the reader
	}
}
