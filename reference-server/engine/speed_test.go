package engine

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/launchgate/launchgate/reference-server/batch"
	"github.com/launchgate/launchgate/reference-server/tensor"
)

func BenchmarkSpeed(b *testing.B) {
	path := os.Getenv("LAUNCHGATE_BENCH_MODEL")
	if path == "" {
		path = defaultModel
	}
	e, err := Open(Config{Path: path, Threads: 2, MaxTokens: 512, MaxSequence: 1024, MaxBatch: 32})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	ids := make([]int32, 512)
	for i := range ids {
		ids[i] = int32((i*37)%4000 + 3)
	}
	var bt batch.Batch
	fill := func(seq, from, n int, table []int32) {
		for p := from; p < from+n; p++ {
			bt.Tokens = append(bt.Tokens, ids[p%512])
			bt.Positions = append(bt.Positions, int32(p))
			bt.Slots = append(bt.Slots, table[p/tensor.BlockSize]*tensor.BlockSize+int32(p%tensor.BlockSize))
			bt.Tables = append(bt.Tables, table)
		}
		bt.Outputs = append(bt.Outputs, int32(len(bt.Tokens)-1))
	}
	tableOf := func(seq, blocks int) []int32 {
		t := make([]int32, blocks)
		for i := range t {
			t[i] = int32(seq*blocks + i)
		}
		return t
	}
	best := func(tokens int, run func()) float64 {
		var top float64
		for range 3 {
			began := time.Now()
			run()
			top = max(top, float64(tokens)/time.Since(began).Seconds())
		}
		return top
	}
	for b.Loop() {
		table := tableOf(0, 40)
		b.ReportMetric(best(512, func() { bt.Reset(); fill(0, 0, 512, table); e.model.Forward(&bt, e.kv) }), "prefill512")
		decode := func(streams, n int) func() {
			return func() {
				tables := make([][]int32, streams)
				for s := range tables {
					tables[s] = tableOf(s, 10)
				}
				for i := range n {
					bt.Reset()
					for s := range tables {
						fill(s, 8+i, 1, tables[s])
					}
					e.model.Forward(&bt, e.kv)
				}
			}
		}
		b.ReportMetric(best(128, decode(1, 128)), "decode1")
		b.ReportMetric(best(16*64, decode(16, 64)), "decode16")
	}
}

// BenchmarkLoop measures the whole engine: it schedules, computes, samples and
// sends the tokens of 16 answers at once.
func BenchmarkLoop(b *testing.B) {
	e, err := Open(Config{Path: defaultModel, Threads: 2, MaxSequence: 1024})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { e.Run(ctx); close(ended) }()
	defer func() { stop(); <-ended; e.Close() }()
	prompt := e.Tokenize("Tell me about the sea.")
	var top float64
	for b.Loop() {
		began, tokens := time.Now(), 0
		var streams []*Stream
		for range 16 {
			s, err := e.Submit(ctx, Request{Prompt: prompt, MaxTokens: 128, IgnoreEOS: true})
			if err != nil {
				b.Fatal(err)
			}
			streams = append(streams, s)
		}
		for _, s := range streams {
			for {
				ev, err := s.Next(ctx)
				if err != nil || ev.Err != nil {
					b.Fatal(err, ev.Err)
				}
				tokens += ev.Tokens
				if ev.Finish != "" {
					break
				}
			}
		}
		top = max(top, float64(tokens)/time.Since(began).Seconds())
	}
	b.ReportMetric(top, "tokens/s")
}
