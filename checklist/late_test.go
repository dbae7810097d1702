package checklist

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// mixedRun is a run of 1,500 requests with random lengths and values, ten per second.
// The service takes longer for longer prompts. spoil returns an extra delay for each
// request.
func mixedRun(t testing.TB, promise string, seed uint64, spoil func(i int, r *recording.Request, draw *rand.Rand) time.Duration) *world {
	w := healthy(t, promise)
	const n = 1500
	to := stageFrom + n*100*ms
	w.gate.Scenarios[0].Stages[0].For = scenarios.Duration(to - stageFrom)
	w.observations, w.requests = nil, nil
	w.observe(stageFrom-ms, recording.ObsScenarioStarted, "steady", 0)
	w.observe(stageFrom, recording.ObsStageStarted, "steady/main", n)
	for s := stageFrom + time.Second; s <= to; s += time.Second {
		w.observe(s, recording.ObsClientCPU, "", 0.2)
		w.observe(s, recording.ObsClientSched, "", 0.0001)
		w.observe(s, recording.ObsClientGCPause, "", 0.00005)
	}
	w.observe(to, recording.ObsStageEnded, "steady/main", n)
	w.observe(to+ms, recording.ObsScenarioEnded, "steady", 0)
	w.observe(to+2*ms, recording.ObsRunEnded, "", 0)
	draw := rand.New(rand.NewPCG(seed, 1))
	pick := func(of ...string) string { return of[draw.IntN(len(of))] }
	for i := range n {
		due := stageFrom + time.Duration(i)*100*ms + time.Duration(draw.IntN(90))*ms
		r := answered(int64(i), due, 0, 0)
		r.PromptTokens, r.OutputTokens, r.AskedTokens = int32(10+draw.IntN(2000)), 0, int32(8+draw.IntN(90))
		r.OutputTokens = r.AskedTokens
		r.Variant = "key=" + pick("first", "second", "third") + " connection=" + pick("kept", "new")
		r.Replica = pick("replica-0", "replica-1", "replica-2")
		r.OnConnection, r.Connection = 1, int32(2+i)
		if strings.HasSuffix(r.Variant, "kept") {
			r.OnConnection, r.Connection = int32(2+i), 1
		}
		first := 30*ms + time.Duration(r.PromptTokens)*50*time.Microsecond
		first = time.Duration(float64(first) * math.Exp(0.3*draw.NormFloat64()))
		if spoil != nil {
			first += spoil(i, &r, draw)
		}
		r.FirstToken = due + first
		r.FirstOutput, r.LastVisible, r.LastToken = r.FirstToken, 0, r.FirstToken
		r.Chunks = nil
		for range r.OutputTokens {
			r.Chunks = append(r.Chunks, r.LastToken)
			r.LastToken += 4 * ms
		}
		r.LastToken = r.Chunks[len(r.Chunks)-1]
		r.End = r.LastToken + ms
		w.requests = append(w.requests, r)
	}
	return w
}

func lateFinding(t *testing.T, w *world) Finding {
	t.Helper()
	rec := w.recording()
	rec.Environment.StartedAt = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	v, err := Judge(w.gate, rec)
	if err != nil {
		t.Fatal(err)
	}
	return v.Objectives[0]
}

