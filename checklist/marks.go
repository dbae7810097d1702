package checklist

import (
	"cmp"
	"slices"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// What is judged here is whose an answer is and whether it is whole, by what the
// client saw of its text.

// looked is an answer to the load whose text was looked at.
type looked struct {
	seq            int64
	question, hash int64
	variety        int32
	tokens, prompt int32
	foreign        string
}

// mostLooked is how many answers of a scenario are compared with one another.
const mostLooked = 1 << 18

// look keeps what is known of an answer's text.
func (e *evidence) look(r *recording.Request) {
	if all := e.looked[r.Scenario]; (r.AnswerHash != 0 || r.Foreign != "") && len(all) < mostLooked {
		l := looked{r.Seq, r.QuestionHash, r.AnswerHash, r.AnswerVariety, 0, 0, r.Foreign}
		if r.TokensFrom == "usage" {
			l.tokens, l.prompt = r.OutputTokens, r.PromptTokens
		}
		e.looked[r.Scenario] = append(all, l)
	}
}

// scenariosOf are those that an objective is about.
func (e *evidence) scenariosOf(o scenarios.Objective) (names []string) {
	for _, s := range e.gate.Scenarios {
		if o.Scenario == "" || o.Scenario == s.Name {
			names = append(names, s.Name)
		}
	}
	return names
}

// foreign decides how many answers are somebody else's.
func (f *Finding) foreign(o scenarios.Objective, e *evidence) {
	var count int64
	var proof words.Sentence
	for _, name := range e.scenariosOf(o) {
		found := map[int64]bool{}
		told := func(seq int64, how words.Sentence) {
			if !found[seq] && proof.IsZero() {
				proof = how
			}
			found[seq] = true
		}
		all := slices.Clone(e.looked[name])
		slices.SortFunc(all, func(a, b looked) int { return cmp.Compare(a.seq, b.seq) })
		for _, l := range all {
			if l.foreign != "" {
				told(l.seq, words.Say("the answer to request %d of %s carries the mark of request %s", l.seq, name, l.foreign))
			}
		}
		for _, t := range e.twins[name] {
			if t.variant == "alone/load" && t.foreign != "" {
				told(t.seq, words.Say("request %d of %s was answered with the text that request %s was given too; asked again alone, twice, it has another answer", t.seq, name, t.foreign))
			}
		}
		count += int64(len(found))
		f.Samples += int64(len(all))
	}
	if f.Samples == 0 {
		f.Why = words.Say("no answer to a prompt with a mark was looked at")
		return
	}
	f.decide(float64(count), o)
	f.Why = words.Say("%d answers were looked at: %s", f.Samples, f.Why)
	if count > 0 {
		f.Why = words.Say("%s; for example, %s", f.Why, proof)
	}
}

// repeated decides how many answers are the same, word for word, as the answer to
// another question. A text that only repeats itself is left out: a small model
// ends in the same one whatever it is asked.
func (f *Finding) repeated(o scenarios.Objective, e *evidence) {
	var again, all int64
	var example words.Sentence
	byItself := false // the service does it to single questions, too, at temperature 0 alone
	for _, name := range e.scenariosOf(o) {
		byHash := map[int64]map[int64][]int64{} // requests by answer and question
		for _, l := range e.looked[name] {
			if l.hash == 0 || l.question == 0 || l.variety < recording.LeastVariety {
				continue
			}
			if byHash[l.hash] == nil {
				byHash[l.hash] = map[int64][]int64{}
			}
			byHash[l.hash][l.question] = append(byHash[l.hash][l.question], l.seq)
			all++
		}
		var pair []int64
		for _, questions := range byHash {
			var sum, most int64
			var two []int64
			for _, seqs := range questions {
				sum, most = sum+int64(len(seqs)), max(most, int64(len(seqs)))
				two = append(two, slices.Min(seqs))
			}
			again += sum - most
			if slices.Sort(two); len(two) > 1 && (pair == nil || slices.Compare(two[:2], pair) < 0) {
				pair = two[:2]
			}
		}
		if pair != nil && example.IsZero() {
			example = words.Say("requests %d and %d of %s ask different questions and have the same answer", pair[0], pair[1], name)
		}
		cold, warm := alikeAlone(e.twins[name])
		byItself = byItself || cold && !warm
	}
	switch {
	case all == 0:
		f.Waived, f.Why = o.WhereSupported, words.Say("no answer was long and varied enough for another one like it to be no chance")
		return
	case byItself:
		f.Samples = all
		f.Waived, f.Why = o.WhereSupported, words.Say("different questions have the same answer even when they are asked alone, and other ones at temperature 1: the model itself says the same at temperature 0, so that %d of %d prove nothing", again, all)
		return
	}
	f.share(again, all, 1, o)
	if again > 0 {
		f.Why = words.Say("%s; for example, %s", f.Why, example)
	}
}

// alikeAlone reports whether different questions that were asked alone have the
// same answer: at temperature 0, and at 1, where even a model without a choice
// says something else.
func alikeAlone(twins []twin) (cold, warm bool) {
	byHash := map[bool]map[int64]string{false: {}, true: {}}
	for _, t := range twins {
		sampled := t.variant == "sampled"
		if !sampled && t.how() != "streamed" || t.phase() == "crowd" || t.variety < recording.LeastVariety {
			continue
		}
		if of, has := byHash[sampled][t.hash]; has && of != t.question {
			cold, warm = cold || !sampled, warm || sampled
		}
		byHash[sampled][t.hash] = t.question
	}
	return cold, warm
}

// text is how much of an answer came for the tokens that it is said to have.
type text struct{ chars, tokens, pieces int32 }

// ended takes into account how a complete answer ended.
func (s *samples) ended(r *recording.Request) {
	if r.LimitTokens == 0 || r.TokensFrom != "usage" {
		return
	}
	s.ends++
	if r.FinishReason == "length" && r.OutputTokens < r.LimitTokens || r.OutputTokens > r.LimitTokens {
		s.falseEnds++
		return
	}
	if r.AnswerChars > 0 && len(r.Chunks) > 0 && r.ReasoningTokens == 0 && len(s.texts) < mostLooked {
		s.texts = append(s.texts, text{r.AnswerChars, r.OutputTokens, int32(len(r.Chunks))})
	}
}

const (
	// Answers are compared by their lengths where there are so many, and where the
	// service sends a chunk for each token.
	leastTexts = 40
	// An answer lacks text where it has so many fewer chunks than tokens, and also
	// less text for a token than half of all answers have.
	fewerPieces, lessText = 0.9, 0.9
)

// shortened is how many answers have clearly less text than the tokens that they
// are said to have. Chunks alone do not tell: a busy service puts several tokens in
// one, and then the text is all there.
func shortened(texts []text) (n int64) {
	if len(texts) < leastTexts {
		return 0
	}
	var pieces, chars []float64
	for _, t := range texts {
		pieces = append(pieces, float64(t.pieces)/float64(t.tokens))
		chars = append(chars, float64(t.chars)/float64(t.tokens))
	}
	slices.Sort(pieces)
	slices.Sort(chars)
	usual := nearestRank(chars, 0.5)
	if nearestRank(pieces, 0.5) < 0.95 {
		return 0
	}
	for _, t := range texts {
		if float64(t.pieces) < fewerPieces*float64(t.tokens) && t.tokens-t.pieces > 2 && float64(t.chars)/float64(t.tokens) < lessText*usual {
			n++
		}
	}
	return n
}

// falseEnd decides how many answers end otherwise than they say.
func (f *Finding) falseEnd(o scenarios.Objective, s *samples) {
	if s.ends == 0 {
		f.Why = words.Say("no complete answer says in its usage how many tokens it has")
		return
	}
	short := shortened(s.texts)
	f.share(s.falseEnds+short, s.ends, 1, o)
	if short > 0 {
		f.Why = words.Say("%s (%d of them have less text than their tokens make)", f.Why, short)
	}
}
