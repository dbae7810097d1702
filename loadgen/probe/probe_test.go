package probe

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/scenarios"
)

// Probes go on at the same pace while a service hangs: those that hang time out, and
// the first probe after the outage shows that it is over.
func TestProbesGoOnThroughAnOutage(t *testing.T) {
	const every, outage, timeout = 20 * time.Millisecond, 400 * time.Millisecond, 100 * time.Millisecond
	var hangs atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if hangs.Load() {
			<-r.Context().Done()
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
	}))
	defer srv.Close()
	p := scenarios.Probe{Every: scenarios.Duration(every), Consecutive: 3, MaxTokens: 1, Timeout: scenarios.Duration(timeout)}
	s := scenarios.Scenario{Name: "s", Workload: scenarios.Workload{API: "chat"}, Stages: []scenarios.Stage{{Name: "m", For: scenarios.Duration(time.Minute)}}}
	clock := recording.NewClock()
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	var rows []recording.Request
	var struck, over time.Duration
	time.AfterFunc(200*time.Millisecond, func() { struck = clock.Now(); hangs.Store(true) })
	time.AfterFunc(200*time.Millisecond+outage, func() { over = clock.Now(); hangs.Store(false) })
	time.AfterFunc(time.Second, cancel)
	if err := Watch(ctx, clock, p, s, clientOf(t, srv.URL), func(r recording.Request) { mu.Lock(); rows = append(rows, r); mu.Unlock() }); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(rows, func(a, b recording.Request) int { return int(a.Seq - b.Seq) })
	if len(rows) < 40 {
		t.Fatalf("%d probes in a second", len(rows))
	}
	failed, recovered := 0, time.Duration(0)
	for i, r := range rows {
		if r.Seq != int64(i) || r.Kind != recording.KindProbe || r.Stage != "m" || r.Due != rows[0].Due+time.Duration(i)*every {
			t.Fatalf("%+v", r)
		}
		switch {
		case r.Error == recording.ErrorTimeout:
			failed++
		case r.OK() && r.Due > struck && recovered == 0:
			recovered = r.End
		}
	}
	if failed < 15 {
		t.Errorf("%d probes failed in an outage of %s", failed, outage)
	}
	if late := recovered - over; late < 0 || late > every+60*time.Millisecond {
		t.Errorf("the end of the outage was seen %s after it", late)
	}
}

func clientOf(t *testing.T, url string) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{BaseURL: url})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
