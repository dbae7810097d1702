package capacity

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// ruler is a queue whose capacity is known.
type ruler struct {
	name    string
	servers int
	mean    float64 // seconds of service
	// draw returns a service time of mean 1.
	draw func(*rand.Rand) float64
	// shared: all requests under way share the servers (processor sharing), each at
	// most one.
	shared bool
	// batch: a server takes up to so many waiting requests at once, for one service
	// time.
	batch     int
	objective string
	wait      float64 // the limit of the wait, if Erlang's formula knows the truth
}

func exponential(rng *rand.Rand) float64 { return rng.ExpFloat64() }
func always(*rand.Rand) float64          { return 1 }
func lognormal(sigma float64) func(*rand.Rand) float64 {
	return func(rng *rand.Rand) float64 { return math.Exp(sigma*rng.NormFloat64() - sigma*sigma/2) }
}

type times []float64

func (t times) Len() int           { return len(t) }
func (t times) Less(i, j int) bool { return t[i] < t[j] }
func (t times) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *times) Push(x any)        { *t = append(*t, x.(float64)) }
func (t *times) Pop() any {
	old := *t
	x := old[len(old)-1]
	*t = old[:len(old)-1]
	return x
}

// serve returns when each arrival begins to be served, and when its answer ends.
func (q ruler) serve(rng *rand.Rand, arrivals []float64) (begin, end []float64) {
	begin, end = make([]float64, len(arrivals)), make([]float64, len(arrivals))
	switch {
	case q.shared:
		q.share(rng, arrivals, begin, end)
	case q.batch > 1:
		free := make(times, q.servers)
		for i := 0; i < len(arrivals); {
			at := max(free[0], arrivals[i])
			n := 0
			took := q.mean * q.draw(rng)
			for ; i < len(arrivals) && arrivals[i] <= at && n < q.batch; n++ {
				begin[i], end[i] = at, at+took
				i++
			}
			free[0] = at + took
			heap.Fix(&free, 0)
		}
	default:
		free := make(times, q.servers)
		for i, at := range arrivals {
			begin[i] = max(at, free[0])
			end[i] = begin[i] + q.mean*q.draw(rng)
			free[0] = end[i]
			heap.Fix(&free, 0)
		}
	}
	return begin, end
}

// share serves by processor sharing: with n under way, each gets min(1, servers/n). A
// request is done when the work that each got since its arrival equals its own.
func (q ruler) share(rng *rand.Rand, arrivals []float64, begin, end []float64) {
	type job struct {
		at float64 // of the work per request at which it is done
		i  int
	}
	var jobs []job
	now, work := 0.0, 0.0
	speed := func() float64 { return min(1, float64(q.servers)/float64(max(len(jobs), 1))) }
	run := func(until float64) {
		for len(jobs) > 0 {
			done := now + (jobs[0].at-work)/speed()
			if done > until {
				break
			}
			now, work = done, jobs[0].at
			end[jobs[0].i] = now
			jobs = jobs[1:]
		}
		if len(jobs) > 0 {
			if math.IsInf(until, 1) {
				return
			}
			work += (until - now) * speed()
		}
		now = until
	}
	for i, at := range arrivals {
		run(at)
		begin[i] = at
		j := job{work + q.mean*q.draw(rng), i}
		k, _ := slices.BinarySearchFunc(jobs, j, func(a, b job) int {
			if a.at < b.at {
				return -1
			}
			return 1
		})
		jobs = slices.Insert(jobs, k, j)
	}
	run(math.Inf(1))
}

// try plays a rate for a time from an empty queue, and returns its requests.
func (q ruler) try(rng *rand.Rand, rate, lasts float64) []recording.Request {
	var arrivals []float64
	for at := rng.ExpFloat64() / rate; at < lasts; at += rng.ExpFloat64() / rate {
		arrivals = append(arrivals, at)
	}
	begin, end := q.serve(rng, arrivals)
	rows := make([]recording.Request, len(arrivals))
	since := func(v float64) time.Duration { return time.Second + time.Duration(v*1e9) }
	for i, at := range arrivals {
		rows[i] = recording.Request{
			Seq: int64(i), Kind: recording.KindLoad, Scenario: "steady", Stage: "main", Streamed: true, Due: since(at), Sent: since(at), FirstByte: since(at),
			FirstToken: since(begin[i]) + time.Microsecond, FirstOutput: since(begin[i]) + time.Microsecond, LastToken: since(end[i]), End: since(end[i]), Status: 200, FinishReason: "stop", OutputTokens: 6, FirstChunkTokens: 1,
		}
	}
	return rows
}

func (q ruler) gate(t testing.TB) scenarios.Gate {
	o, err := scenarios.ParseObjective(q.objective)
	if err != nil {
		t.Fatal(err)
	}
	return scenarios.Gate{Objectives: []scenarios.Objective{o}}
}

// missing is the share of requests that miss the objective in the long run, at a rate.
func (q ruler) missing(t testing.TB, rate, lasts float64, seed uint64) float64 {
	score := checklist.Scores(q.gate(t))[0]
	rows := q.try(rand.New(rand.NewPCG(seed, 99)), rate, lasts)
	var over, of float64
	for i := len(rows) / 10; i < len(rows); i++ {
		k, n := score.Of(&rows[i])
		over, of = over+k, of+n
	}
	return over / of
}

// erlang is the rate at which the p95 of the wait is a limit (Erlang C).
func erlang(servers int, mean, limit, quantile float64) float64 {
	low, high := 0.0, float64(servers)/mean
	for range 100 {
		rate := (low + high) / 2
		b, a := 1.0, rate*mean
		for k := 1; k <= servers; k++ {
			b = a * b / (float64(k) + a*b)
		}
		c := b / (1 - a/float64(servers)*(1-b))
		wait := 0.0
		if c > 1-quantile {
			wait = math.Log(c/(1-quantile)) / (float64(servers)/mean - rate)
		}
		if wait <= limit {
			low = rate
		} else {
			high = rate
		}
	}
	return low
}
