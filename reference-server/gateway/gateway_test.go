package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// backend is a replica whose behaviour a test can change.
type backend struct {
	*httptest.Server
	ready  atomic.Bool
	served atomic.Int64
	answer atomic.Value // http.HandlerFunc
	over   atomic.Value // string: the version of HTTP of the first request
}

func newBackend(t *testing.T, answer http.HandlerFunc) *backend {
	t.Helper()
	return backendOver(t, true, answer)
}

// backendOver is one that speaks HTTP/2 too, as replicas of ours do, or
// HTTP/1.1 only.
func backendOver(t *testing.T, h2 bool, answer http.HandlerFunc) *backend {
	t.Helper()
	return backendAt(t, "127.0.0.1:0", h2, answer)
}

func backendAt(t *testing.T, addr string, h2 bool, answer http.HandlerFunc) *backend {
	t.Helper()
	at, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{}
	b.ready.Store(true)
	b.answer.Store(answer)
	b.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.RequestURI == "*" { // HTTP/2 begins so, and net/http leaves refusing it to handlers; ServeMux does
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if r.URL.Path == "/ready" {
			if !b.ready.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			return
		}
		b.served.Add(1)
		b.over.CompareAndSwap(nil, r.Proto)
		b.answer.Load().(http.HandlerFunc)(w, r)
	}))
	b.Config.Protocols, b.Config.ErrorLog = &http.Protocols{}, slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	b.Config.Protocols.SetHTTP1(true)
	b.Config.Protocols.SetUnencryptedHTTP2(h2)
	b.Listener.Close()
	b.Listener = at
	b.Start()
	t.Cleanup(b.Close)
	return b
}

// overBoth tests with replicas that speak HTTP/2, and with such as refuse it.
func overBoth(t *testing.T, test func(t *testing.T, newBackend func(*testing.T, http.HandlerFunc) *backend)) {
	for _, h2 := range []bool{true, false} {
		want := map[bool]string{true: "HTTP/2.0", false: "HTTP/1.1"}[h2]
		t.Run(want, func(t *testing.T) {
			test(t, func(t *testing.T, answer http.HandlerFunc) *backend {
				t.Helper()
				b := backendOver(t, h2, answer)
				t.Cleanup(func() {
					if over := b.over.Load(); over != nil && over != want {
						t.Errorf("the replica was asked over %s", over)
					}
				})
				return b
			})
		})
	}
}

// ok answers with the body it was sent.
func ok(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "ok %s %s", r.URL.Path, body)
}

// die cuts the connection before it answers.
func die(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func front(t *testing.T, backends ...*backend) (*httptest.Server, *Gateway) {
	t.Helper()
	var replicas []Replica
	for i, b := range backends {
		u, err := url.Parse(b.URL)
		if err != nil {
			t.Fatal(err)
		}
		replicas = append(replicas, Replica{fmt.Sprintf("replica-%d", i), u})
	}
	g := New(replicas, slog.New(slog.NewTextHandler(io.Discard, nil)))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { g.Run(ctx); close(done) }()
	srv := httptest.NewServer(g.Handler())
	t.Cleanup(func() { srv.Close(); cancel(); <-done })
	return srv, g
}

func waitReady(t *testing.T, g *Gateway, n int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); g.balancer.ready() != n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d replicas are ready, want %d", g.balancer.ready(), n)
		}
	}
}

// waitIdle waits until nothing is under way: a client has its answer a moment
// before the gateway has seen its end.
func waitIdle(t *testing.T, g *Gateway) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); g.balancer.load() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in flight after all: %+v", g.balancer.status())
		}
	}
}

