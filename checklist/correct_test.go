package checklist

import (
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// correctGate has one stage of a minute, and one objective.
func correctGate(t *testing.T, objective string) scenarios.Gate {
	t.Helper()
	o, err := scenarios.ParseObjective(objective)
	if err != nil {
		t.Fatal(err)
	}
	return scenarios.Gate{Name: "g", Target: scenarios.Target{Local: &scenarios.Local{}}, Objectives: []scenarios.Objective{o},
		Scenarios: []scenarios.Scenario{{Name: "s", Canary: &scenarios.Canary{}, Workload: scenarios.Workload{IgnoreEOS: true},
			Stages: []scenarios.Stage{{Name: "m", For: scenarios.Duration(time.Minute), Rate: 2}}}}}
}

// minute is a minute of 120 sound requests, as changed by f, and more observations.
func minute(f func(i int, r *recording.Request), more ...recording.Observation) *recording.Recording {
	var rows []recording.Request
	for i := range 120 {
		due := time.Second + time.Duration(i)*500*time.Millisecond
		load := recording.Request{Seq: int64(i), Kind: recording.KindLoad, Scenario: "s", Stage: "m", Streamed: true, Due: due, Sent: due + 1,
			FirstToken: due + 100*time.Millisecond, LastToken: due + time.Second, End: due + time.Second, OutputTokens: 10, FirstChunkTokens: 1, AskedTokens: 10, TokensFrom: "usage"}
		canary := load
		canary.Kind, canary.Stage, canary.Class, canary.AnswerHash, canary.AnswerTokens = recording.KindCanary, "", []string{"canary-0", "canary-1"}[i%2], int64(1+i%2), 10
		f(i, &load)
		f(i, &canary)
		rows = append(rows, load, canary)
	}
	seen := []recording.Observation{
		{At: time.Second, Name: recording.ObsScenarioStarted, Subject: "s"},
		{At: time.Second, Name: recording.ObsStageStarted, Subject: "s/m", Value: 120},
	}
	seen = append(seen, more...)
	seen = append(seen, recording.Observation{At: 61 * time.Second, Name: recording.ObsStageEnded, Subject: "s/m", Value: 120},
		recording.Observation{At: 61 * time.Second, Name: recording.ObsScenarioEnded, Subject: "s"}, recording.Observation{At: 62 * time.Second, Name: recording.ObsRunEnded})
	return recording.InMemory(rows, nil, seen)
}

// because is an observation with a reason, given by the service or its tokenizer.
func because(name string, n float64, why string) recording.Observation {
	return recording.Observation{At: stageFrom, Name: name, Subject: "s", Value: n, Text: words.Verbatim(why)}
}

func TestWhetherAServiceIsRight(t *testing.T) {
	sound := func(int, *recording.Request) {}
	// of the memory of two processes, one of which grows
	memory := func(per float64) (seen []recording.Observation) {
		for i := range 60 {
			at := time.Second + time.Duration(i)*time.Second
			seen = append(seen, recording.Observation{At: at, Name: recording.ObsMemory, Subject: "a", Value: 1e8},
				recording.Observation{At: at, Name: recording.ObsMemory, Subject: "b", Value: 1e8 + per*float64(i)})
		}
		return seen
	}
	ready := func(n ...float64) (seen []recording.Observation) {
		for i, v := range n {
			seen = append(seen, recording.Observation{At: time.Duration(i) * 5 * time.Second, Name: recording.ObsReplicasReady, Value: v})
		}
		return seen
	}
	for _, tt := range []struct {
		says, objective string
		rec             *recording.Recording
		want            Outcome
		why             string
	}{
		{"answers of the length asked for", "wrong_length in s <= 4%", minute(sound), Pass, "0 of 120"},
		{"some are shorter", "wrong_length in s <= 4%", minute(func(i int, r *recording.Request) {
			if i%20 == 0 {
				r.OutputTokens = 9
			}
		}), Fail, "6 of 120"},
		{"nobody asked for a length", "wrong_length in s <= 4%", minute(func(_ int, r *recording.Request) { r.AskedTokens = 0 }), Unproven, "ignore_eos"},
		{"refused in order", "refused_rate in s >= 15%", minute(func(i int, r *recording.Request) {
			if i%4 == 0 {
				r.Error, r.RetryAfter = recording.ErrorShed, time.Second
			}
		}), Pass, "30 of 120"},
		{"refused, and nobody knows until when", "refused_rate in s >= 15%", minute(func(i int, r *recording.Request) {
			if i%4 == 0 {
				r.Error = recording.ErrorShed
			}
		}), Fail, "0 of 120"},
		{"refused in order is not broken", "broken_rate in s <= 4%", minute(func(i int, r *recording.Request) {
			if i%4 == 0 {
				r.Error, r.RetryAfter = recording.ErrorLimited, time.Second
			}
		}), Pass, "0 of 120"},
		{"broken", "broken_rate in s <= 1%", minute(func(i int, r *recording.Request) {
			switch i {
			case 7, 8:
				r.Error, r.RetryAfter = recording.ErrorStatus, time.Second // 500, even with a Retry-After
			case 9:
				r.Error = recording.ErrorLimited // 429, without a Retry-After
			}
		}), Fail, "3 of 120"},
		{"what a cache had", "cache_hit_rate in s >= 50%", minute(func(i int, r *recording.Request) {
			r.CachedReported, r.PromptTokens, r.CachedTokens = true, 100, 60
		}), Pass, "7200 of 12000 tokens"},
		{"a cache that had little", "cache_hit_rate in s >= 50%", minute(func(i int, r *recording.Request) {
			r.CachedReported, r.PromptTokens, r.CachedTokens = true, 100, 10
		}), Fail, "1200 of 12000 tokens"},
		{"a cache that nobody tells of", "cache_hit_rate in s >= 50%", minute(func(i int, r *recording.Request) { r.PromptTokens = 100 }), Unproven, "cached_tokens"},
		{"the same answers", "changed_answers in s <= 4%", minute(sound), Pass, "0 of 120"},
		{"some answers change", "changed_answers in s <= 4%", minute(func(i int, r *recording.Request) {
			if i%10 == 0 {
				r.AnswerHash = int64(1000 + i)
			}
		}), Fail, "12 of 120"},
		{"each question once", "changed_answers in s <= 4%", minute(func(i int, r *recording.Request) {
			if r.Kind == recording.KindCanary && i > 1 {
				r.Error = recording.ErrorTimeout
			}
		}), Unproven, "answered twice"},
		{"usage as the tokenizer counts", "miscounted_tokens in s <= 4%", minute(func(_ int, r *recording.Request) { r.OutputTokens = 11 }), Pass, "0 of 120"},
		{"usage of twice the tokens", "miscounted_tokens in s <= 4%", minute(func(_ int, r *recording.Request) { r.OutputTokens = 20 }), Fail, "120 of 120"},
		{"no usage at all", "miscounted_tokens in s <= 4%", minute(func(_ int, r *recording.Request) { r.TokensFrom = "chunks" }), Fail, "120 of 120"},
		{"no tokenizer", "miscounted_tokens in s <= 4%", minute(func(_ int, r *recording.Request) { r.AnswerTokens = 0 }), Unproven, "/tokenize"},
		{"a service without tokenizer", "miscounted_tokens in s <= 4%", minute(func(_ int, r *recording.Request) { r.AnswerTokens = 0 },
			because(recording.ObsTokenizerAbsent, 0, "the service has no /tokenize (404 Not Found)")), Unproven, "no /tokenize (404 Not Found), so"},
		{"a tokenizer that fails", "miscounted_tokens in s <= 4%", minute(func(_ int, r *recording.Request) { r.AnswerTokens = 0 },
			because(recording.ObsTokenizerFailed, 9, "POST /tokenize answers 500: out of memory")), Unproven, "out of memory"},
		{"a tokenizer that fails at times", "miscounted_tokens in s <= 8%", minute(func(i int, r *recording.Request) {
			if r.OutputTokens = 11; i < 30 {
				r.AnswerTokens = 0
			}
		}, because(recording.ObsTokenizerFailed, 30, "POST /tokenize answers 503: busy")), Pass, "(30 answers could not be counted: POST /tokenize answers 503: busy)"},
		{"memory of a service without metrics", "memory_growth in s <= 10%", minute(sound, because(recording.ObsMemoryUnreported, 0, "the service has no /metrics (404 Not Found)")), Unproven, "404 Not Found"},
		{"metrics that cannot be read", "memory_growth in s <= 10%", minute(sound, because(recording.ObsMetricsUnread, 0, "GET /metrics: x509: the certificate is signed by nobody")), Unproven, "could not be read: GET /metrics: x509"},
		{"memory seen twice", "memory_growth in s <= 10%", minute(sound, memory(1e5)[:2]...), Unproven, "measured fewer than 3 times"},
		{"memory has no bound", "memory_growth in s <= 10%", minute(sound, memory(1e5)...), Pass, "has no bound"},
		{"as quick as in the beginning, with a bound", "drift(ttft) in s <= 20%", minute(func(i int, r *recording.Request) { r.FirstToken += time.Duration(i*7%13) * time.Millisecond }), Pass, "confidence up to"},
		{"as quick, but who knows", "drift(ttft) in s <= 10%", minute(func(i int, r *recording.Request) { r.FirstToken += time.Duration(i*7%60) * 10 * time.Millisecond }), Unproven, "only known to be below"},
		{"as quick as in the beginning", "drift(ttft) in s <= 20%", minute(sound), Pass, ""},
		{"slower and slower", "drift(ttft) in s <= 20%", minute(func(i int, r *recording.Request) { r.FirstToken += time.Duration(i) * time.Millisecond }), Fail, ""},
		{"quicker and quicker", "drift(ttft) in s <= 20%", minute(func(i int, r *recording.Request) { r.FirstToken -= time.Duration(i) * 500 * time.Microsecond }), Pass, "it is 0 %"},
		{"too few to compare", "drift(ttft) in s <= 20%", minute(func(i int, r *recording.Request) {
			if i > 90 {
				r.Error = recording.ErrorTimeout
			}
		}), Unproven, "least"},
		{"memory that stays", "memory_growth in s <= 10%", minute(sound, memory(1e5)...), Pass, "3.9"},
		{"a process that grows", "memory_growth in s <= 10%", minute(sound, memory(1e6)...), Fail, ""},
		{"memory that nobody saw", "memory_growth in s <= 10%", minute(sound), Unproven, "process_resident_memory_bytes"},
		{"all replicas stay", "replicas_ready in s >= 3", minute(sound, ready(3)...), Pass, "it is 3"},
		{"one goes in silence", "replicas_ready in s >= 3", minute(sound, ready(3, 3, 2, 3)...), Fail, "it is 2"},
		{"they came before the scenario began", "replicas_ready in s >= 3", minute(sound, append([]recording.Observation{{At: 1, Name: recording.ObsReplicasReady, Value: 1}}, recording.Observation{At: 2, Name: recording.ObsReplicasReady, Value: 3})...), Pass, "it is 3"},
		{"replicas that nobody knows", "replicas_ready in s >= 3", minute(sound), Unproven, "did not deploy"},
	} {
		v, err := Judge(correctGate(t, tt.objective), tt.rec)
		if err != nil {
			t.Fatal(err)
		}
		if f := v.Objectives[0]; f.Verdict != tt.want || !strings.Contains(f.Why.String(), tt.why) {
			t.Errorf("%s: %s: %s; want %s with %q", tt.says, f.Verdict, f.Why, tt.want, tt.why)
		}
	}
}
