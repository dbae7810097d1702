package gateway

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// Many requests at once go over one connection to a replica that speaks HTTP/2.
func TestConnectionsAreShared(t *testing.T) {
	all := make(chan struct{})
	var arrived sync.WaitGroup
	arrived.Add(50)
	var mu sync.Mutex
	from := map[string]bool{}
	a := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		from[r.RemoteAddr] = true
		mu.Unlock()
		arrived.Done()
		<-all
		ok(w, r)
	})
	srv, g := front(t, a)
	waitReady(t, g, 1)
	if got := g.balancer.status().Replicas[0].HTTP; got != "HTTP/2.0" {
		t.Fatalf("the replica is spoken to in %s", got)
	}
	var asking sync.WaitGroup
	for range 50 {
		asking.Go(func() {
			if resp, body := ask(t, srv.URL); resp.StatusCode != 200 || !strings.HasSuffix(body, "question") {
				t.Errorf("%s %s", resp.Status, body)
			}
		})
	}
	arrived.Wait() // all are under way
	close(all)
	asking.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(from) != 1 {
		t.Errorf("%d connections for 50 requests", len(from))
	}
}

// A replica that comes back speaking another version of HTTP is understood, and
// no request is lost over it.
func TestReplicaThatSpeaksOtherwiseNow(t *testing.T) {
	a := newBackend(t, ok)
	addr := a.Listener.Addr().String()
	srv, g := front(t, a)
	h2 := true
	for _, want := range []string{"HTTP/2.0", "HTTP/1.1", "HTTP/2.0"} {
		waitReady(t, g, 1)
		for range 5 {
			if resp, body := ask(t, srv.URL); resp.StatusCode != 200 {
				t.Errorf("%s: %s %s", want, resp.Status, body)
			}
		}
		if got := g.balancer.status().Replicas[0].HTTP; got != want {
			t.Errorf("spoken to in %s, want %s", got, want)
		}
		a.CloseClientConnections()
		a.Close()
		waitReady(t, g, 0)
		h2 = !h2
		a = backendAt(t, addr, h2, ok)
	}
}

// What says nothing to the beginning of HTTP/2, and does not hang up either, is
// served over HTTP/1.1.
func TestReplicaThatIsSilentOverHTTP2(t *testing.T) {
	a := backendOver(t, false, ok)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var passing sync.WaitGroup
	passing.Go(func() {
		for {
			c, err := silent.Accept()
			if err != nil {
				return
			}
			passing.Go(func() {
				defer c.Close()
				first := make([]byte, 3)
				if _, err := io.ReadFull(c, first); err != nil || string(first) == "PRI" {
					_ = c.SetReadDeadline(time.Now().Add(2 * time.Second)) // longer than a look
					_, _ = io.Copy(io.Discard, c)
					return
				}
				to, err := net.Dial("tcp", a.Listener.Addr().String())
				if err != nil {
					return
				}
				defer to.Close()
				_, _ = to.Write(first)
				passing.Go(func() { _, _ = io.Copy(c, to); c.Close() })
				_, _ = io.Copy(to, c)
			})
		}
	})
	t.Cleanup(func() { silent.Close(); a.CloseClientConnections(); passing.Wait() })
	b := &backend{Server: &httptest.Server{URL: "http://" + silent.Addr().String()}}
	srv, g := front(t, b)
	waitReady(t, g, 1)
	for range 3 {
		if resp, body := ask(t, srv.URL); resp.StatusCode != 200 {
			t.Errorf("%s %s", resp.Status, body)
		}
	}
	if got := g.balancer.status().Replicas[0].HTTP; got != "HTTP/1.1" {
		t.Errorf("spoken to in %s", got)
	}
}

// A stream that nobody reads holds up no other on the same connection.
func TestSlowClientHoldsUpNoOther(t *testing.T) {
	a := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); string(body) != "flood" {
			fmt.Fprint(w, "ok")
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	})
	srv, g := front(t, a)
	waitReady(t, g, 1)
	for range 8 {
		resp, err := http.Post(srv.URL+"/v1/x", "", strings.NewReader("flood"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close() // never read
	}
	time.Sleep(200 * time.Millisecond) // windows fill
	began := time.Now()
	if resp, body := ask(t, srv.URL); resp.StatusCode != 200 || body != "ok" || time.Since(began) > 2*time.Second {
		t.Errorf("%s %s after %s", resp.Status, body, time.Since(began))
	}
}

// A replica that stops in the middle of a stream is given up after a while, and
// its client is told.
func TestReplicaThatStopsIsGivenUp(t *testing.T) { overBoth(t, testReplicaThatStopsIsGivenUp) }

func testReplicaThatStopsIsGivenUp(t *testing.T, newBackend func(*testing.T, http.HandlerFunc) *backend) {
	a := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for range 3 { // longer together than one may take
			time.Sleep(200 * time.Millisecond)
			fmt.Fprint(w, "data: 1\n\n")
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
	})
	srv, g := front(t, a)
	g.balancer.waitFor = 400 * time.Millisecond
	waitReady(t, g, 1)
	resp, err := http.Post(srv.URL+"/v1/x", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil || strings.Count(string(body), "data: 1\n\n") != 3 || !strings.Contains(string(body), "nothing came from it for 400ms") {
		t.Errorf("%v %q", err, body)
	}
}
