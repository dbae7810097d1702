package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/launchgate/launchgate/reference-server/batch"
	"github.com/launchgate/launchgate/reference-server/sample"
)

// office is a scheduler with a fake model, which writes any token, and with a
// clock that the test sets.
type office struct {
	s     scheduler
	now   time.Time
	given map[string]int // output tokens by tenant
	steps int
}

func newOffice(maxBatch, maxTokens, blocks int) *office {
	o := &office{now: time.Unix(1, 0), given: map[string]int{}}
	o.s = scheduler{blocks: newBlocks(blocks, true, nil), maxBatch: maxBatch, maxTokens: maxTokens, clock: func() time.Time { return o.now }}
	return o
}

// ask adds n sequences of a caller.
func (o *office) ask(c Caller, n, prompt, output int) (all []*sequence) {
	for i := range n {
		seq := &sequence{caller: c, prompt: prompt, limit: prompt + output, stream: newStream(context.Background())}
		for t := range prompt {
			seq.tokens = append(seq.tokens, int32(i*1000+t))
		}
		o.s.arrive(seq)
		all = append(all, seq)
	}
	return all
}

// step makes one step and returns how many tokens it had.
func (o *office) step() (tokens int) {
	o.steps++
	var b batch.Batch
	for _, sh := range slices.Clone(o.s.schedule(&b)) {
		tokens += sh.n
		whole := sh.n == sh.seq.pending()
		sh.seq.computed += sh.n
		sh.seq.settle(o.s.blocks)
		if !whole {
			continue
		}
		o.given[sh.seq.caller.Tenant]++
		sh.seq.tokens = append(sh.seq.tokens, 1)
		if len(sh.seq.tokens) >= sh.seq.limit {
			o.s.remove(sh.seq)
		}
	}
	return tokens
}

// until computes steps until a sequence has its first token, and counts them.
func (o *office) until(t *testing.T, seq *sequence, most int) (steps int) {
	t.Helper()
	for len(seq.tokens) == seq.prompt {
		if steps++; steps > most {
			t.Fatalf("no first token after %d steps; %d run and %d wait", most, len(o.s.running), len(o.s.waiting))
		}
		o.step()
	}
	return steps
}

// Whatever a tenant has queued, the first token of another tenant's short
// request comes within a few steps.
func TestOneTenantDoesNotKeepOthersWaiting(t *testing.T) {
	for _, tt := range []struct {
		name                     string
		n, prompt, output, after int
	}{
		{"20 requests of 16 answers", 320, 20, 250, 40},
		{"long prompts", 64, 2000, 4, 40},
		{"long prompts, just come", 64, 2000, 4, 1},
		{"all places taken", 32, 20, 4000, 3},
		{"a few", 3, 2000, 10, 2},
	} {
		for _, class := range []Class{Batch, Standard, Interactive} {
			t.Run(fmt.Sprintf("%s, %s", tt.name, class), func(t *testing.T) {
				o := newOffice(32, 128, 5000)
				o.ask(Caller{Tenant: "bob", Class: class}, tt.n, tt.prompt, tt.output)
				for range tt.after {
					o.step()
				}
				for range 5 { // again and again
					alice := o.ask(Caller{Tenant: "alice", Class: class}, 1, 20, 2)[0]
					o.until(t, alice, 12)
					o.step()
				}
			})
		}
	}
}

// If tenants ask for more than there is, they get shares by their weights,
// regardless of the number of their requests.
func TestSharesAreByWeight(t *testing.T) {
	o := newOffice(16, 64, 2000)
	for step := range 3000 {
		if step%20 == 0 {
			for name, weight := range map[string]int{"a": 1, "b": 3} {
				if tenant := o.s.tenants[name]; tenant == nil || tenant.waiting < 20 {
					o.ask(Caller{Tenant: name, Class: Standard, Weight: weight}, 20, 10, 30)
				}
			}
		}
		o.step()
	}
	if ratio := float64(o.given["b"]) / float64(o.given["a"]); ratio < 2.4 || ratio > 3.6 {
		t.Errorf("%v: the ratio is %.2f, and the weights say 3", o.given, ratio)
	}
}

