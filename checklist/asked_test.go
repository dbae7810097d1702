package checklist

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// askedGate has one objective, about a scenario with marks and twins.
func askedGate(t *testing.T, objective string) scenarios.Gate {
	t.Helper()
	o, err := scenarios.ParseObjective(objective)
	if err != nil {
		t.Fatal(err)
	}
	return scenarios.Gate{Scenarios: []scenarios.Scenario{{Name: "s", Twins: &scenarios.Twins{}, Workload: scenarios.Workload{Marks: true},
		Stages: []scenarios.Stage{{Name: "m", For: scenarios.Duration(time.Minute)}}}}, Objectives: []scenarios.Objective{o}}
}

// answersOf are a minute of answers to different questions, and the answers to the same
// questions asked alone.
func answersOf(change func(i int, r *recording.Request)) (all []recording.Request) {
	at := time.Second
	for i := range 600 {
		r := recording.Request{Seq: int64(i), Kind: recording.KindLoad, Scenario: "s", Stage: "m", Streamed: true, Due: at, Sent: at, FirstToken: at + 1, FirstOutput: at + 1, LastToken: at + 2, End: at + 3,
			Status: 200, FinishReason: "length", TokensFrom: "usage", PromptTokens: 20, OutputTokens: 40, LimitTokens: 40,
			QuestionHash: int64(i%40 + 1), AnswerHash: int64(i + 1000), AnswerChars: 200, AnswerVariety: 150}
		for n := range 40 {
			r.Chunks = append(r.Chunks, at+1+time.Duration(n))
		}
		if change != nil {
			change(i, &r)
		}
		all = append(all, r)
		at += 90 * time.Millisecond
	}
	return all
}

// twinsOf are three questions asked in all ways, and the prompts that count their
// tokens.
func twinsOf(change func(r *recording.Request)) (all []recording.Request) {
	at := time.Minute
	give := func(question, way string, hash int64, output, prompt, counted int32) {
		r := recording.Request{Seq: int64(len(all)), Kind: recording.KindTwin, Scenario: "s", Class: question, Way: way, Due: at, Sent: at, FirstToken: at + 1, LastToken: at + 2, End: at + 3,
			Status: 200, FinishReason: "length", TokensFrom: "usage", PromptTokens: prompt, OutputTokens: output, AnswerTokens: counted, AnswerHash: hash, AnswerChars: 200, AnswerVariety: 150, Pieces: output}
		if change != nil {
			change(&r)
		}
		all = append(all, r)
	}
	for q := int64(1); q <= 3; q++ {
		name := fmt.Sprintf("question-%d", q)
		for _, phase := range []string{"alone", "crowd"} {
			for _, way := range []string{"streamed", "again", "whole", "whole", "new connection", "new connection"} {
				give(name, phase+"/chat/"+way, q, 48, 12, 48)
			}
			for _, way := range []string{"streamed", "again", "whole", "whole"} {
				give(name, phase+"/completions/"+way, 10+q, 48, 8, 48)
			}
		}
		give(fmt.Sprintf("sample-%d", q), "sampled", 100+q, 48, 12, 0)
	}
	give("of 3", "count/none", 900, 4, 5, 1)
	give("of 3", "count/once", 901, 4, 150, 146)
	give("of 3", "count/twice", 902, 4, 296, 292)
	return all
}

