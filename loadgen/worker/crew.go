package worker

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen"
)

const (
	helloFor   = 10 * time.Second // timeout for a new connection to identify itself
	clockAsks  = 16               // the quickest of these answers counts
	startAhead = 200 * time.Millisecond
)

// Crew is the coordinator's view of the workers of a run.
type Crew struct {
	Token   string       // which workers have to show
	listen  net.Listener // nil: the crew connects to the workers
	clock   recording.Clock
	members []*member
}

// member is one worker.
type member struct {
	*wire
	name  string
	cores int // that it may use
	lost  error
}

// Name is what a worker is called in the recording, by the number of its share.
func Name(i int) string { return fmt.Sprintf("worker-%d", i) }

// Recruit listens for workers on an address. 127.0.0.1:0 is for workers of this
// machine.
func Recruit(address string, clock recording.Clock) (*Crew, error) {
	listen, err := net.Listen("tcp", address)
	if err != nil {
		return nil, words.Errorf("listen for workers: %s", err)
	}
	return &Crew{Token: rand.Text(), listen: listen, clock: clock}, nil
}

// Call connects to n workers that wait (see Wait) and know the sum of a token. dial
// connects to one of them by its number, which becomes the number of its share. Until
// ctx ends, a worker that does not answer is called again: it may not be there yet.
func Call(ctx context.Context, n int, token string, clock recording.Clock, dial func(ctx context.Context, i int) (net.Conn, error)) (*Crew, error) {
	c := &Crew{Token: token, clock: clock, members: make([]*member, n)}
	errs := make([]error, n)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var calling sync.WaitGroup
	for i := range n {
		calling.Go(func() {
			if c.members[i], errs[i] = c.call(ctx, i, dial); errs[i] != nil {
				stop(errs[i]) // without this one, the others are of no use
			}
		})
	}
	calling.Wait()
	if ctx.Err() == nil {
		return c, nil
	}
	c.members = slices.DeleteFunc(c.members, func(m *member) bool { return m == nil })
	c.Dismiss()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return nil, context.Cause(ctx)
}

// callAgain is the wait before a worker that did not answer is called again.
const callAgain = 200 * time.Millisecond

func (c *Crew) call(ctx context.Context, i int, dial func(ctx context.Context, i int) (net.Conn, error)) (*member, error) {
	for {
		m, err := c.callOnce(ctx, i, dial)
		var version versionError
		if err == nil || errors.As(err, &version) {
			return m, err
		}
		select {
		case <-ctx.Done():
			if cause := context.Cause(ctx); cause.Error() == err.Error() {
				return nil, cause
			}
			return nil, words.Errorf("%s: %s (%s)", Name(i), context.Cause(ctx), err)
		case <-time.After(callAgain):
		}
	}
}

func (c *Crew) callOnce(ctx context.Context, i int, dial func(ctx context.Context, i int) (net.Conn, error)) (*member, error) {
	conn, err := dial(ctx, i)
	if err != nil {
		return nil, err
	}
	greeting, done := context.WithTimeout(ctx, helloFor)
	defer done()
	hangUp := context.AfterFunc(greeting, func() { conn.Close() })
	m := &member{wire: newWire(conn), name: Name(i)}
	if err = m.say(call{c.Token}); err == nil {
		err = c.greet(m)
	}
	if !hangUp() && err == nil {
		err = context.Cause(greeting)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return m, nil
}

// Address is the address that workers connect to.
func (c *Crew) Address() string { return c.listen.Addr().String() }

// Gather waits until n workers have connected and are ready for the task; each gets its
// share. Connections that do not show the token are closed.
func (c *Crew) Gather(ctx context.Context, n int, task Task) error {
	if c.listen != nil {
		if err := c.greetAll(ctx, n); err != nil {
			return err
		}
	}
	// A worker that stops answering before the load ends when the wait ends.
	hangUp := context.AfterFunc(ctx, func() {
		for _, m := range c.members {
			m.conn.Close()
		}
	})
	defer hangUp()
	for i, m := range c.members {
		task.Share = loadgen.Share{Worker: i, Of: n}
		if err := m.prepare(task, c.clock); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return words.Errorf("%s: %s", m.name, err)
		}
	}
	return nil
}

// greetAll waits until n workers have connected. Connections are greeted concurrently,
// so that one that sends nothing does not delay the others.
func (c *Crew) greetAll(ctx context.Context, n int) error {
	type greeted struct {
		m   *member
		err error
	}
	came := make(chan greeted)
	ctx, done := context.WithCancel(ctx)
	var greeting sync.WaitGroup
	defer greeting.Wait()
	defer done()
	greeting.Go(func() {
		for {
			conn, err := c.listen.Accept()
			if err != nil {
				return // closed below
			}
			greeting.Go(func() {
				stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
				m := &member{wire: newWire(conn)}
				err := c.greet(m)
				stop()
				select {
				case came <- greeted{m, err}:
				case <-ctx.Done():
					conn.Close()
				}
			})
		}
	})
	defer c.listen.Close()
	for len(c.members) < n {
		select {
		case <-ctx.Done():
			return words.Errorf("%d of %d workers connected: %s", len(c.members), n, context.Cause(ctx))
		case g := <-came:
			var version versionError
			switch {
			case g.err == nil:
				g.m.name = Name(len(c.members))
				c.members = append(c.members, g.m)
			case errors.As(g.err, &version):
				return g.err
			default:
				g.m.conn.Close() // not one of our workers
			}
		}
	}
	return nil
}

// versionError is for a worker of another version of launchgate.
type versionError struct{ theirs, ours int }

func (e versionError) Error() string { return e.Said().String() }

