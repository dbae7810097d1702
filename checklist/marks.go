package checklist

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// This file judges whether answers belong to their requests and are complete, from what
// the client recorded of their texts.

// looked is an answer to the load whose text was inspected.
type looked struct {
	seq            int64
	question, hash int64
	variety        int32
	tokens, prompt int32
	foreign        string
}

// mostLooked is how many answers of a scenario are compared with one another.
const mostLooked = 1 << 18

// look keeps the data of an answer's text.
func (e *evidence) look(r *recording.Request) {
	if all := e.looked[r.Scenario]; (r.AnswerHash != 0 || r.Foreign != "") && len(all) < mostLooked {
		l := looked{r.Seq, r.QuestionHash, r.AnswerHash, r.AnswerVariety, 0, 0, r.Foreign}
		if r.TokensFrom == "usage" {
			l.tokens, l.prompt = r.OutputTokens, r.PromptTokens
		}
		e.looked[r.Scenario] = append(all, l)
	}
}

// scenariosOf are the scenarios that an objective is about.
func scenariosOf(gate scenarios.Gate, o scenarios.Objective) (names []string) {
	for _, s := range gate.Scenarios {
		if o.Scenario == "" || o.Scenario == s.Name {
			names = append(names, s.Name)
		}
	}
	return names
}

// foreign decides how many answers belong to another request.
func (f *Finding) foreign(o scenarios.Objective, e *evidence) {
	var count int64
	var proof words.Sentence
	for _, name := range scenariosOf(e.gate, o) {
		found := map[int64]bool{}
		report := func(seq int64, how words.Sentence) {
			if !found[seq] && proof.IsZero() {
				proof = how
			}
			found[seq] = true
		}
		all := slices.Clone(e.looked[name])
		slices.SortFunc(all, func(a, b looked) int { return cmp.Compare(a.seq, b.seq) })
		for _, l := range all {
			if l.foreign != "" {
				report(l.seq, words.Say("the answer to request %d of %s carries the mark of request %s", l.seq, name, l.foreign))
			}
		}
		for _, t := range e.twins[name] {
			if t.variant == "alone/load" && t.foreign != "" {
				report(t.seq, words.Say("request %d of %s was answered with the text that request %s was given too; asked again alone, twice, it has another answer", t.seq, name, t.foreign))
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
// another question. Two cases do not count: a repetitive text, because a small model
// may end in the same loop for any question, and an answer that the model itself gives
// to both questions. The second case is estimated from the questions that are asked
// again alone.
func (f *Finding) repeated(o scenarios.Objective, e *evidence) {
	var again, all int64
	var proven, excused int64 // of again: those known to be errors of the service, and those known to be the model's own answer
	var example words.Sentence
	warm := false
	for _, name := range scenariosOf(e.gate, o) {
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
		alone := aloneBySeq(e.twins[name])
		var pair []int64
		for hash, questions := range byHash {
			var sum, most, same, other int64
			var two []int64
			for _, seqs := range questions {
				sum, most = sum+int64(len(seqs)), max(most, int64(len(seqs)))
				two = append(two, slices.Min(seqs))
				s, d := repeatedAlone(hash, seqs, alone)
				same, other = same+s, other+d
			}
			if len(questions) < 2 {
				continue
			}
			again += sum - most
			switch {
			case other > 0:
				proven += sum - most
			case same > 1:
				excused += sum - most
			}
			if slices.Sort(two); pair == nil || slices.Compare(two[:2], pair) < 0 {
				pair = two[:2]
			}
		}
		if pair != nil && example.IsZero() {
			example = words.Say("requests %d and %d of %s ask different questions and have the same answer", pair[0], pair[1], name)
		}
		warm = warm || sampledAlike(e.twins[name])
	}
	counts := again
	if !warm && excused > 0 {
		counts = (again*proven + (proven+excused)/2) / (proven + excused)
	}
	switch {
	case all == 0:
		f.Waived, f.Why = o.WhereSupported, words.Say("no answer was long and varied enough for another one like it to be no chance")
		return
	case !warm && proven+excused == 0 && again > 0 && !Holds(float64(again)/float64(all), o):
		f.Samples = all
		f.Why = words.Say("%d of %d answers are also the answer to another question, and none of them was asked again, so that it may be the model's way; twins: {} in the scenario asks them again", again, all)
		return
	}
	f.share(counts, all, 1, o)
	if counts > 0 {
		f.Why = words.Say("%s; for example, %s", f.Why, example)
	} else if excused > 0 {
		f.Why = words.Say("%s (%d more are also the answer to another question, and are so when they are asked again alone, and not at temperature 1: this is the model's way)", f.Why, again)
	}
}

// aloneBySeq are the answers to the requests of the load that were repeated alone.
func aloneBySeq(twins []twin) map[int64][]twin {
	found := map[int64][]twin{}
	for _, t := range twins {
		if t.variant == "alone/load" {
			found[t.seq] = append(found[t.seq], t)
		}
	}
	return found
}

// repeatedAlone counts, of these requests with the same answer, those that have the
// same answer when repeated alone, and those that have another one, twice.
func repeatedAlone(hash int64, seqs []int64, alone map[int64][]twin) (same, other int64) {
	for _, seq := range seqs {
		switch again := alone[seq]; {
		case len(again) > 0 && again[0].hash == hash:
			same++
		case len(again) > 1 && again[0].hash == again[1].hash:
			other++
		}
	}
	return same, other
}

// sampledAlike reports whether different questions have the same answer at temperature
// 1, where no model gives the same answer to both.
func sampledAlike(twins []twin) bool {
	byHash := map[int64]string{}
	for _, t := range twins {
		if !strings.HasPrefix(t.variant, "sampled") || t.variety < recording.LeastVariety {
			continue
		}
		question := t.question
		if question == "load" {
			question = fmt.Sprintf("%x", t.asked)
		}
		if of, has := byHash[t.hash]; has && of != question {
			return true
		}
		byHash[t.hash] = question
	}
	return false
}

// text is the length of an answer and the number of its tokens and chunks.
type text struct{ chars, tokens, pieces int32 }

// ended records how a complete answer ended.
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
	// leastTexts is how many answers are needed to compare their lengths. The service
	// must also send about one chunk per token.
	leastTexts = 40
	// An answer lacks text if its chunks are fewer than this share of its tokens, and
	// its text per token is less than this share of the median.
	fewerPieces, lessText = 0.9, 0.9
)

// shortened counts the answers with clearly less text than their number of tokens
// should have. Fewer chunks alone prove nothing, because a busy service puts several
// tokens into one chunk without losing text.
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

// falseEnd decides how many answers end in another way than they say.
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