// A higher class does not wait for the answers of a lower one to end. A lower
// class rises while it waits, so that it gets its turn.
func TestClassesArePriorities(t *testing.T) {
	o := newOffice(4, 40, 400)
	low := o.ask(Caller{Tenant: "x", Class: Batch}, 8, 10, 400)
	for range 20 {
		o.step()
	}
	high := o.ask(Caller{Tenant: "x", Class: Interactive}, 1, 10, 5)[0] // even of the same tenant
	o.until(t, high, 3)

	o = newOffice(1, 40, 400)
	late := o.ask(Caller{Tenant: "low", Class: Background}, 1, 10, 5)[0]
	for i := 0; len(late.tokens) == late.prompt; i++ {
		if o.s.tenants["high"] == nil || o.s.tenants["high"].present < 3 { // keep some waiting all the time
			o.ask(Caller{Tenant: "high", Class: Interactive}, 3, 10, 50)
		}
		o.now = o.now.Add(100 * time.Millisecond)
		o.step()
		if waited := o.now.Sub(late.since); waited > 4*risesAfter {
			t.Fatalf("the lowest class has waited for %s", waited)
		} else if i == 100 && len(late.tokens) > late.prompt {
			t.Error("the lowest class did not wait at all")
		}
	}
	_ = low
}

// With random arrivals of tenants and classes and with few blocks, no block is
// leaked and all sequences end.
func TestSchedulerOfManyTenants(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 3))
		o := newOffice(1+r.IntN(8), 30+r.IntN(60), 20+r.IntN(40))
		w := walk{t: t, r: r, s: &o.s}
		for i := 0; i < 300 || len(o.s.running)+len(o.s.waiting) > 0; i++ {
			if i > 20_000 {
				t.Fatalf("seed %d: %d run and %d wait for ever", seed, len(o.s.running), len(o.s.waiting))
			}
			if i < 300 && r.IntN(3) == 0 {
				o.ask(Caller{Tenant: string(rune('a' + r.IntN(4))), Class: Class(r.IntN(4)), Weight: r.IntN(4)}, 1+r.IntN(4), 1+r.IntN(150), 1+r.IntN(60))
			}
			if all := append(slices.Clone(o.s.running), o.s.waiting...); len(all) > 0 && r.IntN(20) == 0 {
				o.s.remove(all[r.IntN(len(all))])
			}
			o.now = o.now.Add(time.Duration(r.IntN(2000)) * time.Millisecond)
			o.step()
			w.checkBlocks()
		}
		if o.s.blocks.inUse() != 0 || len(o.s.tenants) != 0 {
			t.Fatalf("seed %d: %d blocks are held, %d tenants are left", seed, o.s.blocks.inUse(), len(o.s.tenants))
		}
	}
}