// Each defect in answers to the same question asked in several ways is found, and
// behaviour that no service promises is not a defect.
func TestWhatIsAskedIsJudged(t *testing.T) {
	one := func(way string, f func(r *recording.Request)) func(r *recording.Request) {
		return func(r *recording.Request) {
			if strings.HasSuffix(r.Way, way) {
				f(r)
			}
		}
	}
	no := func(*recording.Request) {}
	// pairs changes rows that no other objective uses into the repetitions of two
	// requests of the load: alone, with the given answer, and at temperature 1, with
	// two more.
	pairs := func(alone, first, second int64) func(r *recording.Request) {
		return func(r *recording.Request) {
			if r.Class != "question-3" {
				return
			}
			load := func(seq int64, way string, hash int64) {
				r.Class, r.Way, r.Seq, r.QuestionHash, r.AnswerHash = "load", way, seq, seq+1, hash
			}
			switch r.Way {
			case "crowd/completions/streamed":
				load(0, "alone/load", alone)
			case "crowd/completions/again":
				load(0, "alone/load", alone)
			case "crowd/chat/streamed":
				load(20, "alone/load", alone)
			case "crowd/chat/again":
				load(20, "alone/load", alone)
			case "crowd/chat/whole":
				load(0, "sampled/load", first)
			case "crowd/chat/new connection":
				load(20, "sampled/load", second)
			}
		}
	}
	for _, tt := range []struct {
		about, objective string
		load             func(i int, r *recording.Request)
		twins            func(r *recording.Request)
		want             Outcome
		says             string
	}{
		{"a sound service", "foreign_answers in s == 0", nil, no, Pass, "600 answers"},
		{"the mark of another", "foreign_answers in s == 0", func(i int, r *recording.Request) {
			if i == 17 {
				r.Foreign = "s/12"
			}
		}, no, Fail, "request 17 of s carries the mark of request s/12"},
		{"the text of another, and alone it is another", "foreign_answers in s == 0", nil, func(r *recording.Request) {
			if r.Way == "alone/chat/again" && r.Class == "question-1" {
				r.Way, r.Class, r.Seq, r.Foreign = "alone/load", "load", 40, "s/39"
			}
		}, Fail, "request 40 of s was answered with the text that request s/39 was given too"},
		{"no marks were seen", "foreign_answers in s == 0", func(_ int, r *recording.Request) { r.AnswerHash = 0 }, no, Unproven, "no answer"},

		{"a sound service", "repeated_answers in s <= 1%", nil, no, Pass, "0 of 600"},
		{"repeats, and nobody asked them again", "repeated_answers in s <= 1%", func(_ int, r *recording.Request) { r.AnswerHash = 7 }, no, Unproven, "asks them again"},
		{"one answer for all", "repeated_answers in s <= 1%", func(_ int, r *recording.Request) { r.AnswerHash = 7 }, pairs(7, 7, 7), Fail, "ask different questions"},
		{"an earlier answer now and then", "repeated_answers in s <= 1%", func(i int, r *recording.Request) {
			if i%20 == 0 {
				r.AnswerHash = 7
			}
		}, pairs(70, 1, 2), Fail, "of 600"},
		{"the same question twice has the same answer", "repeated_answers in s <= 1%", func(_ int, r *recording.Request) { r.AnswerHash = r.QuestionHash }, no, Pass, "0 of 600"},
		{"a model that repeats itself", "repeated_answers in s <= 1% where supported", func(_ int, r *recording.Request) { r.AnswerHash, r.AnswerVariety = 7, 8 }, no, Unproven, "long and varied"},
		{"a model that says the same to all at temperature 0", "repeated_answers in s <= 1%", func(_ int, r *recording.Request) { r.AnswerHash = 7 }, pairs(7, 1, 2), Pass, "the model's way"},

		{"a sound service", "disagreeing_twins in s == 0", nil, no, Pass, "answers were compared"},
		{"whole answers differ", "disagreeing_twins in s == 0", nil, one("alone/chat/whole", func(r *recording.Request) { r.AnswerHash += 50 }), Fail, "asked by chat, whole"},
		{"whole answers are counted otherwise", "disagreeing_twins in s == 0", nil, one("alone/chat/whole", func(r *recording.Request) { r.OutputTokens += 3 }), Fail, "other counts"},
		{"one token for the end is no other count", "disagreeing_twins in s == 0", nil, one("alone/chat/whole", func(r *recording.Request) { r.OutputTokens++ }), Pass, "it is 0"},
		{"beside the load it always differs", "disagreeing_twins in s == 0", nil, func(r *recording.Request) {
			if strings.HasPrefix(r.Way, "crowd/chat") {
				r.AnswerHash += 50
			}
		}, Fail, "beside the load"},
		{"beside the load it differs now and then", "disagreeing_twins in s == 0", nil, one("crowd/chat/again", func(r *recording.Request) { r.AnswerHash += 50 }), Pass, "only counts are compared there"},
		{"another answer each time", "disagreeing_twins in s == 0 where supported", nil, func(r *recording.Request) { r.AnswerHash = 5000 + r.Seq }, Unproven, "does not give the same answer twice"},

		{"a sound service", "false_ends in s <= 1%", nil, no, Pass, "0 of 600"},
		{"length before the limit", "false_ends in s <= 1%", func(i int, r *recording.Request) {
			if i%20 == 0 {
				r.OutputTokens = 30
			}
		}, no, Fail, "30 of 600"},
		{"an end of its own before the limit", "false_ends in s <= 1%", func(_ int, r *recording.Request) { r.OutputTokens, r.FinishReason = 30, "stop" }, no, Pass, "0 of 600"},
		{"less text than tokens", "false_ends in s <= 1%", func(i int, r *recording.Request) {
			if i%20 == 0 {
				r.Chunks, r.AnswerChars = r.Chunks[:30], 150
			}
		}, no, Fail, "less text"},
		{"several tokens in a chunk", "false_ends in s <= 1%", func(i int, r *recording.Request) {
			if i%20 == 0 {
				r.Chunks = r.Chunks[:30]
			}
		}, no, Pass, "0 of 600"},

		{"a sound service", "answer_count_error in s <= 3%", nil, no, Pass, "tokenizer"},
		{"a twentieth more", "answer_count_error in s <= 3%", nil, func(r *recording.Request) { r.OutputTokens += r.OutputTokens / 20 }, Fail, "tokenizer"},
		{"a text in more tokens than its tokenizer makes", "answer_count_error in s <= 3%", nil, func(r *recording.Request) { r.AnswerTokens -= r.AnswerTokens / 20 }, Pass, "tokenizer"},
		{"without a tokenizer", "answer_count_error in s <= 3%", nil, func(r *recording.Request) { r.AnswerTokens = 0 }, Pass, "as a prompt"},
		{"moved from the answer to the prompt", "answer_count_error in s <= 3%", nil, func(r *recording.Request) {
			r.AnswerTokens, r.OutputTokens, r.PromptTokens = 0, r.OutputTokens*9/10, r.PromptTokens*105/100
		}, Fail, "as a prompt"},
		{"no usage", "answer_count_error in s <= 3% where supported", nil, func(r *recording.Request) { r.TokensFrom = "chunks" }, Unproven, "neither"},

		{"a sound service", "prompt_count_error in s <= 3%", nil, no, Pass, "it is 0"},
		{"a twentieth more", "prompt_count_error in s <= 3%", nil, func(r *recording.Request) { r.PromptTokens += r.PromptTokens / 20 }, Fail, "tokenizer"},
		{"long ones count more", "prompt_count_error in s <= 3%", nil, one("count/twice", func(r *recording.Request) { r.PromptTokens += 30; r.AnswerTokens = 0 }), Fail, "the same text after it"},
	} {
		t.Run(tt.objective+"/"+tt.about, func(t *testing.T) {
			gate := askedGate(t, tt.objective)
			rec := played(answersOf(tt.load), twinsOf(tt.twins))
			v, err := Judge(gate, rec)
			if err != nil {
				t.Fatal(err)
			}
			if f := v.Objectives[0]; f.Verdict != tt.want || !strings.Contains(f.Why.String(), tt.says) {
				t.Errorf("%s: %s; want %s with %q", f.Verdict, f.Why, tt.want, tt.says)
			}
		})
	}
}

