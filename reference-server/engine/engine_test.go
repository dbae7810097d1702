package engine

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/launchgate/launchgate/reference-server/sample"
)

// answer reads a stream to its end.
func answer(t *testing.T, s *Stream) (text string, last Event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		ev, err := s.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		text += ev.Text
		if ev.Finish != "" || ev.Err != nil {
			return text, ev
		}
	}
}

func submit(t *testing.T, e *Engine, r Request) *Stream {
	t.Helper()
	s, err := e.Submit(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// An answer has the same tokens in every case: computed alone, among others, in
// small steps, from the prefix cache, with so few blocks that it is preempted
// again and again, or with overlapping steps.
func TestAnswersDoNotDependOnCompany(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: the race detector takes ten times as long")
	}
	cases := readGolden().Cases
	alone := running(t, Config{MaxBatch: 1, NoPrefix: true})
	want := make([][]int32, len(cases))
	for i, c := range cases {
		want[i] = generate(t, alone, Request{Prompt: c.IDs, MaxTokens: 60, IgnoreEOS: true})
	}
	block := alone.model.KVBlockBytes()
	for _, tt := range []struct {
		name   string
		config Config
		ahead  bool
	}{
		{"together", Config{MaxBatch: 20}, false},
		{"three threads", Config{MaxBatch: 20, Threads: 3}, false},
		{"small steps", Config{MaxBatch: 4, MaxTokens: 1}, false},
		{"scarce blocks", Config{MaxBatch: 20, KVBytes: 24 * block}, false},
		{"scarce blocks without reuse", Config{MaxBatch: 20, KVBytes: 24 * block, NoPrefix: true}, false},
		{"ahead", Config{MaxBatch: 20}, true},
		{"ahead in small steps", Config{MaxBatch: 4, MaxTokens: 1}, true},
		{"ahead with scarce blocks", Config{MaxBatch: 20, KVBytes: 24 * block}, true},
		{"ahead with scarce blocks without reuse", Config{MaxBatch: 20, KVBytes: 24 * block, NoPrefix: true}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := open(t, tt.config)
			if tt.ahead {
				e.steps = &late{e: e}
			}
			run(t, e)
			for round := range 2 { // the second finds the prompts in the cache
				got := make([][]int32, len(cases))
				var all sync.WaitGroup
				for i, c := range cases {
					all.Go(func() { got[i] = generate(t, e, Request{Prompt: c.IDs, MaxTokens: 60, IgnoreEOS: true}) })
				}
				all.Wait()
				for i := range cases {
					if !slices.Equal(got[i], want[i]) {
						t.Errorf("round %d, prompt %d: %v\nalone: %v", round, i, got[i], want[i])
					}
				}
			}
			st := e.Stats()
			t.Logf("%d preemptions, %d of %d prompt tokens from the cache, %d steps", st.Preemptions, st.CachedTokens, st.PromptTokens, st.Steps)
			if scarce := tt.config.KVBytes > 0; scarce != (st.Preemptions > 0) {
				t.Errorf("%d preemptions", st.Preemptions)
			}
			// With few blocks it is random whether a block is found again
			// before it is reused.
			if st.CachedTokens > 0 && tt.config.NoPrefix || st.CachedTokens == 0 && !tt.config.NoPrefix && tt.config.KVBytes == 0 {
				t.Errorf("%d tokens from the cache", st.CachedTokens)
			}
			if st.Waiting+st.Running != 0 || st.KVUsed != 0 || st.KVLeaked != 0 {
				t.Errorf("something is left: %+v", st)
			}
		})
	}
}

// A long prompt is computed in chunks, so that other sequences get tokens
// meanwhile.
func TestLongPromptDoesNotStallOthers(t *testing.T) {
	e := running(t, Config{MaxBatch: 4, MaxTokens: 32, Threads: 1})
	short := submit(t, e, Request{Prompt: []int32{5, 6, 7}, MaxTokens: 300, IgnoreEOS: true})
	if _, err := short.Next(context.Background()); err != nil {
		t.Fatal(err)
	}
	long := make([]int32, 700)
	for i := range long {
		long[i] = int32(i%4000 + 3)
	}
	before := e.Stats()
	s := submit(t, e, Request{Prompt: long, MaxTokens: 1})
	if _, last := answer(t, s); last.Finish != FinishLength {
		t.Errorf("%+v", last)
	}
	st := e.Stats()
	steps, tokens := st.Steps-before.Steps, st.OutputTokens-before.OutputTokens
	if steps < 700/32 || tokens < steps-2 {
		t.Errorf("the prompt took %d steps, and the other answer got %d tokens meanwhile", steps, tokens)
	}
	answer(t, short)
}

