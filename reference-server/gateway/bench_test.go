package gateway

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/reference-server/ledger"
)

// BenchmarkGateway is what the gateway costs a streamed answer of two events: one that
// only balances, over HTTP/1.1 and over HTTP/2 to its replica, and one that asks
// for keys and has the usage on disk before the end is sent.
func BenchmarkGateway(b *testing.B) {
	for _, h2 := range []bool{false, true} {
		over := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[h2]
		b.Run(over, func(b *testing.B) { benchmarkGateway(b, h2) })
	}
}

func benchmarkGateway(b *testing.B, h2 bool) {
	at := benchReplica(b, h2, answering)
	for _, guarded := range []bool{false, true} {
		b.Run(map[bool]string{false: "balancing", true: "guarded"}[guarded], func(b *testing.B) {
			g := New([]Replica{{"replica-0", at}}, slog.New(slog.NewTextHandler(io.Discard, nil)))
			secret := ""
			if guarded {
				books, err := ledger.Open(b.Context(), filepath.Join(b.TempDir(), "ledger.db"))
				if err != nil {
					b.Fatal(err)
				}
				defer books.Close()
				secret = ledger.NewSecret()
				if err := books.AddKey(b.Context(), ledger.Key{ID: "k", Tenant: "acme", Class: "interactive", Scopes: []string{"inference"}}, secret); err != nil {
					b.Fatal(err)
				}
				g.Guard("bench", generous(), books, io.Discard)
			}
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan struct{})
			go func() { g.Run(ctx); close(done) }()
			defer func() { cancel(); <-done }()
			front := httptest.NewServer(g.Handler())
			defer front.Close()
			for g.balancer.ready() == 0 {
				time.Sleep(time.Millisecond)
			}
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
			defer client.CloseIdleConnections()
			b.SetParallelism(8)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					req, _ := http.NewRequest(http.MethodPost, front.URL+"/v1/chat/completions", strings.NewReader(`{"stream":true}`))
					req.Header.Set("Authorization", "Bearer "+secret)
					resp, err := client.Do(req)
					if err != nil {
						b.Error(err)
						return
					}
					if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || !strings.HasSuffix(string(body), "[DONE]\n\n") {
						b.Errorf("%s %q %v", resp.Status, body, err)
					}
					resp.Body.Close()
				}
			})
		})
	}
}

// BenchmarkStreams is what the gateway costs a stream of 200 events, each sent by
// itself, when 64 are under way.
func BenchmarkStreams(b *testing.B) {
	for _, h2 := range []bool{false, true} {
		over := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[h2]
		b.Run(over, func(b *testing.B) {
			at := benchReplica(b, h2, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/ready" {
					return
				}
				w.Header().Set("Content-Type", "text/event-stream")
				for range 200 {
					_, _ = io.WriteString(w, "data: {\"choices\":[{\"delta\":{\"content\":\"word\"}}]}\n\n")
					w.(http.Flusher).Flush()
				}
			})
			g := New([]Replica{{"replica-0", at}}, slog.New(slog.DiscardHandler))
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan struct{})
			go func() { g.Run(ctx); close(done) }()
			defer func() { cancel(); <-done }()
			front := httptest.NewServer(g.Handler())
			defer front.Close()
			for g.balancer.ready() == 0 {
				time.Sleep(time.Millisecond)
			}
			if got := g.balancer.status().Replicas[0].HTTP; got != over {
				b.Fatalf("over %s", got)
			}
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
			defer client.CloseIdleConnections()
			b.SetParallelism(32)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					resp, err := client.Post(front.URL+"/v1/chat/completions", "", strings.NewReader("{}"))
					if err != nil {
						b.Error(err)
						return
					}
					if n, err := io.Copy(io.Discard, resp.Body); err != nil || n < 200*40 {
						b.Errorf("%d bytes, %v", n, err)
					}
					resp.Body.Close()
				}
			})
		})
	}
}

// benchReplica speaks HTTP/1.1, and HTTP/2 too where it is asked to.
func benchReplica(b *testing.B, h2 bool, answer http.HandlerFunc) *url.URL {
	b.Helper()
	replica := httptest.NewUnstartedServer(answer)
	replica.Config.Protocols = &http.Protocols{}
	replica.Config.Protocols.SetHTTP1(true)
	replica.Config.Protocols.SetUnencryptedHTTP2(h2)
	replica.Start()
	b.Cleanup(replica.Close)
	at, err := url.Parse(replica.URL)
	if err != nil {
		b.Fatal(err)
	}
	return at
}