// A queue that one tenant has filled accepts another tenant's request. The
// first tenant loses its last one.
func TestFullQueueIsShared(t *testing.T) {
	e := open(t, Config{MaxBatch: 1, MaxQueue: 8, Threads: 1})
	ask := func(c Caller, n int) ([]*Stream, error) {
		return e.SubmitAll(context.Background(), Request{Caller: c, Prompt: []int32{5, 6, 7}, MaxTokens: 300, IgnoreEOS: true}, n)
	}
	bob, alice := Caller{Tenant: "bob", Class: Standard}, Caller{Tenant: "alice", Class: Standard}
	run(t, e)
	first, err := ask(bob, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first[0].Next(context.Background()); err != nil {
		t.Fatal(err)
	}
	many, err := ask(bob, 8)
	if err != nil {
		t.Fatal(err)
	}
	for e.Stats().Waiting < 8 {
		time.Sleep(time.Millisecond)
	}
	var full *QueueFullError
	if _, err := ask(bob, 1); !errors.As(err, &full) {
		t.Errorf("bob's next: %v", err)
	}
	if _, err := ask(bob, 16); !errors.As(err, &full) {
		t.Errorf("bob's 16 answers: %v", err)
	}
	short, err := e.Submit(context.Background(), Request{Caller: alice, Prompt: []int32{5, 6, 7}, MaxTokens: 2, IgnoreEOS: true})
	if err != nil {
		t.Fatalf("alice: %v", err)
	}
	if _, last := answer(t, short); last.Err != nil {
		t.Errorf("alice: %v", last.Err)
	}
	if ev, err := many[7].Next(context.Background()); err != nil || !errors.As(ev.Err, &full) {
		t.Errorf("bob's last is to leave the queue: %+v %v", ev, err)
	}
}

// Prompts of a tenant hit only the tenant's own cached blocks, unless the cache
// is configured as shared. Reported hits are on the tenant's own prompts.
func TestPrefixCacheIsATenants(t *testing.T) {
	prompt := make([]int32, 200)
	for i := range prompt {
		prompt[i] = int32(i + 5)
	}
	for _, shared := range []bool{false, true} {
		e := running(t, Config{SharePrefix: shared})
		cached := func(tenant string) int {
			_, last := answer(t, submit(t, e, Request{Caller: Caller{Tenant: tenant}, Prompt: prompt, MaxTokens: 1}))
			return last.Usage.Cached
		}
		if n := cached("alice"); n != 0 {
			t.Errorf("alice's first: %d tokens from the cache", n)
		}
		if n := cached("alice"); n < 150 {
			t.Errorf("alice's second: %d tokens from the cache", n)
		}
		if n := cached("bob"); (n > 0) != shared {
			t.Errorf("shared %v: bob finds %d tokens of alice's prompt", shared, n)
		}
		if n := cached("bob"); n < 150 {
			t.Errorf("bob's second: %d tokens from the cache", n)
		}
	}
}

// slow is a form that takes a time set by the test to find the allowed tokens.
type slow struct {
	held  chan struct{}
	panic bool
	none  bool
}

func (s *slow) Allows(int32) bool {
	if s.panic {
		panic("a form that is broken")
	}
	<-s.held
	return !s.none
}
func (s *slow) Mask() []uint64 { return make([]uint64, 1<<12) }
func (s *slow) Accept(int32)   {}

// The allowed tokens of a form are found beside the steps, so other sequences
// go on, with overlapping steps or without. A form that makes the engine fail,
// or that no token fits, ends only its own request.
func TestFormsDoNotHoldUpOthers(t *testing.T) {
	for _, ahead := range []bool{false, true} {
		e := open(t, Config{MaxBatch: 8})
		if ahead {
			e.steps = &late{e: e}
		}
		run(t, e)
		ids := readGolden().Cases[0].IDs
		form := func(s *slow) *Stream {
			return submit(t, e, Request{Prompt: ids, MaxTokens: 5, IgnoreEOS: true, Sampling: sample.Params{Constraint: s}})
		}
		want, _ := answer(t, submit(t, e, Request{Prompt: ids, MaxTokens: 5, IgnoreEOS: true}))
		held := &slow{held: make(chan struct{})}
		release := sync.OnceFunc(func() { close(held.held) })
		defer release()
		waits := form(held)
		left, leave := context.WithCancel(context.Background())
		gone, err := e.Submit(left, Request{Prompt: ids, MaxTokens: 5, IgnoreEOS: true, Sampling: sample.Params{Constraint: &slow{held: held.held}}})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if text, last := answer(t, submit(t, e, Request{Prompt: ids, MaxTokens: 5, IgnoreEOS: true})); text != want || last.Err != nil {
				t.Errorf("ahead %v: %q %v, want %q", ahead, text, last.Err, want)
			}
		}
		leave()
		if _, last := answer(t, gone); last.Err == nil {
			t.Error("a client that left was answered")
		}
		release()
		if text, last := answer(t, waits); text != want || last.Usage.Output != 5 {
			t.Errorf("ahead %v: the form that was slow: %q %+v, want %q", ahead, text, last, want)
		}
		if _, last := answer(t, form(&slow{panic: true})); !errors.Is(last.Err, ErrFault) {
			t.Errorf("a form that is broken: %+v", last)
		}
		if _, last := answer(t, form(&slow{held: held.held, none: true})); !errors.Is(last.Err, sample.ErrStuck) {
			t.Errorf("a form that nothing fits: %+v", last)
		}
		if text, _ := answer(t, submit(t, e, Request{Prompt: ids, MaxTokens: 5, IgnoreEOS: true})); text != want {
			t.Errorf("after all: %q, want %q", text, want)
		}
	}
}

