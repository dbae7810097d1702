package checklist

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// twin is an answer to a question that was asked in several ways, or to a request of
// the load that was repeated.
type twin struct {
	seq                    int64
	asked                  int64 // hash of the question, if question is load
	question, variant      string
	hash                   int64
	chars, same, variety   int32
	usage, prompt, counted int32 // tokens; 0: not reported
	pieces                 int32
	stopped                bool // the model ended the answer, and some services count a token for that
	foreign                string
}

func twinOf(r *recording.Request) twin {
	t := twin{seq: r.Seq, question: r.Class, variant: r.Way, hash: r.AnswerHash, chars: r.AnswerChars, same: r.SameChars, variety: r.AnswerVariety,
		counted: r.AnswerTokens, pieces: r.Pieces, stopped: r.FinishReason != "length", foreign: r.Foreign, asked: r.QuestionHash}
	if r.TokensFrom == "usage" {
		t.usage, t.prompt = r.VisibleTokens(), r.PromptTokens
	}
	return t
}

// phase, api and how are the parts of a variant.
func (t twin) phase() string { return part3(t.variant, 0) }
func (t twin) api() string   { return part3(t.variant, 1) }
func (t twin) how() string   { return part3(t.variant, 2) }

func part3(variant string, i int) string {
	if parts := strings.SplitN(variant, "/", 3); len(parts) == 3 {
		return parts[i]
	}
	return ""
}

// base is the reference answer to a question: streamed, alone, over a kept connection.
type base struct {
	hash          int64
	usage, prompt int32
	n             int
	steady        bool // the same each time
}

// bases are the reference answers of a scenario, by API and question.
func bases(twins []twin, phase string) map[string]*base {
	found := map[string]*base{}
	for _, t := range twins {
		if t.phase() != phase || t.how() != "streamed" && t.how() != "again" {
			continue
		}
		id := t.api() + "/" + t.question
		b := found[id]
		if b == nil {
			b = &base{t.hash, t.usage, t.prompt, 0, true}
			found[id] = b
		}
		b.n++
		b.steady = b.steady && b.hash == t.hash
	}
	return found
}

// wayCompared is a comparison of one way to ask with the references.
type wayCompared struct {
	compared, texts, counts int
	example                 words.Sentence
}

// waysCompared are the comparisons of all ways of a scenario, by name. steady and
// crowdSteady report whether the service repeats its answers at all, alone and under
// load.
func waysCompared(twins []twin, load []looked) (found map[string]*wayCompared, steady, crowdSteady bool) {
	found = map[string]*wayCompared{}
	alone, crowd := bases(twins, "alone"), bases(twins, "crowd")
	for _, b := range alone {
		steady = steady || b.n > 1 && b.steady
	}
	crowdSteady = len(crowd) > 0
	repeats := 0
	for _, b := range crowd {
		crowdSteady = crowdSteady && b.steady
		repeats += b.n - 1
	}
	crowdSteady = crowdSteady && repeats >= 3
	of := func(name string) *wayCompared {
		if found[name] == nil {
			found[name] = &wayCompared{}
		}
		return found[name]
	}
	// A way differs only if every answer to a question differs from the reference: a
	// single different answer may be an exception, which changed_answers counts.
	type pair struct{ name, question string }
	differ, agree := map[pair]int{}, map[pair]int{}
	for _, t := range twins {
		b := alone[t.api()+"/"+t.question]
		if b == nil || b.n < 2 || !b.steady || t.phase() == "alone" && (t.how() == "streamed" || t.how() == "again") {
			continue
		}
		name := t.variant
		if t.phase() == "crowd" && t.how() == "again" {
			name = "crowd/" + t.api() + "/streamed"
		}
		c, p := of(name), pair{name, t.question}
		c.compared++
		switch {
		case t.hash == b.hash:
			agree[p]++
			if differs(t.usage, b.usage) || differs(t.prompt, b.prompt) {
				if c.counts++; c.example.IsZero() {
					c.example = words.Say("%s has the same answer and other counts: %d tokens of the prompt and %d of the answer, and %d and %d", t.question, t.prompt, t.usage, b.prompt, b.usage)
				}
			}
		case t.phase() == "alone" || crowdSteady:
			differ[p]++
		}
	}
	for p, n := range differ {
		if agree[p] == 0 && n > 1 {
			c := found[p.name]
			c.texts++
		}
	}
	again(twins, load, crowdSteady, of)
	return found, steady, crowdSteady
}

