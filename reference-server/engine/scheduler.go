package engine

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/launchgate/launchgate/internal/flaws"
	"github.com/launchgate/launchgate/reference-server/batch"
	"github.com/launchgate/launchgate/reference-server/tensor"
)

// scheduler decides what each step computes. It has two queues and a budget.
// Running sequences hold blocks, and waiting ones hold none.
//
// A step first gives every running sequence that decodes its one token, then the
// rest of its token budget to prompts, in chunks, so that a long prompt does not
// stall the others' tokens.
//
// While several tenants are served, prompts get less of a step, so that the step
// is short: whoever comes has to wait until it has ended, and shares the next.
//
// Who comes first: the higher class; within a class the tenant that has been
// given the least, by its weight (fair queueing, Demers, Keshav and Shenker
// 1989); within a tenant who arrived first. A sequence that waits too long rises
// to the next class, so that none starves. Every answer of a request is a
// sequence of its own, so that asking for many answers gives no advantage.
//
// When a sequence that comes first finds no place, one of a lower class gives up
// its own, or one of a tenant of the same class that has more places than it would
// have after. When blocks run out in a step, the sequence that arrived last gives its own up, of
// the lowest class and of the tenant with the most places; the one that arrived
// first of all others is never preempted so, so that it ends, and with it, one
// after the other, all do.
type scheduler struct {
	blocks    *blocks
	maxBatch  int // sequences in a step
	maxTokens int // tokens in a step
	running   []*sequence
	waiting   []*sequence
	preempted int64
	refused   []*sequence // by the last step, because they would not even fit alone
	tenants   map[string]*tenant
	clock     func() time.Time // nil: time.Now
	// shared is the most tokens of prompts in a step while several tenants are
	// served, beside the tokens that decode; 0: as many as otherwise.
	shared  int
	latest  *string   // name of the tenant that came last; nil: none came
	several time.Time // when another tenant came than the one before

	// State of the step that is being planned. It is reused, so that a step
	// allocates nothing.
	now    time.Time
	budget int
	step   []share
	turns  []*sequence
	given  []*sequence // those that gave up their place in this step

	squeezed bool // blocks ran out in this step
}

// tenant is a tenant with sequences that run or wait.
type tenant struct {
	weight  float64
	used    float64 // tokens it was given, divided by its weight
	present int     // sequences that run or wait
	running int
	waiting int
}

// places is the number of the tenant's running sequences, plus more, divided by
// its weight.
func (t *tenant) places(more int) float64 { return float64(t.running+more) / t.weight }

const (
	// risesAfter is how long a sequence waits until it rises to the next class.
	risesAfter = 30 * time.Second
	// apart is how long several tenants count as served after one of them came.
	apart = 10 * time.Second
	// quantum is how many tokens a sequence may compute before one of its own
	// class can take its place.
	quantum = 8
)

// share is a sequence's part of a step: n of its pending tokens.
type share struct {
	seq *sequence
	n   int
}

// arrive adds a sequence. A tenant without sequences starts with the usage of
// the tenant that got the least, so it cannot save up a share while it is away.
func (s *scheduler) arrive(seq *sequence) {
	if s.tenants == nil {
		s.tenants = map[string]*tenant{}
	}
	name := seq.caller.Tenant
	if flaws.On("unfair-queue") {
		name, seq.caller.Class = "", Standard
	}
	t := s.tenants[name]
	if t == nil {
		t = &tenant{}
		first := true
		for _, other := range s.tenants {
			if first || other.used < t.used {
				t.used, first = other.used, false
			}
		}
		s.tenants[name] = t
	}
	t.weight = float64(max(1, seq.caller.Weight))
	t.present++
	seq.tenant, seq.since = t, s.time()
	if s.latest != nil && *s.latest != name {
		s.several = seq.since
	}
	s.latest = &name
	if seq.request == nil {
		seq.request = &asked{}
	}
	s.wait(seq, len(s.waiting))
}

// time is now.
func (s *scheduler) time() time.Time {
	if s.clock != nil {
		return s.clock()
	}
	return time.Now()
}

// class is the class of a sequence, including the classes by which it has
// risen.
func (s *scheduler) class(seq *sequence) Class {
	return min(Interactive, seq.caller.Class+Class(s.now.Sub(seq.since)/risesAfter))
}

// schedule fills b with the next step and returns the shares of its sequences.
// They are empty if there is nothing to do.
func (s *scheduler) schedule(b *batch.Batch) []share {
	s.budget, s.step, s.refused, s.given, s.now = s.maxTokens, s.step[:0], s.refused[:0], s.given[:0], s.time()
	s.turns = append(s.turns[:0], s.running...) // a copy, because running changes when a sequence is preempted
	s.squeezed = false
	for _, seq := range s.turns {
		if seq.decoding() && slices.Contains(s.running, seq) {
			s.plan(seq)
		}
	}
	s.turns = slices.DeleteFunc(s.turns, (*sequence).decoding)
	if s.shared > 0 && !s.several.IsZero() && s.now.Sub(s.several) < apart {
		s.budget = min(s.budget, s.shared)
	}
	s.planPrompts()
	// A sequence may have been preempted after it was planned.
	s.step = slices.DeleteFunc(s.step, func(sh share) bool { return len(sh.seq.table)*tensor.BlockSize < sh.seq.computed+sh.n })
	b.Reset()
	for _, sh := range s.step {
		sh.add(b)
	}
	return s.step
}

