package engine

import (
	"runtime"
	"slices"
	"sync"

	"github.com/launchgate/launchgate/reference-server/sample"
)

// pickers pick tokens beside the steps. If an answer must have a form, finding
// an allowed token can take longer than a step, and all other sequences would
// wait. A sequence whose token is being picked is in no step. Tenants take
// turns.
type pickers struct {
	done func(picked) // is called from another goroutine

	mu      sync.Mutex
	more    *sync.Cond
	jobs    []job
	turn    map[string]int // by tenant: when one of its jobs was taken last
	turns   int
	stopped bool
	running sync.WaitGroup
	free    [][]float32 // rows to reuse
}

// job is a sequence with the logits of its next token.
type job struct {
	seq    *sequence
	logits []float32
}

// picked is the result of a job.
type picked struct {
	seq   *sequence
	token sample.Picked
	err   error
}

// start starts a few workers. They are few, because the processors belong to
// the steps.
func (p *pickers) start(done func(picked)) {
	p.done, p.more, p.turn = done, sync.NewCond(&p.mu), map[string]int{}
	for range max(1, runtime.GOMAXPROCS(0)/4) {
		p.running.Go(func() {
			for {
				j, ok := p.next()
				if !ok {
					return
				}
				p.done(j.pick())
				p.mu.Lock()
				p.free = append(p.free, j.logits)
				p.mu.Unlock()
			}
		})
	}
}

// stop returns when nothing is being picked any more.
func (p *pickers) stop() {
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	p.more.Broadcast()
	p.running.Wait()
}

// ask queues a job. The logits are copied: the next step overwrites them.
func (p *pickers) ask(seq *sequence, logits []float32) {
	seq.picking = true
	p.mu.Lock()
	var row []float32
	if n := len(p.free); n > 0 {
		row, p.free = p.free[n-1], p.free[:n-1]
	}
	p.jobs = append(p.jobs, job{seq, append(row[:0], logits...)})
	p.mu.Unlock()
	p.more.Signal()
}

// next waits for a job: the first of the tenant whose turn was longest ago.
func (p *pickers) next() (job, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.jobs) == 0 && !p.stopped {
		p.more.Wait()
	}
	if p.stopped {
		return job{}, false
	}
	at := 0
	for i, j := range p.jobs {
		if p.turn[j.seq.caller.Tenant] < p.turn[p.jobs[at].seq.caller.Tenant] {
			at = i
		}
	}
	j := p.jobs[at]
	if p.jobs = slices.Delete(p.jobs, at, at+1); len(p.jobs) == 0 {
		clear(p.turn)
	}
	p.turns++
	p.turn[j.seq.caller.Tenant] = p.turns
	return j, true
}

func (j job) pick() (p picked) {
	p.seq = j.seq
	defer func() {
		if recover() != nil {
			p.err = ErrFault
		}
	}()
	if err := j.seq.stream.ctx.Err(); err != nil { // its client has left, so no token is needed
		p.err = err
		return p
	}
	p.token, p.err = j.seq.sampler.Next(j.logits)
	return p
}
