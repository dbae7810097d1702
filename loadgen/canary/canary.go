// Package canary asks a service the same few questions again and again, beside the
// load. It finds wrong answers of a fast service: answers of another client, repeated
// tokens, wrong token counts. It needs no reference answers, because it compares each
// answer with the earlier ones.
package canary

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/scenarios"
)

// questions are asked in turn. There are several, so that a mix-up between them shows,
// but few, so that each is asked often.
var questions = []string{
	"Tell me a story about a little dog who is afraid of the rain.",
	"Why is the sky blue?",
	"How do I make a cup of tea?",
	"What do birds eat?",
	"Explain how a bridge stays up.",
}

// Watch asks until ctx ends and gives every answer to sink, from several goroutines; it
// returns when all have ended. After the first answer with a text, the tokenizer counts
// the text's tokens once. If the tokens could not be counted, observe receives the
// reason.
func Watch(ctx context.Context, clock recording.Clock, s scenarios.Scenario, c *client.Client, sink func(recording.Request), observe func(recording.Observation)) {
	w := watcher{client: c, counts: map[int64]int32{}}
	work := s.Mix()[0].Workload
	fields := scenarios.Texts(work.Fields)
	start := clock.Now()
	var inFlight sync.WaitGroup
	defer func() {
		inFlight.Wait()
		w.tell(clock, s.Name, observe)
	}()
	for n := 0; ; n++ {
		due := start + time.Duration(n)*time.Duration(s.Canary.Every)
		timer := time.NewTimer(due - clock.Now())
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		inFlight.Go(func() {
			which := n % len(questions)
			row, answer := c.Ask(ctx, client.Prompt{
				API: work.API, Model: work.Model, Fields: fields, Messages: []client.Message{{Role: "user", Content: questions[which]}},
				MaxTokens: s.Canary.MaxTokens, Stream: true, Finish: recording.OrEnd(work.Finish), Timeout: time.Duration(work.Timeout),
			}, clock, due)
			row.Seq, row.Kind, row.Scenario, row.Class = int64(n), recording.KindCanary, s.Name, fmt.Sprintf("canary-%d", which)
			if row.OK() {
				row.AnswerHash = hash(answer)
				row.AnswerTokens = w.count(ctx, row.AnswerHash, answer)
			}
			sink(row)
		})
	}
}

// hash of a text, never 0.
func hash(text string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text))
	return int64(h.Sum64() | 1)
}

// watcher remembers how many tokens texts have.
type watcher struct {
	client *client.Client

	mu        sync.Mutex
	counts    map[int64]int32
	frame     int // tokens that the tokenizer adds to every text
	framed    bool
	absent    error // the service has said that it has no tokenizer
	failed    error // why the first uncounted answer was not counted
	uncounted int64
}

// count is how many tokens the service's tokenizer counts in a text, without those that
// it adds to every text; 0 if there is no tokenizer, or it failed.
func (w *watcher) count(ctx context.Context, of int64, text string) int32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n, known := w.counts[of]; known {
		return n
	}
	if w.absent != nil {
		return 0
	}
	n, err := w.ask(ctx, text)
	switch {
	case err == nil:
		w.counts[of] = int32(n)
		return w.counts[of]
	case errors.Is(err, client.ErrNoTokenizer):
		w.absent = err
	case ctx.Err() == nil:
		w.uncounted++
		if w.failed == nil {
			w.failed = err
		}
	}
	return 0
}

// ask asks for the tokens of a text; before the first text it measures the frame.
func (w *watcher) ask(ctx context.Context, text string) (int, error) {
	if !w.framed {
		frame, err := w.overhead(ctx)
		if err != nil {
			return 0, err // asked again with the next answer
		}
		w.frame, w.framed = frame, true
	}
	n, err := w.client.CountTokens(ctx, text)
	if err == nil && n <= w.frame {
		return 0, words.Errorf("POST /tokenize says that an answer of %d bytes has %d tokens, of which %d stand before every text", len(text), n, w.frame)
	}
	return n - w.frame, err
}

// tell records why answers were not counted.
func (w *watcher) tell(clock recording.Clock, scenario string, observe func(recording.Observation)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.absent != nil {
		observe(recording.Observation{At: clock.Now(), Name: recording.ObsTokenizerAbsent, Subject: scenario, Text: words.Of(w.absent)})
	}
	if w.failed != nil {
		observe(recording.Observation{At: clock.Now(), Name: recording.ObsTokenizerFailed, Subject: scenario, Value: float64(w.uncounted), Text: words.Of(w.failed)})
	}
}

// overhead is the number of tokens that a tokenizer adds to every text: a doubled text
// has twice the tokens, except for these.
func (w *watcher) overhead(ctx context.Context) (int, error) {
	once, err := w.client.CountTokens(ctx, "a b c d")
	if err != nil {
		return 0, err
	}
	twice, err := w.client.CountTokens(ctx, "a b c d a b c d")
	if err != nil {
		return 0, err
	}
	return max(0, 2*once-twice), nil
}