// With few blocks, sequences are preempted while their token is being picked.
// Their answers are the same as with enough blocks.
func TestFormsOnScarceBlocks(t *testing.T) {
	schema := []byte(`{"type":"array","items":{"enum":["cat","dog",1,12]},"minItems":12,"maxItems":20}`)
	cases := readGolden().Cases
	ask := func(e *Engine, i int) string {
		text, last := answer(t, submit(t, e, Request{Caller: Caller{Tenant: string(rune('a' + i%3)), Class: Class(i % 4)}, Prompt: cases[i].IDs, MaxTokens: 100, Schema: schema}))
		if last.Err != nil {
			t.Error(last.Err)
		}
		return text
	}
	plenty := running(t, Config{MaxBatch: 1})
	scarce := running(t, Config{MaxBatch: 8, KVBytes: 24 * plenty.model.KVBlockBytes()})
	var all sync.WaitGroup
	for i := range 8 {
		want := ask(plenty, i)
		if !strings.HasPrefix(want, "[") {
			t.Errorf("%q", want)
		}
		all.Go(func() {
			if got := ask(scarce, i); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
	all.Wait()
	for range 2000 {
		if st := scarce.Stats(); st.Running+st.Waiting+st.KVInUse == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("something is left: %+v", scarce.Stats())
}

// The largest numbers of their type mean as many tokens as fit.
func TestNumbersAtTheEdge(t *testing.T) {
	e := running(t, Config{MaxSequence: 64})
	for _, n := range []int{1<<63 - 1, 1<<63 - 2, 1 << 62, 1 << 31, 1 << 32} {
		if _, last := answer(t, submit(t, e, Request{Prompt: []int32{5, 6, 7}, MaxTokens: n, IgnoreEOS: true})); last.Usage.Output != 61 {
			t.Errorf("%d: %+v", n, last)
		}
	}
	if _, err := e.Submit(context.Background(), Request{Prompt: []int32{5}, MaxTokens: -1 << 63}); err == nil {
		t.Error("a negative number was taken")
	}
	for _, ids := range [][]int32{{-1}, {1<<31 - 1}, {-1 << 31}, {int32(e.model.Vocab)}} {
		if text, err := e.Detokenize(ids); err == nil {
			t.Errorf("%v is %q", ids, text)
		}
	}
}

// While several tenants are served, a step holds few tokens of prompts, so that a
// newcomer's first token comes after few. One tenant alone has whole steps.
func TestStepsAreShortWhileSeveralTenantsAreServed(t *testing.T) {
	o := newOffice(8, 128, 400)
	o.s.shared = 16
	mine, theirs := Caller{Tenant: "mine", Class: Standard, Weight: 1}, Caller{Tenant: "theirs", Class: Standard, Weight: 1}
	largest := func(steps int) (most int) {
		for range steps {
			most = max(most, o.step())
		}
		return most
	}
	o.ask(mine, 2, 600, 1)
	if n := largest(2); n != 128 {
		t.Errorf("a tenant alone had %d tokens in a step, want all 128", n)
	}
	short := o.ask(theirs, 1, 14, 1)[0]
	if n := o.step(); n != 16 || len(short.tokens) == short.prompt {
		t.Errorf("the step of a newcomer had %d tokens, and its first token came: %v; want 16 and true", n, len(short.tokens) > short.prompt)
	}
	if n := largest(5); n != 16 {
		t.Errorf("a step had %d tokens right after another tenant was served, want 16", n)
	}
	o.now = o.now.Add(apart)
	if n := largest(2); n != 128 {
		t.Errorf("a step had %d tokens when only one tenant had come for a while, want all 128", n)
	}
}