func ask(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	resp, err := http.Post(url+"/v1/chat/completions", "application/json", strings.NewReader("question"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

func TestRequestsAreSharedOut(t *testing.T) {
	a, b := newBackend(t, ok), newBackend(t, ok)
	srv, g := front(t, a, b)
	waitReady(t, g, 2)
	for range 20 {
		resp, body := ask(t, srv.URL)
		if body != "ok /v1/chat/completions question" || resp.Header.Get(HeaderRetries) != "0" || !strings.HasPrefix(resp.Header.Get(HeaderReplica), "replica-") {
			t.Fatalf("%s %v", body, resp.Header)
		}
	}
	if a.served.Load() != 10 || b.served.Load() != 10 {
		t.Errorf("%d and %d requests, want 10 each", a.served.Load(), b.served.Load())
	}
}

// A replica that is busy gets no more until it is no busier than others.
func TestLeastConnections(t *testing.T) {
	held := make(chan struct{})
	busy := newBackend(t, func(http.ResponseWriter, *http.Request) { <-held })
	free := newBackend(t, ok)
	srv, g := front(t, busy, free)
	waitReady(t, g, 2)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if resp, err := http.Post(srv.URL+"/v1/x", "", nil); err == nil {
			resp.Body.Close()
		}
	})
	for g.balancer.status().Replicas[0].InFlight+g.balancer.status().Replicas[1].InFlight == 0 {
		time.Sleep(time.Millisecond)
	}
	for range 10 {
		ask(t, srv.URL)
	}
	if busy.served.Load() != 1 || free.served.Load() != 10 {
		t.Errorf("the busy replica got %d, the free one %d", busy.served.Load(), free.served.Load())
	}
	close(held)
	waiting.Wait()
	waitIdle(t, g)
}

// What fails before its first byte is sent to another replica, with its whole
// body, and the client is told.
func TestRetryBeforeTheFirstByte(t *testing.T) { overBoth(t, testRetryBeforeTheFirstByte) }

func testRetryBeforeTheFirstByte(t *testing.T, newBackend func(*testing.T, http.HandlerFunc) *backend) {
	for _, tt := range []struct {
		name string
		bad  http.HandlerFunc
	}{
		{"cut", die},
		{"cut after the body was read", func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			panic(http.ErrAbortHandler)
		}},
		{"not ready", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad, good := newBackend(t, tt.bad), newBackend(t, ok)
			srv, g := front(t, bad, good)
			waitReady(t, g, 2)
			for range 4 {
				if resp, body := ask(t, srv.URL); resp.StatusCode != 200 || body != "ok /v1/chat/completions question" || resp.Header.Get(HeaderReplica) != "replica-1" {
					t.Errorf("%s %s", resp.Status, body)
				}
			}
			if bad.served.Load() == 0 {
				t.Error("the bad replica was never tried, so nothing was tried again")
			}
		})
	}
}

// A replica that says it is ready and fails all the same is left alone for a
// while, and tried again then.
func TestFailingReplicaIsEjected(t *testing.T) {
	bad, good := newBackend(t, die), newBackend(t, ok)
	srv, g := front(t, bad, good)
	g.balancer.mu.Lock()
	g.balancer.ejectFor = time.Second
	g.balancer.mu.Unlock()
	waitReady(t, g, 2)
	for range 20 {
		if resp, body := ask(t, srv.URL); resp.StatusCode != 200 {
			t.Errorf("%s %s", resp.Status, body)
		}
	}
	if n := bad.served.Load(); n != maxFailures {
		t.Errorf("the replica that fails got %d requests, want %d", n, maxFailures)
	}
	if st := g.balancer.status().Replicas[0]; st.Ready || st.Outages != 1 {
		t.Errorf("%+v", st)
	}
	// Where there is no other, it is better than none.
	good.ready.Store(false)
	bad.answer.Store(http.HandlerFunc(ok))
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if resp, _ := ask(t, srv.URL); resp.Header.Get(HeaderReplica) == "replica-0" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody is served, though a replica is ready")
		}
	}
	waitReady(t, g, 1) // it is over
}

// What a replica did is counted once, and what its client gave up is not: a
// release is judged by it.
func TestTally(t *testing.T) { overBoth(t, testTally) }

func testTally(t *testing.T, newBackend func(*testing.T, http.HandlerFunc) *backend) {
	a := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		switch body, _ := io.ReadAll(r.Body); string(body) {
		case "good":
			time.Sleep(20 * time.Millisecond)
		case "bad":
			w.WriteHeader(http.StatusInternalServerError)
		case "full":
			w.WriteHeader(http.StatusTooManyRequests)
		case "broken":
			w.Header().Set("Content-Type", "text/event-stream")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "left":
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
	})
	srv, g := front(t, a)
	waitReady(t, g, 1)
	for _, body := range []string{"good", "good", "bad", "full", "broken"} {
		if resp, err := http.Post(srv.URL+"/v1/x", "", strings.NewReader(body)); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+"/v1/x", strings.NewReader("left"))
	if resp, err := http.DefaultClient.Do(req); err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	waitIdle(t, g)
	if got := g.balancer.status().Replicas[0].tally; got.Answered != 5 || got.Failed != 2 || got.Median < 0.02 || got.Median > 1 {
		t.Errorf("%+v, want 5 answers, 2 of them failures, and 20 ms at least", got)
	}
}

// When all fail the client gets one error, after two tries and no more.
func TestGivesUpAfterTwoTries(t *testing.T) {
	backends := []*backend{newBackend(t, die), newBackend(t, die), newBackend(t, die)}
	srv, g := front(t, backends...)
	waitReady(t, g, 3)
	resp, body := ask(t, srv.URL)
	var e struct {
		Error struct{ Message, Type string }
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil || resp.StatusCode != 502 || e.Error.Type != "server_error" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%s %s", resp.Status, body)
	}
	if n := backends[0].served.Load() + backends[1].served.Load() + backends[2].served.Load(); n != 2 {
		t.Errorf("%d tries", n)
	}
}

// An answer of the service's own, such as 400 or 429, is passed on as it is.
func TestErrorsOfTheServiceArePassedOn(t *testing.T) { overBoth(t, testErrorsOfTheServiceArePassedOn) }