// The group for which the service is late is named, and the normal behaviour of a sound
// service is not reported.
func TestLateForSome(t *testing.T) {
	always := func(who func(i int, r *recording.Request) bool, much time.Duration) func(int, *recording.Request, *rand.Rand) time.Duration {
		return func(i int, r *recording.Request, _ *rand.Rand) time.Duration {
			if who(i, r) {
				return much
			}
			return 0
		}
	}
	sometimes := func(who string, share float64, much time.Duration) func(int, *recording.Request, *rand.Rand) time.Duration {
		return func(i int, r *recording.Request, draw *rand.Rand) time.Duration {
			if draw.Float64() < share && strings.Contains(r.Variant, who) {
				return much
			}
			return 0
		}
	}
	has := func(value string) func(int, *recording.Request) bool {
		return func(_ int, r *recording.Request) bool { return strings.Contains(r.Variant, value) }
	}
	for _, tt := range []struct {
		says, promise string
		spoil         func(i int, r *recording.Request, draw *rand.Rand) time.Duration
		want          Outcome
		why           string
	}{
		{"nobody", "late_for_some(ttft) in steady <= 150ms", nil, Pass, "none of "},
		{"everybody is no group", "late_for_some(ttft) in steady <= 150ms", always(func(int, *recording.Request) bool { return true }, time.Second), Pass, "none of "},
		{"one in twenty of everybody is none", "late_for_some(ttft) in steady <= 150ms", sometimes("", 0.05, time.Second), Pass, "none of "},
		{"long prompts", "late_for_some(ttft) in steady <= 150ms", always(func(_ int, r *recording.Request) bool { return r.PromptTokens > 1024 }, 480*ms), Fail, "the ttft of prompts of more than 1"},
		{"longer prompts, in proportion", "late_for_some(ttft) in steady <= 150ms", func(_ int, r *recording.Request, _ *rand.Rand) time.Duration {
			return time.Duration(r.PromptTokens) * 500 * time.Microsecond // one second for the longest prompt
		}, Pass, "none of "},
		{"longer prompts, whose waits spread in proportion", "late_for_some(ttft) in steady <= 150ms", func(_ int, r *recording.Request, draw *rand.Rand) time.Duration {
			return time.Duration(float64(r.PromptTokens) * draw.ExpFloat64() * float64(150*time.Microsecond)) // a processor with other work too
		}, Pass, "none of "},
		{"short prompts", "late_for_some(ttft) in steady <= 150ms", always(func(_ int, r *recording.Request) bool { return r.PromptTokens < 300 }, 400*ms), Fail, "prompts of at most "},
		{"one key", "late_for_some(ttft) in steady <= 150ms", always(has("key=third"), 400*ms), Fail, "the ttft of requests with key=third is "},
		{"one key, within the limit", "late_for_some(ttft) in steady <= 600ms", always(has("key=third"), 400*ms), Pass, "none of "},
		{"one key, now and then", "late_for_some(ttft) in steady <= 150ms", sometimes("key=second", 0.05, time.Second), Fail, "requests with key=second is "},
		{"new connections", "late_for_some(ttft) in steady <= 150ms", always(has("connection=new"), 400*ms), Fail, " 0 of the "},
		{"one replica", "late_for_some(ttft) in steady <= 150ms", always(func(_ int, r *recording.Request) bool { return r.Replica == "replica-1" }, 400*ms), Fail, "requests that replica-1 answered"},
		{"each fifth on a connection", "late_for_some(ttft) in steady <= 150ms", always(func(_ int, r *recording.Request) bool { return r.OnConnection > 1 && r.OnConnection%5 == 0 }, 400*ms), Fail, "a multiple of 5"},
		{"long answers", "late_for_some(ttft) in steady <= 150ms", always(func(_ int, r *recording.Request) bool { return r.OutputTokens > 64 }, 400*ms), Fail, "answers of more than 6"},
		{"every ten seconds", "late_for_some(ttft) in steady <= 150ms", always(func(_ int, r *recording.Request) bool { return r.Due%(10*time.Second) < time.Second }, 400*ms), Fail, "of every 10s"},
		{"once in all the time", "late_for_some(ttft) in steady <= 150ms", always(func(i int, _ *recording.Request) bool { return i > 700 && i < 730 }, 2*time.Second), Pass, "none of "},
		{"another latency", "late_for_some(end_delay) in steady <= 150ms", always(has("key=third"), 400*ms), Pass, "none of "},
	} {
		t.Run(tt.says, func(t *testing.T) {
			f := lateFinding(t, mixedRun(t, tt.promise, 1, tt.spoil))
			if f.Verdict != tt.want || !strings.Contains(f.Why.String(), tt.why) {
				t.Errorf("%s: %s, want %s: %s", f.Verdict, f.Why, tt.want, tt.why)
			}
			if f.Value == nil || *f.Value > f.Threshold == (f.Verdict == Pass) {
				t.Errorf("the value is %v, the limit %g, and the verdict %s", f.Value, f.Threshold, f.Verdict)
			}
		})
	}
}

// The first request after a quiet time is late: of the service, or of its connection.
func TestLateAfterIdle(t *testing.T) {
	const gap = 50 // each so many requests, twenty are missing: two seconds without any
	for _, tt := range []struct {
		says string
		late func(i int) bool
		want Outcome
		why  string
	}{
		{"nobody", func(int) bool { return false }, Pass, "none of "},
		{"the first after a gap", func(i int) bool { return i%gap == 0 }, Fail, "without any other is 400 ms"},
		{"as many others", func(i int) bool { return i*7919%1000 < 33 }, Pass, "none of "},
	} {
		t.Run(tt.says, func(t *testing.T) {
			w := mixedRun(t, "late_for_some(ttft) in steady <= 150ms", 1, func(i int, _ *recording.Request, _ *rand.Rand) time.Duration {
				if tt.late(i) {
					return 400 * ms
				}
				return 0
			})
			w.requests = slices.DeleteFunc(w.requests, func(r recording.Request) bool { return r.Seq%gap >= 30 })
			for i := range w.observations {
				if o := &w.observations[i]; o.Value == 1500 {
					o.Value = float64(len(w.requests)) // as many were due
				}
			}
			f := lateFinding(t, w)
			if f.Verdict != tt.want || !strings.Contains(f.Why.String(), tt.why) {
				t.Errorf("%s: %s, want %s: %s", f.Verdict, f.Why, tt.want, tt.why)
			}
		})
	}
	rests := restsOf([]lateRow{{sent: 1, end: 2, number: 1, place: 1}, {sent: 5 * time.Second, end: 6 * time.Second, number: 1, place: 2}, {sent: time.Second, end: 2 * time.Second, number: 2, place: 1}, {sent: 9 * time.Second, number: 2, place: 2}})
	if want := []float64{0, 5 - 2e-9, 0, 7}; !slices.Equal(rests, want) {
		t.Errorf("the connections were idle for %v, want %v", rests, want)
	}
}