// order says who comes first.
func (s *scheduler) order(a, b *sequence) int {
	if c := cmp.Compare(s.class(b), s.class(a)); c != 0 || a.tenant == b.tenant {
		return c
	}
	if c := cmp.Compare(a.tenant.used, b.tenant.used); c != 0 {
		return c
	}
	return cmp.Compare(a.tenant.places(0), b.tenant.places(0))
}

// planPrompts gives the rest of the step's budget to prompts: of running
// sequences and of those that can begin, in order.
func (s *scheduler) planPrompts() {
	full := false // no other sequence can begin
	for s.budget > 0 {
		at := -1
		for i, seq := range s.turns {
			if slices.Contains(s.running, seq) && (at < 0 || s.order(seq, s.turns[at]) < 0) {
				at = i
			}
		}
		var next *sequence
		if !full && !s.squeezed {
			next = s.first()
		}
		switch {
		case at >= 0 && (next == nil || s.order(s.turns[at], next) <= 0):
			s.plan(s.turns[at])
			s.turns = slices.Delete(s.turns, at, at+1)
		case next == nil:
			return
		default:
			full = !s.begin(next)
		}
	}
}

// begin starts a waiting sequence or makes room for it, and reports whether it
// did one of them.
func (s *scheduler) begin(seq *sequence) bool {
	switch {
	case len(s.running) < s.maxBatch && s.admit(seq):
		s.unwait(seq)
		s.run(seq)
		s.plan(seq)
	case s.giveUp(seq):
	case len(s.running) > 0 || len(s.given) > 0:
		return false
	default:
		// Nothing runs and it does not fit: the device has no memory for it.
		s.refused = append(s.refused, seq)
		s.remove(seq)
	}
	return true
}

// first is the first waiting sequence, in order, of those that can run.
func (s *scheduler) first() (first *sequence) {
	for _, seq := range s.waiting {
		if !seq.picking && !slices.Contains(s.given, seq) && (first == nil || s.order(seq, first) < 0) {
			first = seq
		}
	}
	return first
}

// giveUp preempts a running sequence for one that comes before it, and reports
// whether it found one.
func (s *scheduler) giveUp(to *sequence) bool {
	var victim *sequence
	for _, seq := range s.running {
		lower := s.class(seq) < s.class(to)
		fairer := s.class(seq) == s.class(to) && seq.ran >= quantum && seq.tenant.places(-1) >= to.tenant.places(1)
		if (lower || fairer) && (victim == nil || s.lesser(seq, victim)) {
			victim = seq
		}
	}
	if victim == nil {
		return false
	}
	s.given = append(s.given, victim)
	s.preempt(victim)
	return true
}

// lesser reports whether a is preempted before b: because a is of a lower
// class, or of a tenant with more places, or arrived later.
func (s *scheduler) lesser(a, b *sequence) bool {
	c := cmp.Compare(s.class(a), s.class(b))
	if c == 0 {
		c = cmp.Compare(b.tenant.places(0), a.tenant.places(0))
	}
	return c <= 0 // running is in the order of arrival
}

// plan gives a sequence its share of the remaining budget of the step.
func (s *scheduler) plan(seq *sequence) {
	if seq.full() {
		return // its last token is being computed
	}
	n := min(seq.pending(), s.budget)
	if n > 0 && s.reserve(seq, n) {
		s.step = append(s.step, share{seq, n})
		s.budget -= n
		seq.ran += n
		seq.tenant.used += float64(n) / seq.tenant.weight
	}
}

// admit takes the sequence's cached blocks, if there is room for all of its
// other tokens.
func (s *scheduler) admit(seq *sequence) bool {
	// At least one token must be computed, for there to be logits.
	seq.table, seq.chain = s.blocks.match(seq.caller.Tenant, seq.tokens[:len(seq.tokens)-1])
	seq.computed = len(seq.table) * tensor.BlockSize
	if seq.short(seq.pending()) > s.blocks.available() {
		seq.drop(s.blocks)
		return false
	}
	if len(seq.tokens) == seq.prompt {
		seq.reused = seq.computed
	}
	return true
}