// again compares requests of the load with their repetitions alone.
func again(twins []twin, load []looked, crowdSteady bool, of func(string) *wayCompared) {
	then := map[int64]looked{}
	for _, l := range load {
		then[l.seq] = l
	}
	for seq, all := range aloneBySeq(twins) {
		l, has := then[seq]
		if !has || l.foreign != "" {
			continue
		}
		c := of("alone/load")
		c.compared++
		switch {
		case all[0].hash == l.hash:
			if differs(all[0].usage, l.tokens) || differs(all[0].prompt, l.prompt) {
				c.counts++
			}
		case crowdSteady && len(all) > 1 && all[0].hash == all[1].hash:
			c.texts++
		}
	}
}

// differs reports whether two counts are known and differ by more than one token, which
// some services count for the end of an answer.
func differs(a, b int32) bool { return a > 0 && b > 0 && (a-b > 1 || b-a > 1) }

// disagreeing decides how many ways to ask give another answer than the reference.
func (f *Finding) disagreeing(o scenarios.Objective, e *evidence) {
	var count int64
	var disagreements []words.Sentence
	asked, steady, crowded := false, false, false
	for _, name := range scenariosOf(e.gate, o) {
		if len(e.twins[name]) == 0 {
			continue
		}
		asked = true
		found, same, crowd := waysCompared(e.twins[name], e.looked[name])
		steady, crowded = steady || same, crowded || crowd
		names := make([]string, 0, len(found))
		for variant := range found {
			names = append(names, variant)
		}
		slices.Sort(names)
		for _, variant := range names {
			c := found[variant]
			f.Samples += int64(c.compared)
			if c.texts == 0 && c.counts == 0 {
				continue
			}
			count++
			disagreements = append(disagreements, c.said(variant))
		}
	}
	switch {
	case !asked:
		f.Why = words.Say("no twin was answered")
		return
	case !steady:
		f.Waived, f.Why = o.WhereSupported, words.Say("the service does not give the same answer twice to the same question, asked alone in the same way at temperature 0, so that no two ways can be compared")
		return
	}
	f.decide(float64(count), o)
	f.Why = words.Say("%d answers were compared: %s", f.Samples, f.Why)
	if len(disagreements) > 0 {
		f.Why = words.Say("%s; %s", f.Why, disagreements[0])
	}
	if !crowded {
		f.Why = words.Say("%s (beside the load the same question is not answered alike each time, or was not asked often enough, so that only counts are compared there)", f.Why)
	}
}

// said describes how the answers of a way differ from the references.
func (c *wayCompared) said(variant string) words.Sentence {
	var what words.Sentence
	switch {
	case variant == "alone/load":
		what = words.Say("requests of the load that were asked again alone")
	case strings.HasPrefix(variant, "crowd/"):
		what = words.Say("asked by %s beside the load", strings.Replace(strings.TrimPrefix(variant, "crowd/"), "/", ", ", 1))
	default:
		what = words.Say("asked by %s", strings.Replace(strings.TrimPrefix(variant, "alone/"), "/", ", ", 1))
	}
	if c.texts > 0 {
		return words.Say("%s: %d answers are other texts than those given alone, streamed, over a kept connection", what, c.texts)
	}
	if c.example.IsZero() {
		return words.Say("%s: %d answers have the same text and other counts", what, c.counts)
	}
	return words.Say("%s: %s", what, c.example)
}

const (
	leastCounted = 60 // fewest tokens for a comparison of counts
)

// counts are the sums by which the numbers of tokens are checked.
type counts struct {
	usage, counted, pieces, ends float64 // of answers: tokens in usage, tokens by the tokenizer, chunks, and answers that may count a token for their end
	prompts                      map[string]twin
	answers                      float64 // tokens in usage of the answers that the counting prompts consist of
}