// No request starves. With far more requests than fit, each is answered, and
// early ones end before many later ones.
func TestEverybodyIsAnsweredInTurn(t *testing.T) {
	const n = 40
	e := open(t, Config{MaxBatch: 4, Threads: 1})
	ended := make(chan int, n)
	var all sync.WaitGroup
	for i := range n {
		s := submit(t, e, Request{Prompt: []int32{int32(10 + i), 20, 30}, MaxTokens: 8, IgnoreEOS: true})
		all.Go(func() { answer(t, s); ended <- i })
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { e.Run(ctx); close(done) }()
	all.Wait()
	cancel()
	<-done
	for place := range n {
		if i := <-ended; i-place > 8 || place-i > 8 {
			t.Errorf("request %d ended as number %d", i, place)
		}
	}
}

func TestStopStrings(t *testing.T) {
	e := running(t, Config{})
	prompt := e.Tokenize("Once upon a time")
	whole, _ := answer(t, submit(t, e, Request{Prompt: prompt, MaxTokens: 40}))
	words := strings.Fields(whole)
	stop := words[4] + " " + words[5] // spans two tokens
	text, last := answer(t, submit(t, e, Request{Prompt: prompt, MaxTokens: 40, Stop: []string{"nowhere in it", stop}}))
	if want := whole[:strings.Index(whole, stop)]; text != want || last.Finish != FinishStop {
		t.Errorf("%q (%s), want %q", text, last.Finish, want)
	}
	// The held-back beginning of an incomplete stop string is sent at the end.
	if text, _ := answer(t, submit(t, e, Request{Prompt: prompt, MaxTokens: 6, Stop: []string{" there was a little cat named Tom"}})); !strings.HasPrefix(whole, text) || len(text) < 5 {
		t.Errorf("%q is not the beginning of %q", text, whole)
	}
}

func TestSamplingRepeatsFromItsSeed(t *testing.T) {
	e := running(t, Config{})
	prompt := e.Tokenize("Once upon a time")
	draw := func(seed uint64) []int32 {
		return generate(t, e, Request{Prompt: prompt, MaxTokens: 20, Sampling: sample.Params{Temperature: 1, TopP: 0.9, Seed: seed}})
	}
	if a, b := draw(1), draw(1); !slices.Equal(a, b) {
		t.Errorf("the same seed gave %v and %v", a, b)
	}
	if a, b := draw(1), draw(2); slices.Equal(a, b) {
		t.Error("two seeds gave the same answer")
	}
}

func TestRefusals(t *testing.T) {
	e := open(t, Config{MaxSequence: 64, MaxQueue: 2}) // not running, so submitted requests wait
	var long *TooLongError
	if _, err := e.Submit(context.Background(), Request{Prompt: make([]int32, 64)}); !errors.As(err, &long) || long.Prompt != 64 || long.Max != 64 {
		t.Errorf("a prompt that leaves no room: %v", err)
	}
	for _, r := range []Request{{}, {Prompt: []int32{-1}}, {Prompt: []int32{4096}}, {Prompt: []int32{1}, Sampling: sample.Params{Temperature: -1}}} {
		if _, err := e.Submit(context.Background(), r); err == nil {
			t.Errorf("%+v was taken", r)
		}
	}
	submit(t, e, Request{Prompt: []int32{1}})
	submit(t, e, Request{Prompt: []int32{1}})
	var full *QueueFullError
	if _, err := e.Submit(context.Background(), Request{Prompt: []int32{1}}); !errors.As(err, &full) || full.Waiting != 2 || full.RetryAfter < time.Second {
		t.Errorf("a full queue: %v", err)
	}
	e.Drain()
	if _, err := e.Submit(context.Background(), Request{Prompt: []int32{1}}); !errors.Is(err, ErrDraining) {
		t.Errorf("while draining: %v", err)
	}
}

// When a client leaves, its blocks are freed and the others go on.
func TestCancelledRequestFreesItsBlocks(t *testing.T) {
	e := running(t, Config{MaxBatch: 2})
	ctx, cancel := context.WithCancel(context.Background())
	gone, err := e.Submit(ctx, Request{Prompt: []int32{5, 6}, MaxTokens: 1000, IgnoreEOS: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gone.Next(context.Background()); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, last := answer(t, submit(t, e, Request{Prompt: []int32{7, 8}, MaxTokens: 20, IgnoreEOS: true})); last.Usage.Output != 20 {
		t.Errorf("%+v", last)
	}
	if _, last := answer(t, gone); !errors.Is(last.Err, context.Canceled) {
		t.Errorf("the cancelled request ended with %+v", last)
	}
	if st := e.Stats(); st.KVUsed != 0 || st.Running != 0 {
		t.Errorf("%+v", st)
	}
}

// Drain answers what is under way and then ends Run.
func TestDrain(t *testing.T) {
	e := open(t, Config{})
	s := submit(t, e, Request{Prompt: []int32{5, 6}, MaxTokens: 30, IgnoreEOS: true})
	e.Drain()
	done := make(chan struct{})
	go func() { e.Run(context.Background()); close(done) }()
	if _, last := answer(t, s); last.Usage.Output != 30 {
		t.Errorf("%+v", last)
	}
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("Run goes on")
	}
}

// When Run is stopped, waiting requests get an error.
func TestStopTellsWhoWaits(t *testing.T) {
	e := open(t, Config{})
	s := submit(t, e, Request{Prompt: []int32{5, 6}})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	e.Run(ctx)
	if _, last := answer(t, s); !errors.Is(last.Err, ErrDraining) {
		t.Errorf("%+v", last)
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, batch := range []int{1, 8, 32} {
		b.Run(map[int]string{1: "1", 8: "8", 32: "32"}[batch], func(b *testing.B) {
			e := running(b, Config{MaxBatch: 32, Threads: 1})
			for b.Loop() {
				var all sync.WaitGroup
				for i := range batch {
					all.Go(func() {
						s, err := e.Submit(context.Background(), Request{Prompt: []int32{int32(i + 5), 7, 9}, MaxTokens: 64, IgnoreEOS: true})
						if err != nil {
							b.Error(err)
							return
						}
						for {
							if ev, err := s.Next(context.Background()); err != nil || ev.Finish != "" {
								return
							}
						}
					})
				}
				all.Wait()
			}
			b.ReportMetric(float64(batch*64*b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}
