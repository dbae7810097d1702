package reports

import (
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
)

var (
	scale     = flag.Int("requests", 10_000_000, "how many requests BenchmarkScale judges and reports")
	scaleKept = flag.String("kept", "", "a folder in which BenchmarkScale keeps its recording, and finds it again")
)

const hourGate = `name: hour
seed: 7
target: {endpoint: {url: "http://127.0.0.1:1"}}
chunks: none
scenarios:
  - name: steady
    stages:
      - {name: first, for: 30m, rate: %d/s}
      - {name: second, for: 30m, rate: %d/s}
objectives:
  - p95(ttft) in steady <= 2s
  - p99(tpot) in steady <= 100ms
  - p99(icl) in steady <= 1s
  - p99.9(latency) in steady <= 60s
  - error_rate <= 1%%
  - attainment in steady/second >= 90%%
`

// BenchmarkScale judges and reports an hour of ten million requests, from
// opening the folder to the last byte of the page. It checks the checksums and
// reads the requests twice. Its memory is that of the whole process.
func BenchmarkScale(b *testing.B) {
	dir := *scaleKept
	if dir == "" {
		dir = b.TempDir()
	}
	if _, err := recording.Open(dir); err != nil {
		recordHour(b, dir, *scale)
		runtime.GC()
	}
	for b.Loop() {
		j := judgedIn(b, dir)
		if v := j.verdict; v.Verdict != checklist.Pass {
			b.Fatal(v.Verdict, v.Why)
		}
		r := j.report(b)
		if r.Requests != int64(*scale) {
			b.Fatalf("%d requests are told of, and %d were made", r.Requests, *scale)
		}
		if err := HTML(io.Discard, r); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(peakMemory(b))/(1<<20), "MiB-peak")
}

// The page of an hour's run, with all observations, is at most a megabyte.
func TestAnHourIsReported(t *testing.T) {
	dir := t.TempDir()
	recordHour(t, dir, 36_000)
	r := judgedIn(t, dir).report(t)
	page := write(t, HTML, r)
	t.Logf("%d bytes, %d panels of %d bins", len(page), len(r.Timeline.Panels), r.Timeline.Bins)
	if len(r.Timeline.Panels) < 8 || r.Timeline.Bins < 200 {
		t.Errorf("%d panels of %d bins are no hour", len(r.Timeline.Panels), r.Timeline.Bins)
	}
	if len(page) > 1_000_000 {
		t.Errorf("the page has %d bytes, want at most a megabyte", len(page))
	}
}

// peakMemory of this process, in bytes.
func peakMemory(b *testing.B) int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skip("the peak memory is only known on Linux")
	}
	var kib int64
	for line := range strings.Lines(string(status)) {
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}

// recordHour writes what a run of an hour would have.
func recordHour(b testing.TB, dir string, n int) {
	b.Helper()
	w, err := recording.Create(dir)
	if err != nil {
		b.Fatal(err)
	}
	half := n / 2
	rate := float64(half) / 1800
	if err := w.Gate(fmt.Appendf(nil, hourGate, int(rate), int(rate))); err != nil {
		b.Fatal(err)
	}
	if err := w.Environment(recording.Environment{StartedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Target: recording.Target{Kind: "endpoint"}}); err != nil {
		b.Fatal(err)
	}
	w.KeepChunks(func(int64) bool { return false })
	see := func(at time.Duration, name, subject string, value float64) {
		w.Observe(recording.Observation{At: at, Name: name, Subject: subject, Value: value})
	}
	const from = time.Second
	see(from, recording.ObsScenarioStarted, "steady", 0)
	random := rand.New(rand.NewPCG(1, 2))
	second := 0
	for i := range n {
		due := from + time.Duration(float64(i)/rate*1e9)
		if int(due.Seconds()) != second {
			second = int(due.Seconds())
			see(due, recording.ObsClientCPU, "", 0.4)
			see(due, recording.ObsClientGCPause, "", 1e-4)
			see(due, recording.ObsClientSched, "", 1e-4)
			for i := range 4 {
				replica := fmt.Sprintf("replica-%d", i)
				for _, name := range []string{recording.ObsInFlight, recording.ObsQueue, recording.ObsKVUsed, recording.ObsMemory, recording.ObsDeviceMemory, recording.ObsPower} {
					see(due, name, replica, random.Float64()*1e9)
				}
				see(due, recording.ObsReplicasReady, replica, 1)
			}
		}
		stage := "first"
		if i >= half {
			stage = "second"
		}
		if i == 0 || i == half {
			see(due, recording.ObsStageStarted, "steady/"+stage, float64(half))
		}
		r := recording.Request{Seq: int64(i), Kind: recording.KindLoad, Scenario: "steady", Stage: stage, Streamed: true,
			Due: due, Sent: due + time.Duration(30+random.IntN(100))*time.Microsecond, Status: 200, Replica: fmt.Sprintf("replica-%d", i%4)}
		r.FirstToken = r.Sent + time.Duration(math.Exp(random.NormFloat64()*0.4)*float64(120*time.Millisecond))
		r.FirstByte, r.FirstOutput = r.FirstToken-time.Millisecond, r.FirstToken
		r.OutputTokens, r.FirstChunkTokens, r.PromptTokens = int32(20+random.IntN(200)), 1, int32(random.IntN(1000))
		gap := time.Duration((0.8 + 0.4*random.Float64()) * float64(20*time.Millisecond))
		r.LastToken = r.FirstToken + time.Duration(r.OutputTokens-1)*gap
		r.Chunks = []time.Duration{r.FirstToken, r.FirstToken + gap, r.FirstToken + 2*gap}
		r.End, r.FinishReason, r.TokensFrom, r.Bytes = r.LastToken+time.Millisecond, "stop", "usage", int64(r.OutputTokens)*180
		if random.IntN(500) == 0 {
			r.Error, r.ErrorText, r.FinishReason = recording.ErrorTruncated, "the stream ended without [DONE]", ""
		}
		w.Request(r)
		if i == half-1 || i == n-1 {
			see(due+time.Millisecond, recording.ObsStageEnded, "steady/"+stage, float64(half))
		}
	}
	end := from + time.Hour + time.Minute
	see(end, recording.ObsScenarioEnded, "steady", 0)
	see(end, recording.ObsRunEnded, "", 0)
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}
