// Package twins asks the same questions in several ways: streamed and whole, alone and
// beside the load, over a kept and a new connection, with each key, by chat and by
// completions. It also asks some questions of the load again, alone, beginning with
// those whose answers look like another's. It records the answers and how far they
// agree, and judges nothing.
package twins

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/scenarios"
)

// questions are asked in all ways and their answers are compared. samples are other
// questions, asked once each at a temperature above 0.
var (
	questions = []string{
		"Tell me a story about a little dog who is afraid of the rain.",
		"How do I make a cup of tea?",
		"Explain how a bridge stays up, and name three kinds of bridges that you know.",
	}
	samples = []string{
		"What do birds eat in winter?",
		"Describe a small house near a river.",
		"Why do leaves fall from the trees?",
		"Tell me about a teacher who could not sleep.",
	}
)

// Asker asks the twins of one scenario.
type Asker struct {
	Clock    recording.Clock
	Scenario scenarios.Scenario
	Client   *client.Client
	Keys     map[string]string // of the tenants, by the names of their variables
	// Question is the prompt of request n of the load; false if it is not known.
	Question func(n int64) (client.Prompt, bool)
	Sink     func(recording.Request)

	seq         atomic.Int64
	mu          sync.Mutex
	seen        []answered
	firsts      map[string]string // the first answer to each API and question
	frame       int               // tokens that the tokenizer adds to every text
	noTokenizer bool              // the service has no tokenizer
}

// mostSeen is how many answers to the load are kept for comparison.
const mostSeen = 4000

// Saw keeps the answer to a request of the load.
func (a *Asker) Saw(r recording.Request) {
	if r.Kind != recording.KindLoad || r.Answer == "" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.seen) < mostSeen {
		a.seen = append(a.seen, answered{r.Seq, r.QuestionHash, r.Answer, r.Foreign != ""})
	}
}

// way is a way to ask.
type way struct {
	api string
	how string // streamed, again, whole, new connection, or "key " and the name of the key's variable
}

func (w way) String() string { return w.api + "/" + w.how }

// The ways to ask the API of the load with its key.
const (
	Streamed      = "streamed"
	Again         = "again" // streamed once more: shows whether the service repeats its answer at all
	Whole         = "whole"
	NewConnection = "new connection"
	ByKey         = "key "
)

// ways are the ways of a scenario. The first of each API is the reference for the
// others.
func (a *Asker) ways() []way {
	own := a.workload().API
	all := []way{{own, Streamed}, {own, Again}, {own, Whole}, {own, NewConnection}}
	known := []string{a.workload().APIKeyEnv}
	for _, class := range a.Scenario.Mix() {
		if name := class.Workload.APIKeyEnv; name != "" && !slices.Contains(known, name) {
			known = append(known, name)
			all = append(all, way{own, ByKey + name})
		}
	}
	other := map[string]string{scenarios.APIChat: scenarios.APICompletions, scenarios.APICompletions: scenarios.APIChat}[own]
	if other != "" {
		all = append(all, way{other, Streamed}, way{other, Again}, way{other, Whole})
	}
	return all
}

func (a *Asker) workload() scenarios.Workload { return a.Scenario.Mix()[0].Workload }

// prompt is the prompt of a question in a way.
func (a *Asker) prompt(text string, w way) client.Prompt {
	work := a.workload()
	p := client.Prompt{
		API: w.api, Model: work.Model, APIKey: a.Keys[work.APIKeyEnv], Connection: client.Connection(work.Connection), Fields: scenarios.Texts(work.Fields),
		MaxTokens: max(a.Scenario.Twins.MaxTokens, client.Least(w.api)), IgnoreEOS: work.IgnoreEOS, Finish: recording.OrEnd(work.Finish), Stream: w.how != Whole, Timeout: time.Duration(work.Timeout),
	}
	if work.System != "" {
		p.Messages = append(p.Messages, client.Message{Role: "system", Content: work.System})
	}
	p.Messages = append(p.Messages, client.Message{Role: "user", Content: text})
	p.Connection.New = p.Connection.New || w.how == NewConnection
	if key, is := strings.CutPrefix(w.how, ByKey); is {
		p.APIKey = a.Keys[key]
	}
	return p
}

// Beside asks beside the load until ctx ends, every second time in the first way, and
// returns when all questions have been answered.
func (a *Asker) Beside(ctx context.Context) {
	ways := a.ways()
	var order []way
	for _, w := range ways[1:] {
		order = append(order, ways[0], w)
	}
	tick := time.NewTicker(time.Duration(a.Scenario.Twins.Every))
	defer tick.Stop()
	var inFlight sync.WaitGroup
	defer inFlight.Wait()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		w, which := order[n%len(order)], n/len(order)%len(questions)
		inFlight.Go(func() {
			row, _ := a.ask(ctx, a.prompt(questions[which], w), "")
			a.give(row, fmt.Sprintf("question-%d", which+1), "crowd/"+w.String())
		})
	}
}