// played is a recording of scenario s with its stage m and these requests.
func played(rows ...[]recording.Request) *recording.Recording {
	mark := func(at time.Duration, name, subject string) recording.Observation {
		return recording.Observation{At: at, Name: name, Subject: subject}
	}
	rec := &recording.Recording{Complete: true, Observations: []recording.Observation{
		mark(1, recording.ObsScenarioStarted, "s"), {At: 2, Name: recording.ObsStageStarted, Subject: "s/m", Value: 600},
		mark(time.Minute, recording.ObsStageEnded, "s/m"), mark(2*time.Minute, recording.ObsScenarioEnded, "s"), mark(2*time.Minute, recording.ObsRunEnded, "")}}
	rec.Requests = func(yield func(recording.Request, error) bool) {
		for _, of := range rows {
			for _, r := range of {
				if !yield(r, nil) {
					return
				}
			}
		}
	}
	return rec
}

// A health check is compared with the results of users at the same time.
func TestHealthIsHeldAgainstWhatUsersSaw(t *testing.T) {
	fails := func(from, to int) func(i int, r *recording.Request) {
		return func(i int, r *recording.Request) {
			if i >= from && i < to {
				r.Error = recording.ErrorStatus
			}
		}
	}
	for _, tt := range []struct {
		about string
		load  func(i int, r *recording.Request)
		well  func(second int) float64
		want  Outcome
		says  string
	}{
		{"well, and served", nil, func(int) float64 { return 1 }, Pass, "it is 0 s"},
		{"well, and for ten seconds all fail", fails(200, 320), func(int) float64 { return 1 }, Fail, "failed and 0 succeeded"},
		{"ill, and all are served", nil, func(second int) float64 { return float64(min(1, second/20)) }, Fail, "0 failed"},
		{"ill while all fail", fails(100, 600), func(second int) float64 {
			if second >= 10 {
				return 0
			}
			return 1
		}, Pass, "must be <= 3 s"},
		{"every third fails: nobody can tell", func(i int, r *recording.Request) {
			if i%3 == 0 {
				r.Error = recording.ErrorTimeout
			}
		}, func(int) float64 { return 1 }, Pass, "it is 0 s"},
		{"refused in order is not ill", func(_ int, r *recording.Request) { r.Error = recording.ErrorLimited }, func(int) float64 { return 1 }, Unproven, "too few"},
	} {
		rec := played(answersOf(tt.load))
		for second := 1; second < 55; second++ {
			rec.Observations = append(rec.Observations, recording.Observation{At: time.Duration(second) * time.Second, Name: recording.ObsHealth, Value: tt.well(second)})
		}
		v, err := Judge(askedGate(t, "false_health in s <= 3s where supported"), rec)
		if err != nil {
			t.Fatal(err)
		}
		if f := v.Objectives[0]; f.Verdict != tt.want || !strings.Contains(f.Why.String(), tt.says) {
			t.Errorf("%s: %s: %s; want %s with %q", tt.about, f.Verdict, f.Why, tt.want, tt.says)
		}
	}
	v, err := Judge(askedGate(t, "false_health in s <= 3s where supported"), played(answersOf(nil)))
	if err != nil || !v.Objectives[0].Waived {
		t.Errorf("a service without a health check is held to it: %v, %v", v.Objectives[0].Why, err)
	}
}
