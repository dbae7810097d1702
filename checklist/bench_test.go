package checklist

import (
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

// BenchmarkJudge judges a hundred thousand streamed answers of 32 chunks.
func BenchmarkJudge(b *testing.B) {
	const n = 100_000
	w := healthy(b, "p95(ttft) <= 1s", "p95(tpot) <= 1s", "p99(icl) <= 1s", "error_rate <= 1%", "attainment >= 90%", "p99(latency) in steady <= 1s")
	rec := w.recording()
	chunks := make([]time.Duration, 32)
	rec.Requests = func(yield func(recording.Request, error) bool) {
		for i := range n {
			r := answered(int64(i), stageFrom+time.Duration(i)*200*time.Microsecond, 100*ms+time.Duration(i%977)*50*time.Microsecond, 900*ms)
			for j := range chunks {
				chunks[j] = r.FirstToken + time.Duration(j)*25*ms
			}
			r.Chunks = chunks
			if !yield(r, nil) {
				return
			}
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		v, err := Judge(w.gate, rec)
		if err != nil || v.Verdict != Pass {
			b.Fatal(err, v.Why)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/request")
}