// countsOf sums up the twins of a scenario that were asked alone.
func countsOf(twins []twin) counts {
	c := counts{prompts: map[string]twin{}}
	firsts := map[string]bool{}
	var own string
	for _, t := range twins {
		if strings.HasPrefix(t.variant, "count/") {
			c.prompts[t.variant] = t
			continue
		}
		if t.phase() != "alone" || t.how() != "streamed" || t.usage == 0 {
			continue
		}
		if own == "" {
			own = t.api()
		}
		if t.api() == own && !firsts[t.question] {
			firsts[t.question] = true
			c.answers += float64(t.usage)
		}
		c.pieces += float64(t.pieces)
		c.usage += float64(t.usage)
		c.counted += float64(t.counted)
		if t.stopped {
			c.ends++
		}
	}
	if c.prompts["count/once"].question != fmt.Sprintf("of %d", len(firsts)) {
		c.answers = 0 // it is not known which answers the prompts consist of
	}
	return c
}

// tokenizer is what counted the tokens of texts.
func (e *evidence) tokenizer() words.Sentence {
	if file := e.gate.Target.Tokenizer(); file != "" {
		return words.Say("the tokenizer file %s", filepath.Base(file))
	}
	return words.Say("the service's tokenizer")
}

// off is the relative error of a sum; up to ends more tokens are not an error.
func off(is, should, ends float64) float64 {
	over := is - should
	if over > 0 {
		over = max(0, over-ends)
	}
	return math.Abs(over) / should
}

// answerCounts decides the relative error of the tokens of answers. If usage counts
// more tokens than the tokenizer, the number of chunks decides: a model may write a
// text in more tokens than its tokenizer would, and then sends as many chunks.
func (f *Finding) answerCounts(o scenarios.Objective, e *evidence) {
	var worst *float64
	var example words.Sentence
	for _, name := range scenariosOf(e.gate, o) {
		c := countsOf(e.twins[name])
		should, by := c.counted, e.tokenizer()
		is := c.usage
		ends := c.ends
		once, none := c.prompts["count/once"], c.prompts["count/none"]
		if should < leastCounted {
			should, by = 0, words.Say("the service's own count of the same texts as a prompt")
			if is = c.answers; once.prompt > none.prompt && none.prompt > 0 {
				should = float64(once.prompt - none.prompt)
				ends += 3 // the line breaks between the answers
			}
		}
		if is < leastCounted || should == 0 {
			continue
		}
		value := off(is, should, ends)
		if is > should && c.pieces > 0 {
			value = min(value, off(c.usage, c.pieces, ends))
		}
		f.Samples += int64(is)
		if worst == nil || value > *worst {
			worst, example = &value, words.Say("usage counts %d tokens, and %s %d", int64(is), by, int64(should))
		}
	}
	if worst == nil {
		f.Waived, f.Why = o.WhereSupported, words.Say("neither a tokenizer of the service nor the usage of prompts counts the tokens of enough text")
		return
	}
	f.decide(*worst, o)
	f.Why = words.Say("%s: %s", example, f.Why)
}

// promptCounts decides the relative error of the tokens of prompts.
func (f *Finding) promptCounts(o scenarios.Objective, e *evidence) {
	var worst *float64
	var example words.Sentence
	note := func(is, should float64, how words.Sentence) {
		if should < leastCounted {
			return
		}
		// Where two texts are joined, there may be a token more or less.
		value := max(0, math.Abs(is-should)-2) / should
		f.Samples += int64(should)
		if worst == nil || value > *worst {
			worst, example = &value, how
		}
	}
	for _, name := range scenariosOf(e.gate, o) {
		c := countsOf(e.twins[name])
		none, once, twice := c.prompts["count/none"], c.prompts["count/once"], c.prompts["count/twice"]
		if none.prompt == 0 || once.prompt == 0 || twice.prompt == 0 {
			continue
		}
		first, second := float64(once.prompt-none.prompt), float64(twice.prompt-once.prompt)
		note(second, first+1, words.Say("a text adds %d tokens to a prompt, and the same text after it %d", int64(first), int64(second)))
		if once.counted > 0 && twice.counted > 0 {
			should := float64(twice.counted - once.counted)
			note(second, should, words.Say("usage counts %d tokens for a text that has %d by %s", int64(second), int64(should), e.tokenizer()))
		}
	}
	if worst == nil {
		f.Waived, f.Why = o.WhereSupported, words.Say("no usage says how many tokens the prompts had that were sent for it")
		return
	}
	f.decide(*worst, o)
	f.Why = words.Say("%s: %s", example, f.Why)
}