// reserve takes the blocks for n more tokens of seq, and preempts others if
// necessary.
func (s *scheduler) reserve(seq *sequence, n int) bool {
	for seq.short(n) > 0 {
		if id, ok := s.blocks.take(); ok {
			seq.table = append(seq.table, id)
			continue
		}
		last := s.running[0]
		for _, other := range s.running {
			if s.lesser(other, last) {
				last = other
			}
		}
		s.preempt(last)
		s.squeezed = true
		if last == seq {
			return false
		}
	}
	return true
}

// preempt frees a running sequence's blocks. The sequence is the first of its
// tenant to run again.
func (s *scheduler) preempt(seq *sequence) {
	seq.drop(s.blocks)
	s.running = slices.DeleteFunc(s.running, func(other *sequence) bool { return other == seq })
	seq.tenant.running--
	s.wait(seq, 0)
	s.preempted++
}

func (s *scheduler) run(seq *sequence) {
	s.running = append(s.running, seq)
	seq.tenant.running++
	seq.ran = 0
	seq.request.begun = true
}

func (s *scheduler) wait(seq *sequence, at int) {
	s.waiting = slices.Insert(s.waiting, at, seq)
	seq.tenant.waiting++
}

func (s *scheduler) unwait(seq *sequence) bool {
	i := slices.Index(s.waiting, seq)
	if i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
		seq.tenant.waiting--
	}
	return i >= 0
}

// remove forgets a sequence that has ended.
func (s *scheduler) remove(seq *sequence) {
	if i := slices.Index(s.running, seq); i >= 0 {
		seq.drop(s.blocks)
		s.running = slices.Delete(s.running, i, i+1)
		seq.tenant.running--
	} else if !s.unwait(seq) {
		return
	}
	if seq.tenant.present--; seq.tenant.present == 0 {
		for name, t := range s.tenants {
			if t == seq.tenant {
				delete(s.tenants, name)
			}
		}
	}
}

// overflow removes waiting sequences from the queue until at most most are
// left. It removes only requests that have not begun: first those of the lowest
// class, of the tenant with the most waiting ones, and the last to arrive.
func (s *scheduler) overflow(most int) (out []*sequence) {
	s.now = s.time()
	for {
		var last *sequence
		fresh := 0
		for _, seq := range s.waiting {
			if seq.request.begun {
				continue
			}
			fresh++
			if last == nil || s.class(seq) < s.class(last) || s.class(seq) == s.class(last) && seq.tenant.queue() >= last.tenant.queue() {
				last = seq
			}
		}
		if fresh <= most {
			return out
		}
		s.remove(last)
		out = append(out, last)
	}
}

// crowd counts the sequences that wait in a queue that is nearly full.
type crowd struct {
	lowest  Class
	waiting map[string]float64 // number for each tenant, divided by its weight; nil if there is room
	most    float64
}

// crowd counts the queue if it is at least half full.
func (s *scheduler) crowd(most int) (c crowd) {
	if len(s.waiting) <= most/2 {
		return c
	}
	c.lowest, c.waiting = Interactive, make(map[string]float64, len(s.tenants))
	for name, t := range s.tenants {
		c.waiting[name] = t.queue()
		c.most = max(c.most, t.queue())
	}
	for _, seq := range s.waiting {
		if !seq.request.begun {
			c.lowest = min(c.lowest, s.class(seq))
		}
	}
	return c
}

// with also counts sequences that have just arrived.
func (c crowd) with(arrived []*sequence) crowd {
	all := crowd{c.lowest, map[string]float64{}, c.most}
	if c.waiting == nil {
		all.lowest = Interactive
	}
	maps.Copy(all.waiting, c.waiting)
	for _, seq := range arrived {
		name := seq.caller.Tenant
		all.waiting[name] += 1 / float64(max(1, seq.caller.Weight))
		all.lowest, all.most = min(all.lowest, seq.caller.Class), max(all.most, all.waiting[name])
	}
	return all
}

// yields reports whether others leave a full queue for n more sequences of a
// caller: those of a lower class, or of a tenant that would still have more in
// it than the caller.
func (c crowd) yields(to Caller, n int) bool {
	after := c.waiting[to.Tenant] + float64(n)/float64(max(1, to.Weight))
	return c.lowest < to.Class || c.lowest == to.Class && c.most >= after+1
}

// queue is how many sequences of the tenant wait, by its weight.
func (t *tenant) queue() float64 { return float64(t.waiting) / t.weight }

// add puts the share's tokens into the batch.
func (sh share) add(b *batch.Batch) {
	seq := sh.seq
	for pos := seq.computed; pos < seq.computed+sh.n; pos++ {
		b.Tokens = append(b.Tokens, seq.tokens[pos])
		b.Positions = append(b.Positions, int32(pos))
		b.Slots = append(b.Slots, seq.table[pos/tensor.BlockSize]*tensor.BlockSize+int32(pos%tensor.BlockSize))
		b.Tables = append(b.Tables, seq.table)
	}
	if sh.n == seq.pending() {
		b.Outputs = append(b.Outputs, int32(len(b.Tokens)-1))
	}
}
