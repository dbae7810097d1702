package engine

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/launchgate/launchgate/reference-server/batch"
	"github.com/launchgate/launchgate/reference-server/sample"
	"github.com/launchgate/launchgate/reference-server/tensor"
)

// late computes whole steps on the CPU as a GPU does: the result of a step is
// not known before Wait, and the next step has begun by then.
type late struct {
	e        *Engine
	begun    []lateStep
	last     []int32 // what the step before picked
	overlaps int     // steps that were begun while another was under way
	broken   error
}

type lateStep struct {
	batch batch.Batch
	kv    tensor.KV
	picks []tensor.Pick
}

func (l *late) Picks() bool { return true }

func (l *late) Start(b *batch.Batch, kv tensor.KV, picks []tensor.Pick) error {
	if len(l.begun) > 0 {
		l.overlaps++
	}
	if len(l.begun) == 2 || len(l.begun) == 1 && slices.ContainsFunc(l.begun[0].picks, func(p tensor.Pick) bool { return p.Logits }) {
		panic("a step is begun that has to wait")
	}
	s := lateStep{kv: kv, picks: slices.Clone(picks)}
	s.batch.Tokens, s.batch.Positions, s.batch.Slots, s.batch.Outputs = slices.Clone(b.Tokens), slices.Clone(b.Positions), slices.Clone(b.Slots), slices.Clone(b.Outputs)
	for _, table := range b.Tables {
		s.batch.Tables = append(s.batch.Tables, slices.Clone(table))
	}
	l.begun = append(l.begun, s)
	return nil
}

func (l *late) Wait() (tensor.Done, error) {
	s := l.begun[0]
	l.begun = l.begun[1:]
	if l.broken != nil {
		return tensor.Done{}, l.broken
	}
	for i, id := range s.batch.Tokens {
		if id < 0 {
			s.batch.Tokens[i] = l.last[-1-id]
		}
	}
	all := l.e.model.Forward(&s.batch, s.kv)
	var d tensor.Done
	for i, p := range s.picks {
		row, id := all[i*l.e.model.Vocab:(i+1)*l.e.model.Vocab], 0
		for j, v := range row {
			if v > row[id] {
				id = j
			}
		}
		d.IDs, d.Logits = append(d.IDs, int32(id)), append(d.Logits, nil)
		if p.Logits {
			d.Logits[i] = slices.Clone(row)
		}
	}
	l.last = d.IDs
	return d, nil
}

// Steps overlap, except if the host picks tokens. In both cases the answers are
// those of an engine that computes one step at a time. An answer that ends
// early, by a stop string or because the client left, leaves no block behind.
func TestAhead(t *testing.T) {
	c := readGolden().Cases
	plain := running(t, Config{MaxBatch: 8})
	e := open(t, Config{MaxBatch: 8})
	steps := &late{e: e}
	e.steps = steps
	run(t, e)
	for _, r := range []Request{
		{Prompt: c[0].IDs, MaxTokens: 40, IgnoreEOS: true},
		{Prompt: c[1].IDs, MaxTokens: 400},
		{Prompt: c[2].IDs, MaxTokens: 1},
		{Prompt: c[3].IDs, MaxTokens: 40, IgnoreEOS: true, Sampling: sample.Params{Repetition: 1.3}},
		{Prompt: c[4].IDs, MaxTokens: 40, IgnoreEOS: true, Sampling: sample.Params{Logprobs: true}},
	} {
		want, wantLast := answer(t, submit(t, plain, r))
		got, gotLast := answer(t, submit(t, e, r))
		if got != want || gotLast.Usage.Output != wantLast.Usage.Output || gotLast.Finish != wantLast.Finish {
			t.Errorf("%+v: %q %+v, want %q %+v", r.Sampling, got, gotLast, want, wantLast)
		}
	}
	if steps.overlaps == 0 {
		t.Error("no step was begun while another was under way")
	}
	whole, _ := answer(t, submit(t, e, Request{Prompt: c[0].IDs, MaxTokens: 60, IgnoreEOS: true}))
	if text, last := answer(t, submit(t, e, Request{Prompt: c[0].IDs, MaxTokens: 60, IgnoreEOS: true, Stop: []string{whole[20:24]}})); last.Finish != FinishStop || len(text) > 20 {
		t.Errorf("%q ended with %q", text, last.Finish)
	}
	ctx, leave := context.WithCancel(context.Background())
	gone, err := e.Submit(ctx, Request{Prompt: c[5].IDs, MaxTokens: 2000, IgnoreEOS: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gone.Next(context.Background()); err != nil {
		t.Fatal(err)
	}
	leave()
	answer(t, submit(t, e, Request{Prompt: c[6].IDs, MaxTokens: 20, IgnoreEOS: true}))
	left := e.Stats()
	for range 2000 { // a step without any sequence left may still be under way
		if left = e.Stats(); left.Running+left.Waiting+left.KVInUse == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if left.Running+left.Waiting+left.KVInUse+left.KVLeaked != 0 {
		t.Errorf("%+v", left)
	}
}

// If a device fails, the requests of its steps end with its error, and the
// engine goes on.
func TestAheadOfAFailure(t *testing.T) {
	e := open(t, Config{MaxBatch: 8})
	steps := &late{e: e, broken: errors.New("the device has no memory left")}
	e.steps = steps
	ids := readGolden().Cases[0].IDs
	var streams []*Stream
	for range 3 {
		streams = append(streams, submit(t, e, Request{Prompt: ids, MaxTokens: 20}))
	}
	run(t, e)
	for _, s := range streams {
		if _, last := answer(t, s); !errors.Is(last.Err, steps.broken) {
			t.Errorf("%+v", last)
		}
	}
	if s := e.Stats(); s.KVInUse != 0 {
		t.Errorf("%+v", s)
	}
}
