package run

import (
	"context"
	"crypto/rand"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen"
	"github.com/launchgate/launchgate/loadgen/worker"
	"github.com/launchgate/launchgate/scenarios"
)

// WorkerTokenVariable holds the token that a worker has to show.
const WorkerTokenVariable = "LAUNCHGATE_WORKER_TOKEN"

// How long it may take until all workers are ready: on other machines they may have to
// get an image first.
const (
	recruitFor          = 30 * time.Second
	recruitElsewhereFor = 3 * time.Minute
)

// crew are the processes over which the load is distributed.
type crew struct {
	*worker.Crew
	elsewhere deploy.Workers // nil: they are processes of this machine
	processes sync.WaitGroup
	cancel    context.CancelFunc
}

// recruit starts the workers and gives them their task.
func (c *conductor) recruit(ctx context.Context, to deploy.Access) error {
	src, err := scenarios.Marshal(c.Gate)
	if err != nil {
		return err
	}
	to.Endpoint.Model = c.client.Model()
	task := worker.Task{Gate: src, Endpoint: to.Endpoint, Via: to.Via, Keys: c.keys, Vocabulary: c.Material.Vocabulary, Nonce: c.Material.Nonce}
	for _, s := range c.Gate.Scenarios {
		task.Seeds = append(task.Seeds, SeedFor(c.Gate, s.Name))
	}
	if c.Elsewhere != nil {
		err = c.callWorkers(ctx, to, task)
	} else {
		err = c.startWorkers(ctx, task)
	}
	if err != nil {
		return err
	}
	c.say("%d workers share the load", c.Workers)
	return nil
}

// startWorkers starts processes of this machine, which connect to this one.
func (c *conductor) startWorkers(ctx context.Context, task worker.Task) error {
	w, err := worker.Recruit("127.0.0.1:0", c.clock)
	if err != nil {
		return err
	}
	running, cancel := context.WithCancel(context.Background())
	c.crew = &crew{Crew: w, cancel: cancel}
	gathering, stop := context.WithTimeoutCause(ctx, recruitFor, words.Errorf("not all workers were ready within %s; see %s", recruitFor, c.rec.LogDir()))
	defer stop()
	for i := range c.Workers {
		if err := c.crew.start(running, append(c.Worker, "--connect", w.Address()), filepath.Join(c.rec.LogDir(), worker.Name(i)+".log")); err != nil {
			return err
		}
	}
	return w.Gather(gathering, c.Workers, task)
}

// callWorkers starts workers on other machines and connects to them.
func (c *conductor) callWorkers(ctx context.Context, to deploy.Access, task worker.Task) error {
	if err := c.Elsewhere.Reaches(to); err != nil {
		return err
	}
	task.Endpoint = to.ForWorkers()
	var err error
	if task.Files, err = worker.Pack(c.Gate, task.Endpoint); err != nil {
		return err
	}
	token := rand.Text()
	began := time.Now()
	pods, err := c.Elsewhere.Start(ctx, c.Workers, worker.Sum(token), c.journal)
	if err != nil {
		return err
	}
	c.crew = &crew{elsewhere: pods}
	calling, done := context.WithTimeoutCause(ctx, recruitElsewhereFor, words.Errorf("not all workers were ready within %s", recruitElsewhereFor))
	defer done()
	calling, stop := context.WithCancelCause(calling)
	defer stop(nil)
	if c.crew.Crew, err = worker.Call(calling, c.Workers, token, c.clock, func(ctx context.Context, i int) (net.Conn, error) {
		if err := pods.Hopeless(); err != nil {
			stop(err)
			return nil, err
		}
		return pods.Dial(ctx, i)
	}); err != nil {
		return err
	}
	for i, cores := range c.crew.Cores() {
		c.observe(recording.Observation{At: c.clock.Now(), Name: recording.ObsWorkerPlace, Subject: worker.Name(i), Value: float64(cores), Text: pods.Place(i)})
	}
	if err := c.crew.Gather(calling, c.Workers, task); err != nil {
		return err
	}
	c.say("%d workers were ready after %.1f s", c.Workers, time.Since(began).Seconds())
	return nil
}

// start starts a worker. It ends when its connection is closed, or when this process
// ends. The goroutine stays on its thread, because the kernel ends the child together
// with the thread that started it.
func (c *crew) start(ctx context.Context, argv []string, log string) error {
	out, err := os.Create(log)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), WorkerTokenVariable+"="+c.Token)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = dieWithParent()
	started := make(chan error, 1)
	c.processes.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer out.Close()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log, and the recording says that it was lost
		}
	})
	return <-started
}

// dismiss ends the workers and waits for them.
func (c *crew) dismiss() error {
	if c.Crew != nil {
		c.Crew.Dismiss()
	}
	if c.elsewhere != nil {
		return c.elsewhere.Stop()
	}
	timer := time.AfterFunc(2*time.Second, c.cancel)
	defer timer.Stop()
	defer c.cancel()
	c.processes.Wait()
	return nil
}

// drive plays a scenario's load, from this process or by the workers.
func (c *conductor) drive(ctx context.Context, s scenarios.Scenario, plan *loadgen.Plan, sink func(recording.Request)) error {
	if c.crew != nil {
		i := 0
		for i = range c.Gate.Scenarios {
			if c.Gate.Scenarios[i].Name == s.Name {
				break
			}
		}
		return c.crew.Play(ctx, i, sink, c.observe)
	}
	driver := loadgen.Driver{Clock: c.clock, Client: c.client, Share: loadgen.Whole, Sink: sink, Observe: c.observe}
	if c.Undecided != nil && slices.ContainsFunc(s.Stages, func(st scenarios.Stage) bool { return st.Extend > 0 }) {
		driver.Undecided = func() bool { return c.undecided(s) }
	}
	return driver.Drive(ctx, s.Name, plan, c.clock.Now())
}

// undecided reports whether a scenario has to be extended. A recording that cannot
// be judged yet is no reason to extend it.
func (c *conductor) undecided(s scenarios.Scenario) bool {
	if c.rec.Flush() != nil {
		return false
	}
	more, err := c.Undecided(c.Dir, s.Name)
	switch {
	case err != nil:
		c.say("%s is not extended: %s", s.Name, err)
	case more:
		c.say("%s is extended: its objectives cannot all be decided yet", s.Name)
	}
	return more && err == nil
}
