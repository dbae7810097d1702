package twins

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/loadgen/client"
)

// answered is an answer to a request of the load.
type answered struct {
	seq      int64
	question int64
	text     string
	marked   bool // it carries the mark of another request
}

const (
	// A shorter common text may be a coincidence.
	leastShared = 40
	// mostAgain is how many questions of the load are asked again at most because their
	// answers look like another's, and mostOther how many of the others.
	mostAgain = 20
	mostOther = 40
)

// answers are those to the load that were kept, in the order of their requests.
func (a *Asker) answers() []answered {
	a.mu.Lock()
	all := slices.Clone(a.seen)
	a.mu.Unlock()
	slices.SortFunc(all, func(a, b answered) int { return int(a.seq - b.seq) })
	return all
}

// order selects the questions of the load to ask again: those whose answer shares a
// stretch of text with the answer to exactly one other question, and some of the
// others, spread over the load.
func (a *Asker) order() (suspects, others []answered) {
	all := a.answers()
	owners := map[int64][]int{} // of stretches, by their hashes: at most the first three each
	for i, s := range all {
		for hash := range stretches(s.text) {
			if of := owners[hash]; len(of) < 3 && !slices.Contains(of, i) {
				owners[hash] = append(of, i)
			}
		}
	}
	shared := map[int]bool{}
	for _, of := range owners {
		if len(of) == 2 && all[of[0]].question != all[of[1]].question {
			shared[of[0]], shared[of[1]] = true, true
		}
	}
	var rest []answered
	for i, s := range all {
		if shared[i] && !s.marked && len(suspects) < mostAgain {
			suspects = append(suspects, s)
		} else {
			rest = append(rest, s)
		}
	}
	for i := range min(mostOther, len(rest)) {
		others = append(others, rest[i*len(rest)/min(mostOther, len(rest))])
	}
	return suspects, others
}

// mostPairs is how many pairs of different questions with the same answer are asked
// again.
const mostPairs = 6

// repeats are pairs of requests with different questions and the same answer, word for
// word, spread over all such answers.
func (a *Asker) repeats() (pairs [][2]answered) {
	all := a.answers()
	first, paired := map[string]answered{}, map[string]bool{}
	for _, s := range all {
		f, has := first[s.text]
		switch {
		case !has:
			first[s.text] = s
		case f.question != s.question && !paired[s.text] && client.Variety(s.text) >= recording.LeastVariety:
			paired[s.text] = true
			pairs = append(pairs, [2]answered{f, s})
		}
	}
	if n := len(pairs); n > mostPairs {
		some := pairs[:0:0]
		for i := range mostPairs {
			some = append(some, pairs[i*n/mostPairs])
		}
		pairs = some
	}
	return pairs
}

// pairsAgain asks the questions of pairs again: as before, and at temperature 1, at
// which no model gives the same answer to two different questions.
func (a *Asker) pairsAgain(ctx context.Context, pairs [][2]answered, more func() bool) {
	for _, pair := range pairs {
		for _, s := range pair {
			if !more() {
				return
			}
			a.again(ctx, s)
			if p, known := a.Question(s.seq); known {
				p.Temperature = 1
				row, _ := a.ask(ctx, p, "")
				a.giveOf(s, row, "sampled/load")
			}
		}
	}
}

// stretches are the hashes of some stretches of a text. The choice depends on the
// content only, not on the position.
func stretches(text string) map[int64]bool {
	found := map[int64]bool{}
	for i := 0; i+leastShared <= len(text); i++ {
		if hash := client.HashOf(text[i : i+leastShared]); hash>>3&7 == 0 {
			found[hash] = true
		}
	}
	return found
}

// againAll asks questions of the load again.
func (a *Asker) againAll(ctx context.Context, all []answered, more func() bool) {
	for _, s := range all {
		if more() {
			a.again(ctx, s)
		}
	}
}

// again asks a question of the load again, and once more if the answer differs from the
// first. If both new answers are the same, the first answer belongs to another request,
// or the concurrent load changed it; then again looks for the request that it belongs
// to.
func (a *Asker) again(ctx context.Context, s answered) {
	p, known := a.Question(s.seq)
	if !known || p.Temperature != 0 {
		return
	}
	var before string
	for range 2 {
		row, answer := a.Client.Ask(ctx, p, a.Clock, a.Clock.Now())
		if !row.OK() {
			return
		}
		answer = client.Plain(answer)
		client.Look(&row, answer)
		row.SameChars, row.Foreign = same(answer, s.text), ""
		if before != "" && before == answer {
			row.Foreign = a.source(s, answer)
		}
		a.giveOf(s, row, "alone/load")
		if answer == s.text {
			return
		}
		before = answer
	}
}

// giveOf records another answer to the question of a request of the load.
func (a *Asker) giveOf(s answered, row recording.Request, way string) {
	row.QuestionHash = s.question
	row.Seq, row.Kind, row.Scenario, row.Class, row.Way = s.seq, recording.KindTwin, a.Scenario.Name, "load", way
	a.Sink(row)
}

// source is the request whose answer a text contains: the whole text, or a stretch that
// is in exactly one other answer and not in the answer given alone.
func (a *Asker) source(s answered, own string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	from := len(string([]rune(s.text)[:same(s.text, own)]))
	name := func(seq int64) string { return fmt.Sprintf("%s/%d", a.Scenario.Name, seq) }
	if client.Variety(s.text) < recording.LeastVariety {
		return ""
	}
	if len(s.text) >= leastShared {
		for _, o := range a.seen {
			if o.question != s.question && o.text == s.text {
				return name(o.seq)
			}
		}
	}
	for at := max(0, from-leastShared/2); at+leastShared <= len(s.text); at += leastShared / 4 {
		stretch := s.text[at : at+leastShared]
		if strings.Contains(own, stretch) {
			continue
		}
		var with []int64
		for _, o := range a.seen {
			if o.seq != s.seq && strings.Contains(o.text, stretch) {
				if with = append(with, o.seq); len(with) > 1 {
					break
				}
			}
		}
		if len(with) == 1 {
			return name(with[0])
		}
	}
	return ""
}