// Alone asks one question after the other, the most important first, until all are
// asked, its time is over, or ctx ends.
func (a *Asker) Alone(ctx context.Context) {
	until := a.Clock.Now() + time.Duration(a.Scenario.Twins.For)
	more := func() bool { return ctx.Err() == nil && a.Clock.Now() < until }
	all := a.ways()
	a.firsts = map[string]string{}
	suspects, others := a.order()
	for which := range questions {
		for _, w := range all {
			if more() {
				a.alone(ctx, which, w)
			}
		}
		if which == 0 { // so that the others are asked too
			a.pairsAgain(ctx, a.repeats(), more)
			a.againAll(ctx, suspects, more)
		}
	}
	a.count(ctx, all[0], more)
	for i, text := range samples {
		if more() {
			p := a.prompt(text, all[0])
			p.Temperature = 1
			row, _ := a.ask(ctx, p, "")
			a.give(row, fmt.Sprintf("sample-%d", i+1), "sampled")
		}
	}
	a.againAll(ctx, others, more)
}

// alone asks a question in a way, and once more if the answer differs from the first
// one.
func (a *Asker) alone(ctx context.Context, which int, w way) {
	of := w.api + fmt.Sprint(which)
	for range 2 {
		first, has := a.firsts[of]
		row, answer := a.ask(ctx, a.prompt(questions[which], w), first)
		if row.OK() {
			row.AnswerTokens = a.tokens(ctx, answer)
			if !has {
				a.firsts[of] = answer
			}
		}
		a.give(row, fmt.Sprintf("question-%d", which+1), "alone/"+w.String())
		if !row.OK() || !has || answer == first {
			return
		}
	}
}

// ask asks, and records the answer and how far it agrees with another one.
func (a *Asker) ask(ctx context.Context, p client.Prompt, other string) (recording.Request, string) {
	row, answer := a.Client.Ask(ctx, p, a.Clock, a.Clock.Now())
	answer = client.Plain(answer)
	if row.OK() {
		client.Look(&row, answer)
		row.QuestionHash = client.HashOf(p.Messages[len(p.Messages)-1].Content)
		row.Pieces, row.SameChars = int32(len(row.Chunks)), same(answer, other)
	}
	return row, answer
}

func (a *Asker) give(row recording.Request, question, variant string) {
	row.Seq, row.Kind, row.Scenario, row.Class, row.Way = a.seq.Add(1)-1, recording.KindTwin, a.Scenario.Name, question, variant
	a.Sink(row)
}

// same is how many characters two texts have in common at their beginnings.
func same(a, b string) (n int32) {
	other := []rune(b)
	for _, r := range a {
		if int(n) >= len(other) || other[n] != r {
			break
		}
		n++
	}
	return n
}

// count sends the first answers as a prompt, once and twice over, and a nearly empty
// prompt, so that the service counts their tokens.
func (a *Asker) count(ctx context.Context, w way, more func() bool) {
	var texts []string
	for which := range questions {
		if text := a.firsts[w.api+fmt.Sprint(which)]; text != "" {
			texts = append(texts, text)
		}
	}
	if len(texts) == 0 {
		return
	}
	once := strings.Join(texts, "\n")
	for _, c := range []struct{ variant, text string }{{"count/none", "a"}, {"count/once", once}, {"count/twice", once + "\n" + once}} {
		if !more() {
			return
		}
		p := a.prompt(c.text, w)
		p.MaxTokens, p.IgnoreEOS = client.Least(w.api), false
		row, _ := a.ask(ctx, p, "")
		row.AnswerTokens = a.tokens(ctx, c.text)
		a.give(row, fmt.Sprintf("of %d", len(texts)), c.variant)
	}
}

// tokens is how many tokens the service's tokenizer counts in a text, without those
// that it adds to every text; 0 if there is no tokenizer, or it does not answer.
func (a *Asker) tokens(ctx context.Context, text string) int32 {
	if a.noTokenizer || text == "" {
		return 0
	}
	if a.frame == 0 {
		once, err := a.Client.CountTokens(ctx, "a b c d")
		twice, err2 := a.Client.CountTokens(ctx, "a b c d a b c d")
		if err != nil || err2 != nil {
			a.noTokenizer = true
			return 0
		}
		a.frame = max(0, 2*once-twice) + 1 // never 0, so that it is measured only once
	}
	n, err := a.Client.CountTokens(ctx, text)
	if err != nil {
		return 0
	}
	return int32(max(0, n-a.frame+1))
}