func testErrorsOfTheServiceArePassedOn(t *testing.T, newBackend func(*testing.T, http.HandlerFunc) *backend) {
	a := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
		fmt.Fprint(w, "full")
	})
	b := newBackend(t, ok)
	b.ready.Store(false)
	srv, g := front(t, a, b)
	waitReady(t, g, 1)
	if resp, body := ask(t, srv.URL); resp.StatusCode != 429 || body != "full" || resp.Header.Get("Retry-After") != "7" {
		t.Errorf("%s %s", resp.Status, body)
	}
	if b.served.Load() != 0 {
		t.Error("a replica that is not ready got a request")
	}
}

// A replica that refuses connections is out at once, and in again when it is
// ready again.
func TestRefusingReplicaIsTakenOut(t *testing.T) {
	a, b := newBackend(t, ok), newBackend(t, ok)
	srv, g := front(t, a, b)
	waitReady(t, g, 2)
	a.Close()
	for range 10 {
		if resp, body := ask(t, srv.URL); resp.StatusCode != 200 {
			t.Errorf("%s %s", resp.Status, body)
		}
	}
	waitReady(t, g, 1)
	b.ready.Store(false)
	waitReady(t, g, 0)
	resp, body := ask(t, srv.URL)
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "no replica is ready") {
		t.Errorf("%s %s", resp.Status, body)
	}
	if resp, err := http.Get(srv.URL + "/ready"); err != nil || resp.StatusCode != 503 {
		t.Errorf("%v %v", resp, err)
	}
	b.ready.Store(true)
	waitReady(t, g, 1)
}

// Every event of a stream is passed on when it comes, not when the next does.
func TestStreamsAreNotHeldBack(t *testing.T) { overBoth(t, testStreamsAreNotHeldBack) }

func testStreamsAreNotHeldBack(t *testing.T, newBackend func(*testing.T, http.HandlerFunc) *backend) {
	next := make(chan struct{})
	a := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			<-next
		}
	})
	srv, g := front(t, a)
	waitReady(t, g, 1)
	resp, err := http.Post(srv.URL+"/v1/x", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for i := range 3 {
		got, err := lines.ReadString('\n')
		if err != nil || got != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("%q %v", got, err)
		}
		_, _ = lines.ReadString('\n')
		next <- struct{}{} // the replica goes on only now
	}
}

// A stream that breaks in the middle ends in an error event and a cut
// connection, never in what looks like an end; and it is not tried again.
func TestBrokenStreamIsReported(t *testing.T) { overBoth(t, testBrokenStreamIsReported) }

func testBrokenStreamIsReported(t *testing.T, newBackend func(*testing.T, http.HandlerFunc) *backend) {
	broken := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: {\"half\":")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	a, b := newBackend(t, broken), newBackend(t, broken)
	srv, g := front(t, a, b)
	waitReady(t, g, 2)
	resp, err := http.Post(srv.URL+"/v1/x", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil {
		t.Error("the connection ended as if all were well")
	}
	if !strings.HasPrefix(string(body), "data: {\"half\":\n\ndata: {\"error\":") || !strings.Contains(string(body), "replica-") {
		t.Errorf("%q", body)
	}
	if n := a.served.Load() + b.served.Load(); n != 1 {
		t.Errorf("%d tries", n)
	}
	waitIdle(t, g)
}

// A client that goes away ends the replica's request too.
func TestClientThatGoesAway(t *testing.T) { overBoth(t, testClientThatGoesAway) }

func testClientThatGoesAway(t *testing.T, newBackend func(*testing.T, http.HandlerFunc) *backend) {
	gone := make(chan struct{})
	a := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(gone)
	})
	srv, g := front(t, a)
	waitReady(t, g, 1)
	ctx, cancel := context.WithCancel(context.Background())
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+"/v1/x", strings.NewReader("q"))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	resp.Body.Close()
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Fatal("the replica goes on for nobody")
	}
}

func TestLimitsAndStatus(t *testing.T) {
	a := newBackend(t, ok)
	srv, g := front(t, a)
	waitReady(t, g, 1)
	resp, err := http.Post(srv.URL+"/v1/x", "", strings.NewReader(strings.Repeat("x", maxBody+1)))
	if err != nil || resp.StatusCode != 413 {
		t.Errorf("a body that is too large: %v %v", resp, err)
	}
	if resp, err := http.Get(srv.URL + "/admin"); err != nil || resp.StatusCode != 404 {
		t.Errorf("another path: %v %v", resp, err)
	}
	metrics := httptest.NewServer(g.Metrics())
	defer metrics.Close()
	resp, err = http.Get(metrics.URL + "/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var st status
	if err := json.NewDecoder(resp.Body).Decode(&st); err != nil || len(st.Replicas) != 1 || !st.Replicas[0].Ready || st.Replicas[0].URL != a.URL {
		t.Errorf("%+v %v", st, err)
	}
	resp, err = http.Get(metrics.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	if !strings.Contains(string(b), `gateway_replica_ready{replica="replica-0"} 1`) || !strings.Contains(string(b), `http_requests_total{method="POST",path="/v1/",status="413"} 1`) {
		t.Errorf("%s", b)
	}
}