func (e versionError) Said() words.Sentence {
	return words.Say("a worker uses version %d of the protocol, expected %d; use the same launchgate for all workers", e.theirs, e.ours)
}

func (c *Crew) greet(m *member) error {
	if err := m.conn.SetReadDeadline(time.Now().Add(helloFor)); err != nil {
		return err
	}
	var h hello
	if err := m.in.Decode(&h); err != nil {
		return err
	}
	if err := m.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	if subtle.ConstantTimeCompare([]byte(h.Token), []byte(c.Token)) != 1 {
		return words.Errorf("wrong token")
	}
	if h.Protocol != protocol {
		return versionError{h.Protocol, protocol}
	}
	m.cores = h.Cores
	return nil
}

// prepare gives a worker its task and sets its clock.
func (m *member) prepare(t Task, clock recording.Clock) error {
	if err := m.say(order{Do: doPrepare, Task: t}); err != nil {
		return err
	}
	if _, err := m.answer(); err != nil {
		return err
	}
	behind, _, err := m.compare(clock)
	if err != nil {
		return err
	}
	if err := m.say(order{Do: doSet, Behind: behind}); err != nil {
		return err
	}
	_, err = m.answer()
	return err
}

// compare asks how far the worker's clock is behind. The offset is the difference between
// the worker's answer and the middle of request and answer; its error is at most half of
// the time between them.
func (m *member) compare(clock recording.Clock) (behind, within time.Duration, err error) {
	best := time.Duration(1 << 62)
	for range clockAsks {
		asked := clock.Now()
		if err := m.say(order{Do: doTell}); err != nil {
			return 0, 0, err
		}
		r, err := m.answer()
		if err != nil {
			return 0, 0, err
		}
		if took := clock.Now() - asked; took < best {
			best, behind = took, asked+took/2-r.Now
		}
	}
	return behind, best / 2, nil
}

// Cores are how many each worker may use.
func (c *Crew) Cores() (all []int) {
	for _, m := range c.members {
		all = append(all, m.cores)
	}
	return all
}

// Play has every worker play its share of a scenario from the same moment. sink and
// observe receive the events as if one process had played it: a stage begins and ends
// once, with the requests of all workers. The loss of a worker is observed, and the
// others continue.
func (c *Crew) Play(ctx context.Context, scenario int, sink func(recording.Request), observe func(recording.Observation)) error {
	start := c.clock.Now() + startAhead
	stages := stageSum{of: len(c.members), seen: map[string]int{}, sum: map[string]float64{}, observe: observe}
	stop := context.AfterFunc(ctx, func() {
		for _, m := range c.members {
			_ = m.say(order{Do: doStop}) // one that is gone has stopped
		}
	})
	defer stop()
	errs := make([]error, len(c.members))
	var playing sync.WaitGroup
	for i, m := range c.members {
		if m.lost != nil {
			continue
		}
		playing.Go(func() {
			errs[i] = m.play(play{scenario, start}, c.clock, sink, stages.see)
			if m.lost != nil {
				observe(recording.Observation{At: c.clock.Now(), Name: recording.ObsWorkerLost, Subject: m.name, Text: words.Of(m.lost)})
			}
		})
	}
	playing.Wait()
	return errors.Join(errs...)
}

// silentFor is how long a worker that plays may be silent. It tells something of itself
// every second.
const silentFor = 30 * time.Second

// play returns when the worker has played, or is lost.
func (m *member) play(p play, clock recording.Clock, sink func(recording.Request), observe func(recording.Observation)) error {
	var silent atomic.Bool
	hangUp := time.AfterFunc(silentFor, func() {
		silent.Store(true)
		m.conn.Close()
	})
	defer func() {
		hangUp.Stop()
		if silent.Load() {
			m.lost = words.Errorf("nothing was heard of it for %s", silentFor)
		}
	}()
	if m.lost = m.say(order{Do: doPlay, Play: p}); m.lost != nil {
		return nil
	}
	for {
		var r report
		if m.lost = m.in.Decode(&r); m.lost != nil {
			return nil
		}
		hangUp.Reset(silentFor)
		for _, row := range r.Requests {
			sink(row)
		}
		for _, o := range r.Observations {
			observe(o)
		}
		if !r.Error.IsZero() {
			return words.Errorf("%s: %s", m.name, r.Error)
		}
		if r.Played {
			m.tellClock(clock, observe)
			return nil
		}
	}
}

// tellClock observes the greatest error that the worker's clock can have had by now: how
// far it is off, and how far that measurement may be.
func (m *member) tellClock(clock recording.Clock, observe func(recording.Observation)) {
	behind, within, err := m.compare(clock)
	if err != nil {
		m.lost = err
		return
	}
	observe(recording.Observation{At: clock.Now(), Name: recording.ObsWorkerClock, Subject: m.name, Value: (behind.Abs() + within).Seconds()})
}

// stageSum merges the observations of all workers of a stage's beginning, and those of
// its end, into one each.
type stageSum struct {
	of      int
	observe func(recording.Observation)
	mu      sync.Mutex
	seen    map[string]int
	sum     map[string]float64
}

func (s *stageSum) see(o recording.Observation) {
	if o.Name != recording.ObsStageStarted && o.Name != recording.ObsStageEnded {
		s.observe(o)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := o.Name + " " + o.Subject
	s.seen[key]++
	s.sum[key] += o.Value
	if s.seen[key] == s.of {
		o.Value = s.sum[key]
		s.observe(o)
	}
}

// Dismiss closes the connections, which ends the workers.
func (c *Crew) Dismiss() {
	if c.listen != nil {
		c.listen.Close()
	}
	for _, m := range c.members {
		m.conn.Close()
	}
}
