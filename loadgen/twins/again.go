package twins

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/loadgen/client"
)

// answered is an answer to the load.
type answered struct {
	seq      int64
	question int64
	text     string
	marked   bool // it carries the mark of another
}

const (
	// A text of fewer bytes is shared by chance.
	leastShared = 40
	// mostAgain is how many questions of the load are asked again, at most, of
	// those whose answers look like somebody else's, and of all others.
	mostAgain = 20
	mostOther = 40
)

// order is which questions of the load are to be asked again: those whose answer
// has a stretch that the answer to one other question has too, and some of the
// others, spread over the load.
func (a *Asker) order() (suspects, others []answered) {
	a.mu.Lock()
	all := slices.Clone(a.seen)
	a.mu.Unlock()
	slices.SortFunc(all, func(a, b answered) int { return int(a.seq - b.seq) })
	owners := map[int64][]int{} // of stretches, by their hashes: at most the first three
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

// repeats are pairs of requests that ask different questions and were given the same
// answer, word for word, spread over the answers that were given so.
func (a *Asker) repeats() (pairs [][2]answered) {
	a.mu.Lock()
	all := slices.Clone(a.seen)
	a.mu.Unlock()
	slices.SortFunc(all, func(a, b answered) int { return int(a.seq - b.seq) })
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

// pairsAgain asks the questions of pairs again: as they were, and at temperature 1,
// where no two different questions have the same answer by the model's own choice.
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
				row.QuestionHash = s.question
				row.Seq, row.Kind, row.Scenario, row.Class, row.Way = s.seq, recording.KindTwin, a.Scenario.Name, "load", "sampled/load"
				a.Sink(row)
			}
		}
	}
}

// stretches are the hashes of some stretches of a text, the same ones wherever it
// stands.
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

// again asks a question of the load again, twice where the answer is another. Where
// both times it is the same one, the first answer is not the service's, or the
// crowd changed it: then whose it is is looked for.
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
		row.QuestionHash, row.SameChars, row.Foreign = s.question, same(answer, s.text), ""
		if before != "" && before == answer {
			row.Foreign = a.source(s, answer)
		}
		row.Seq, row.Kind, row.Scenario, row.Class, row.Way = s.seq, recording.KindTwin, a.Scenario.Name, "load", "alone/load"
		a.Sink(row)
		if answer == s.text {
			return
		}
		before = answer
	}
}

// source is the request whose answer a text has in place of its own: all of it, or
// a stretch that no third answer has and that is not in the answer given alone.
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
