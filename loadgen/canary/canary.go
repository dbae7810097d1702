// Package canary asks a service the same few questions again and again, beside
// the load. A service can be quick and wrong: answers that belong to somebody
// else, tokens that come twice, counts that are not those of the text. What an
// answer should be nobody has to know; it should be what it was before.
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

// questions are asked in turn. More than one, so that a mix-up between them
// shows; few, so that each is asked often.
var questions = []string{
	"Tell me a story about a little dog who is afraid of the rain.",
	"Why is the sky blue?",
	"How do I make a cup of tea?",
	"What do birds eat?",
	"Explain how a bridge stays up.",
}

// Watch asks until ctx ends and gives every answer to sink, from several
// goroutines; it returns when all have ended. How many tokens a text has is
// asked once of each text, after its answer; where nobody counts them, observe is
// told why.
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
	absent    error // the service has no tokenizer, by its own word
	failed    error // why the first answer was not counted that it should have
	uncounted int64
}

// count is how many tokens the service's tokenizer sees in a text, without what
// it adds to every text; 0 where it has none, or did not count.
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

// ask asks for the tokens of a text, and before the first for the tokenizer's frame.
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

// tell observes why answers were not counted.
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

// overhead is what a tokenizer adds to every text: a text twice as long has
// twice the tokens, but for that.
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