// The sentence gives the extra wait of a group, with its error.
func TestLatenessIsMeasured(t *testing.T) {
	f := lateFinding(t, mixedRun(t, "late_for_some(ttft) in steady <= 100ms", 2, func(_ int, r *recording.Request, _ *rand.Rand) time.Duration {
		if strings.Contains(r.Variant, "key=third") {
			return 480 * ms
		}
		return 0
	}))
	if f.Verdict != Fail || math.Abs(*f.Value-0.48) > 0.01 {
		t.Errorf("%v: %s, want 480 ms", f.Verdict, f.Why)
	}
}

// Too few requests prove nothing, and neither does a value of a factor that few
// requests drew.
func TestLateForTooFew(t *testing.T) {
	w := mixedRun(t, "late_for_some(ttft) in steady <= 150ms", 3, nil)
	for i := range w.requests {
		if i >= 90 {
			breakOff(&w.requests[i])
		}
	}
	if f := lateFinding(t, w); f.Verdict != Unproven || !strings.Contains(f.Why.String(), "90 complete answers with a value, and 100 are the least") {
		t.Errorf("%s: %s", f.Verdict, f.Why)
	}
	w = mixedRun(t, "late_for_some(ttft) in steady <= 150ms", 3, nil)
	for i := range w.requests {
		if w.requests[i].Variant = "key=first"; i%100 == 0 {
			w.requests[i].Variant = "key=rare"
		}
	}
	if f := lateFinding(t, w); f.Verdict != Unproven || !strings.Contains(f.Why.String(), "key=rare cannot be compared: they are 15 of 1500") {
		t.Errorf("%s: %s", f.Verdict, f.Why)
	}
}

// A sound service is late for no group, whatever the distribution of its latencies,
// even at a limit that its own noise often exceeds. One false alarm in a hundred runs
// would be allowed.
func TestNobodyIsLateByChance(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: the race detector takes ten times as long")
	}
	accused := 0
	for seed := range uint64(30) {
		w := mixedRun(t, "late_for_some(ttft) in steady <= 60ms", 100+seed, func(_ int, _ *recording.Request, draw *rand.Rand) time.Duration {
			return time.Duration(math.Pow(draw.Float64(), -0.7) * float64(10*ms)) // a heavy tail with infinite variance
		})
		if f := lateFinding(t, w); f.Verdict == Fail {
			accused++
			t.Log(f.Why)
		}
	}
	if accused > 1 {
		t.Errorf("%d of 30 runs are said to be late for some", accused)
	}
}

func TestFisher(t *testing.T) {
	for _, tt := range []struct {
		late, n, otherLate, others int64
		want                       float64
	}{
		{3, 4, 1, 4, 0.242857142857}, // the example of the lady tasting tea
		{4, 4, 0, 4, 0.0142857142857},
		{0, 10, 5, 10, 1},
		{5, 5, 5, 5, 1},
		{10, 10, 0, 1000, 3.4e-24},
	} {
		if got := fisher(tt.late, tt.n, tt.otherLate, tt.others); math.Abs(got-tt.want) > 0.05*tt.want {
			t.Errorf("%d of %d beside %d of %d: %g, want %g", tt.late, tt.n, tt.otherLate, tt.others, got, tt.want)
		}
	}
}

func BenchmarkLateForSome(b *testing.B) {
	w := mixedRun(b, "late_for_some(ttft) in steady <= 150ms", 1, nil)
	for range 43 { // to 65,000 requests
		for _, r := range w.requests[:1500] {
			r.Seq = int64(len(w.requests))
			w.requests = append(w.requests, r)
		}
	}
	b.ReportMetric(float64(len(w.requests)), "requests")
	for b.Loop() {
		if _, err := Judge(w.gate, w.recording()); err != nil {
			b.Fatal(err)
		}
	}
}
