package cpu

import "sync"

// pool divides work among threads: the caller's and threads−1 that wait for
// work.
type pool struct {
	threads int
	work    chan task
	wait    *sync.WaitGroup // for the tasks under way
	closed  *sync.WaitGroup
}

// task is one thread's part of some work.
type task struct {
	do               func(thread, from, to int)
	thread, from, to int
}

func newPool(threads int) pool {
	p := pool{threads: threads, work: make(chan task), wait: new(sync.WaitGroup), closed: new(sync.WaitGroup)}
	for range threads - 1 {
		p.closed.Go(func() {
			for t := range p.work {
				t.do(t.thread, t.from, t.to)
				p.wait.Done()
			}
		})
	}
	return p
}

// Close ends the threads.
func (p *pool) Close() {
	close(p.work)
	p.closed.Wait()
}

// parallel divides [0, n) into one part for each thread and waits for all of
// them.
func (p *pool) parallel(n int, do func(thread, from, to int)) {
	parts := min(p.threads, n)
	if parts <= 1 {
		do(0, 0, n)
		return
	}
	p.wait.Add(parts - 1)
	for i := 1; i < parts; i++ {
		p.work <- task{do, i, i * n / parts, (i + 1) * n / parts}
	}
	do(0, 0, n/parts)
	p.wait.Wait()
}
