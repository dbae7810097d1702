package loadgen

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/scenarios"
)

// recorder keeps the rows and observations of a drive.
type recorder struct {
	mu   sync.Mutex
	rows []recording.Request
	seen []recording.Observation
}

func (r *recorder) sink(row recording.Request) {
	r.mu.Lock()
	r.rows = append(r.rows, row)
	r.mu.Unlock()
}

func (r *recorder) observe(o recording.Observation) {
	r.mu.Lock()
	r.seen = append(r.seen, o)
	r.mu.Unlock()
}

func clientOf(t testing.TB, url string) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{BaseURL: url})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// drivePlan plays a scenario alone.
func drivePlan(ctx context.Context, clock recording.Clock, s scenarios.Scenario, seed uint64, c *client.Client, r *recorder) error {
	d := Driver{Clock: clock, Client: c, Share: Whole, Sink: r.sink, Observe: r.observe}
	return d.Drive(ctx, s.Name, planOf(s, seed), clock.Now())
}

// service answers with a few tokens after a delay.
func service(t testing.TB, delay time.Duration) *client.Client {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-time.After(delay):
		case <-r.Context().Done():
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
	}))
	t.Cleanup(srv.Close)
	return clientOf(t, srv.URL)
}

func load(rate float64, d time.Duration) scenarios.Scenario {
	return scenario(scenarios.Stage{Name: "m", For: scenarios.Duration(d), Rate: scenarios.Rate(rate), Arrivals: scenarios.ArrivalsPoisson})
}

// Every request of the plan is sent once, at its time, however slow the service is: the
// load is open-loop.
func TestDriveKeepsToThePlan(t *testing.T) {
	for _, delay := range []time.Duration{0, 300 * time.Millisecond} {
		t.Run(delay.String(), func(t *testing.T) {
			s := load(200, time.Second)
			plan := planOf(s, 3)
			clock := recording.NewClock()
			time.Sleep(20 * time.Millisecond) // so that the scenario starts later than the run
			var r recorder
			if err := drivePlan(context.Background(), clock, s, 3, service(t, delay), &r); err != nil {
				t.Fatal(err)
			}
			if len(r.rows) != plan.Requests() {
				t.Fatalf("%d requests, want %d", len(r.rows), plan.Requests())
			}
			slices.SortFunc(r.rows, func(a, b recording.Request) int { return int(a.Seq - b.Seq) })
			start := r.rows[0].Due - plan.Due(0)
			var lags []time.Duration
			for n, row := range r.rows {
				if !row.OK() || row.Seq != int64(n) || row.Kind != recording.KindLoad || row.Scenario != "s" || row.Stage != "m" {
					t.Fatalf("%+v", row)
				}
				if row.Due != start+plan.Due(n) {
					t.Errorf("request %d was due at %s, want %s", n, row.Due, start+plan.Due(n))
				}
				lags = append(lags, row.Sent-row.Due)
			}
			slices.Sort(lags)
			t.Logf("send lag p50 %s, p99 %s", lags[len(lags)/2], lags[len(lags)*99/100])
			if lags[0] < 0 {
				t.Errorf("a request was sent %s before it was due", -lags[0])
			}
			if p50 := lags[len(lags)/2]; p50 > 20*time.Millisecond {
				t.Errorf("half of the requests were sent more than %s late", p50)
			}
			if len(r.seen) != 2 || r.seen[0].Name != recording.ObsStageStarted || r.seen[1].Name != recording.ObsStageEnded || r.seen[1].At-r.seen[0].At != time.Second || r.seen[0].Value != float64(plan.Requests()) {
				t.Errorf("%+v", r.seen)
			}
		})
	}
}

// A run that is stopped ends at once. Requests under way are cancelled, those that were
// due and not sent are recorded, and those not yet due are not.
func TestDriveStopsAtOnce(t *testing.T) {
	s := load(100, time.Minute)
	ctx, cancel := context.WithCancel(context.Background())
	clock := recording.NewClock()
	var r recorder
	time.AfterFunc(300*time.Millisecond, cancel)
	began := time.Now()
	if err := drivePlan(ctx, clock, s, 3, service(t, time.Hour), &r); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s to stop", took)
	}
	due := 0
	for plan := planOf(s, 3); plan.Due(due) < 300*time.Millisecond; {
		due++
	}
	if len(r.rows) < due || len(r.rows) > due+20 {
		t.Errorf("%d requests, and %d were due", len(r.rows), due)
	}
	for _, row := range r.rows {
		if row.Error != recording.ErrorCancelled && row.Error != recording.ErrorNotSent {
			t.Errorf("%+v", row)
		}
	}
}

func TestWatchSelf(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 1500*time.Millisecond)
	defer cancel()
	var r recorder
	clock := recording.NewClock()
	c := service(t, 0)
	var work sync.WaitGroup
	work.Go(func() { // something to measure
		for ctx.Err() == nil {
			_ = make([]byte, 1<<16)
		}
	})
	work.Go(func() { // answers in every second; reads before WatchSelf began do not count
		for ctx.Err() == nil {
			c.Do(ctx, planOf(load(1, time.Second), 1).Warmup(0).Prompt, clock, 1)
		}
	})
	WatchSelf(ctx, clock, c, r.observe)
	work.Wait()
	seen := map[string]float64{}
	for _, o := range r.seen {
		seen[o.Name] = o.Value
	}
	if cpu := seen[recording.ObsClientCPU]; cpu < 0.05 || cpu > 64 {
		t.Errorf("CPU %v", cpu)
	}
	for _, name := range []string{recording.ObsClientSched, recording.ObsClientReadDelay} {
		if _, ok := seen[name]; !ok {
			t.Errorf("no %s in %v", name, seen)
		}
	}
	if runtime.GOOS != "linux" {
		return
	}
	for _, name := range []string{recording.ObsClientFiles, recording.ObsClientPorts} {
		if v, ok := seen[name]; !ok || v < 0 || v > 0.5 {
			t.Errorf("%s is %v", name, v)
		}
	}
}

func BenchmarkDrive(b *testing.B) {
	s := load(2000, time.Second)
	c := service(b, 0)
	for b.Loop() {
		var r recorder
		if err := drivePlan(context.Background(), recording.NewClock(), s, 1, c, &r); err != nil {
			b.Fatal(err)
		}
		var lags []time.Duration
		for _, row := range r.rows {
			lags = append(lags, row.Sent-row.Due)
		}
		slices.Sort(lags)
		b.ReportMetric(float64(lags[len(lags)/2].Microseconds()), "lag-p50-µs")
		b.ReportMetric(float64(lags[len(lags)*99/100].Microseconds()), "lag-p99-µs")
	}
}
