package run

import (
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/scenarios"
)

var wholeThorough = flag.Bool("whole", false, "play the thorough gate at its whole length")

// other is an earlier answer to another prompt, of at least so many tokens.
func (s *planted) other(q question, tokens int) *answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range slices.Backward(s.answers) {
		if len(a.tokens) >= tokens && a.of != q.prompt {
			return a
		}
	}
	return nil
}

// wordsFile is a tokenizer.json in which each word of the services' vocabulary is a
// token, with the blank before it if there is one.
func wordsFile(t *testing.T) string {
	t.Helper()
	vocab := map[string]int{}
	add := func(s string) {
		if _, has := vocab[s]; !has {
			vocab[s] = len(vocab)
		}
	}
	// The bytes as byte-level BPE writes them.
	for b, next := 0, rune(256); b < 256; b++ {
		r := rune(b)
		if !(b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae) {
			r = next
			next++
		}
		add(string(r))
	}
	for _, word := range vocabulary {
		add(word)
		add("Ġ" + word)
		add("Ċ" + word)
	}
	b, err := json.Marshal(map[string]any{
		"pre_tokenizer": map[string]any{"type": "Sequence", "pretokenizers": []any{
			map[string]any{"type": "Split", "behavior": "Isolated", "pattern": map[string]any{"Regex": `\s*\S+`}},
			map[string]any{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
		}},
		"model": map[string]any{"type": "BPE", "vocab": vocab, "merges": []string{}},
	})
	path := filepath.Join(t.TempDir(), "tokenizer.json")
	if err == nil {
		err = os.WriteFile(path, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// asked are flaws in the content of answers, or in their token counts, that ordinary
// requests do not reveal. The thorough gate asks in other ways too.
var asked = []defect{
	// Answers of other requests.
	{"carries-another-mark", "one answer in fifty is the one to another question, whose mark it repeats", "foreign_answers in answers",
		func(s *planted) {
			s.echoes = true
			s.defect = func(s *planted, q question, a *answer) {
				if o := s.other(q, len(a.tokens)); o != nil && q.n%50 == 0 {
					copy(a.tokens, o.tokens)
				}
			}
		}},
	{"ends-with-another-mark", "one answer in fifty goes on as the one to another question", "foreign_answers in answers",
		func(s *planted) {
			s.echoes = true
			s.defect = func(s *planted, q question, a *answer) {
				if o := s.other(q, len(a.tokens)); o != nil && q.n%50 == 0 {
					copy(a.tokens[len(a.tokens)/2:], o.tokens)
				}
			}
		}},
	{"earlier-answer", "one answer in fifteen is an earlier one, to another question", "repeated_answers in answers",
		answers(func(s *planted, q question, a *answer) {
			if o := s.other(q, len(a.tokens)); o != nil && q.n%15 == 0 && strings.Contains(q.prompt, "(Reference") {
				copy(a.tokens, o.tokens)
			}
		})},
	{"parts-of-another", "beside others, one answer in ten ends with half of an earlier one, to another question", "foreign_answers in answers",
		answers(func(s *planted, q question, a *answer) {
			if o := s.other(q, len(a.tokens)); o != nil && q.n%10 == 0 && q.beside > 0 && strings.Contains(q.prompt, "(Reference") {
				copy(a.tokens[len(a.tokens)/2:], o.tokens)
			}
		})},
	{"one-answer-for-all", "every question of the same length limit has the same answer", "repeated_answers in answers",
		answers(func(_ *planted, q question, a *answer) {
			copy(a.tokens, sound(question{prompt: "a", maxTokens: q.maxTokens}).tokens)
		})},
	{"one-answer-in-a-minute", "an answer is kept for two seconds, and given to everybody who asks meanwhile", "repeated_answers in answers",
		answers(func(_ *planted, q question, a *answer) {
			copy(a.tokens, sound(question{prompt: q.since.Truncate(2 * time.Second).String(), maxTokens: q.maxTokens}).tokens)
		})},
	{"cache-by-first-words", "answers are kept by the first eight characters of the question", "repeated_answers in answers",
		answers(func(_ *planted, q question, a *answer) {
			copy(a.tokens, sound(question{prompt: q.prompt[:min(8, len(q.prompt))], maxTokens: q.maxTokens}).tokens)
		})},

	// Incomplete answers.
	{"end-missing", "the last quarter of one answer in ten does not come; usage and finish reason are those of the whole", "false_ends in answers",
		answers(func(_ *planted, q question, a *answer) {
			if q.n%10 == 0 {
				a.shorten(len(a.tokens) * 3 / 4)
			}
		})},
	{"end-always-missing", "the last quarter of no answer comes; usage and finish reason are those of the whole", "answer_count_error in answers",
		answers(func(_ *planted, _ question, a *answer) { a.shorten(len(a.tokens) * 3 / 4) })},
	{"hides-early-end", "one answer in ten ends early, and its finish reason says length", "false_ends in answers",
		answers(func(_ *planted, q question, a *answer) {
			if q.n%10 == 0 {
				a.shorten(len(a.tokens) * 3 / 4)
				a.usage = len(a.tokens)
			}
		})},
	{"piece-twice", "four tokens of every answer come twice", "answer_count_error in answers",
		answers(func(_ *planted, _ question, a *answer) {
			if n := len(a.tokens); n > 12 {
				a.tokens = slices.Insert(a.tokens, 8, a.tokens[4:8]...)
				a.wait = slices.Insert(a.wait, 8, a.wait[4:8]...)
			}
		})},
	{"past-the-limit", "one answer in ten has a token more than max_tokens, and says so", "false_ends in answers",
		answers(func(_ *planted, q question, a *answer) {
			if q.n%10 == 0 && len(a.tokens) > 1 {
				a.tokens, a.wait = append(a.tokens, " and"), append(a.wait, tokenWait)
				a.usage++
			}
		})},
	{"stream-loses-the-end", "a stream lacks its last three tokens; whole answers have them", "disagreeing_twins in answers",
		answers(func(_ *planted, q question, a *answer) {
			if n := len(a.tokens); n > 12 && !q.whole {
				a.shorten(n - 3)
			}
		})},

	// Answers that depend on the way of asking.
	{"whole-differs", "answers that are not streamed are other ones", "disagreeing_twins in answers",
		answers(func(_ *planted, q question, a *answer) {
			if q.whole {
				slices.Reverse(a.tokens)
			}
		})},
	{"whole-counts-otherwise", "the usage of answers that are not streamed is a twentieth higher", "disagreeing_twins in answers",
		answers(func(_ *planted, q question, a *answer) {
			if q.whole {
				a.usage += max(2, a.usage/20)
			}
		})},
	{"whole-counts-prompts-otherwise", "the prompt of an answer that is not streamed counts without its template", "disagreeing_twins in answers",
		answers(func(_ *planted, q question, a *answer) {
			if q.whole {
				a.prompt -= 5
			}
		})},
	{"new-connection-differs", "the first answer on a connection is another one", "disagreeing_twins in answers",
		answers(func(_ *planted, q question, a *answer) {
			if q.fresh && len(a.tokens) > 4 {
				slices.Reverse(a.tokens)
			}
		})},
	{"crowd-differs", "beside three others a question has another answer than alone, each time the same", "disagreeing_twins in answers",
		answers(func(_ *planted, q question, a *answer) {
			if q.crowd && len(a.tokens) > 4 {
				slices.Reverse(a.tokens)
			}
		})},
	{"crowd-counts-otherwise", "beside the load usage counts a tenth more", "disagreeing_twins in answers",
		answers(func(_ *planted, q question, a *answer) {
			if q.beside > 1 {
				a.usage += a.usage / 10
			}
		})},
	{"completions-whole-differs", "whole answers of /v1/completions repeat the question first", "disagreeing_twins in answers",
		answers(func(_ *planted, q question, a *answer) {
			if q.whole && q.api == "completions" {
				a.tokens[0] = q.prompt + a.tokens[0]
			}
		})},

	// Wrong counts.
	{"answers-count-more", "usage counts a twentieth more tokens than the answer has", "answer_count_error in answers",
		answers(func(_ *planted, q question, a *answer) { a.usage += a.usage / 20 })},
	{"answers-count-fewer", "usage counts a tenth fewer tokens than the answer has, and there is no tokenizer", "answer_count_error in answers",
		func(s *planted) {
			s.without = []string{"/tokenize"}
			s.defect = func(_ *planted, _ question, a *answer) { a.usage -= a.usage / 10 }
		}},
	{"prompts-count-more", "usage counts a twentieth more tokens than the prompt has", "prompt_count_error in answers",
		answers(func(_ *planted, _ question, a *answer) { a.prompt += a.prompt / 20 })},
	{"long-prompts-count-more", "the tokens of a prompt beyond sixty count double, and there is no tokenizer", "prompt_count_error in answers",
		func(s *planted) {
			s.without = []string{"/tokenize"}
			s.defect = func(_ *planted, _ question, a *answer) { a.prompt += max(0, a.prompt-160) }
		}},
	{"answers-count-fewer-than-the-file", "usage counts a twentieth fewer tokens than the answer has, there is no tokenizer, and the gate names the model's file", "answer_count_error in answers",
		func(s *planted) {
			s.without, s.file = []string{"/tokenize"}, true
			s.defect = func(_ *planted, _ question, a *answer) { a.usage -= a.usage / 20 }
		}},
	{"prompts-count-more-than-the-file", "usage counts a twentieth more tokens than the prompt has, the service's tokenizer agrees, and the gate names the model's file", "prompt_count_error in answers",
		func(s *planted) {
			s.counts, s.file = func(n int) int { return n + n/20 }, true
			s.defect = func(_ *planted, _ question, a *answer) { a.prompt += a.prompt / 20 }
		}},
	{"tokens-moved", "a tenth of the answer's tokens is counted to the prompt, and there is no tokenizer", "answer_count_error in answers",
		func(s *planted) {
			s.without = []string{"/tokenize"}
			s.defect = func(_ *planted, _ question, a *answer) {
				a.prompt += a.usage / 10
				a.usage -= a.usage / 10
			}
		}},

	// Wrong statements of the service about itself.
	{"well-though-dead", "after five seconds every answer is an error, and /health says well", "false_health in answers",
		answers(func(_ *planted, q question, a *answer) {
			if q.since > 5*time.Second {
				a.status, a.kind, a.raw = 500, "application/json", `{"error":{"message":"engine is dead"}}`
			}
		})},
	{"well-though-stuck", "after five seconds every answer breaks off, and /health says well", "false_health in answers",
		answers(func(_ *planted, q question, a *answer) {
			if q.since > 5*time.Second {
				a.cut = 3
			}
		})},
	{"ill-though-alive", "/health says 503 from the third second on, and everything is answered", "false_health in answers",
		func(s *planted) {
			s.health = func(since time.Duration) int {
				if since > 3*time.Second {
					return 503
				}
				return 200
			}
		}},
	{"records-without-metadata", "one record in thirty has lost the metadata that it was acknowledged with", "lost_writes in answers",
		func(s *planted) {
			s.alters = func(n int, o map[string]any) {
				if n%30 == 0 {
					delete(o, "metadata")
				}
			}
		}},
	{"records-in-another-order", "one record in twenty holds its words in another order", "lost_writes in answers",
		func(s *planted) {
			s.alters = func(n int, o map[string]any) {
				if n%20 == 0 {
					all := strings.Fields(recordText(o)["text"].(string))
					slices.Reverse(all)
					recordText(o)["text"] = " " + strings.Join(all, " ")
				}
			}
		}},
	{"records-of-others", "one record in twenty holds the text of an earlier one", "lost_writes in answers",
		func(s *planted) {
			earlier := "" // of five writes ago
			s.alters = func(n int, o map[string]any) {
				switch {
				case n%20 == 0:
					recordText(o)["text"] = earlier
				case n%5 == 0:
					earlier = recordText(o)["text"].(string)
				}
			}
		}},
}

// judgeThorough plays the thorough gate and judges the run. The short form has a
// quarter of the load, and more frequent requests beside it.
func judgeThorough(t *testing.T, dir string, s *planted, seed uint64, whole bool) checklist.Verdict {
	t.Helper()
	gate := ready(t, "thorough")
	gate.Scenarios = gate.Scenarios[:1] // the other is about times, and has tests of its own
	gate.Objectives = slices.DeleteFunc(gate.Objectives, func(o scenarios.Objective) bool { return o.Scenario != "answers" })
	if !whole {
		answers := &gate.Scenarios[0]
		answers.Stages[0].For = scenarios.Duration(12 * time.Second)
		answers.Twins.Every, answers.Twins.For = scenarios.Duration(60*time.Millisecond), scenarios.Duration(12*time.Second)
	}
	return judgeGate(t, dir, s, gate, seed)
}

// Every defect of asked fails its objective in the thorough gate.
func TestAskedDefectsAreFound(t *testing.T) {
	if testing.Short() {
		t.Skip("plays 35 gates of 24 s, ten at a time")
	}
	t.Parallel()
	findAll(t, asked, func(s *planted, dir string, seed uint64) checklist.Verdict {
		return judgeThorough(t, dir, s, seed, *wholeThorough)
	})
}

// The sound service passes the thorough gate, with and without a tokenizer, and even if
// it is not deterministic.
func TestTheSoundServicePassesWhateverIsAsked(t *testing.T) {
	if testing.Short() {
		t.Skip("plays a gate of 90 s")
	}
	t.Parallel()
	dir := t.TempDir()
	kinds := []struct {
		name  string
		plant func(*planted)
	}{
		{"as it is", func(*planted) {}},
		{"without a tokenizer", func(s *planted) { s.without = []string{"/tokenize"} }},
		{"with its tokenizer's file", func(s *planted) { s.without, s.file = []string{"/tokenize"}, true }},
		{"with marks in its answers, and without completions", func(s *planted) { s.echoes, s.without = true, []string{"/v1/completions"} }},
		{"another answer each time", func(s *planted) {
			s.defect = func(_ *planted, _ question, a *answer) {
				rand.Shuffle(len(a.tokens), func(i, j int) { a.tokens[i], a.tokens[j] = a.tokens[j], a.tokens[i] })
			}
		}},
		{"another end in the crowd now and then", func(s *planted) {
			s.defect = func(_ *planted, q question, a *answer) {
				if n := len(a.tokens); q.beside > 0 && rand.IntN(5) == 0 && n > 8 {
					other := sound(question{prompt: q.prompt + "!", maxTokens: n})
					copy(a.tokens[n/2:], other.tokens[n/2:])
				}
			}
		}},
		{"one text for all, which repeats itself", func(s *planted) {
			s.defect = func(_ *planted, _ question, a *answer) {
				for i := range a.tokens {
					a.tokens[i] = []string{" the", " dog"}[i%2]
				}
			}
		}},
		{"several tokens in a chunk", func(s *planted) {
			s.defect = func(_ *planted, _ question, a *answer) {
				for i := 0; i+1 < len(a.tokens); i++ {
					a.tokens[i] += a.tokens[i+1]
					a.tokens, a.wait = slices.Delete(a.tokens, i+1, i+2), slices.Delete(a.wait, i+1, i+2)
				}
			}
		}},
	}
	inTurns(max(len(kinds), *soundRuns), func(i int) {
		s := newPlanted()
		kinds[i%len(kinds)].plant(s)
		v := judgeThorough(t, filepath.Join(dir, "run", kinds[i%len(kinds)].name, time.Duration(i).String()), s, uint64(300+i), i == 0 || *wholeThorough)
		// Of these objectives only false_health is about time; none of the others may fail
		// on a busy machine.
		for _, f := range v.Objectives {
			if f.Verdict == checklist.Fail && (v.Client.Valid || !strings.HasPrefix(f.Source, "false_health")) {
				t.Errorf("%s: %s: %v", kinds[i%len(kinds)].name, f.Source, f.Why)
			}
		}
		switch {
		case !v.Client.Valid:
			t.Logf("run %d: not judged: %s", i, v.Client.Why)
		case v.Verdict != checklist.Pass && (i == 0 || *wholeThorough): // the short form proves nothing
			t.Errorf("%s: %s: %v", kinds[i%len(kinds)].name, v.Verdict, v.Why)
		}
	})
}
