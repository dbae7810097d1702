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

// BenchmarkDoor is what a door costs a streamed answer of two events: one that
// only balances, and one that asks for keys and has the usage on disk before
// the end is sent.
func BenchmarkDoor(b *testing.B) {
	replica := httptest.NewServer(http.HandlerFunc(answering))
	defer replica.Close()
	at, err := url.Parse(replica.URL)
	if err != nil {
		b.Fatal(err)
	}
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
				g.Guard(generous(), books, io.Discard)
			}
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan struct{})
			go func() { g.Run(ctx); close(done) }()
			defer func() { cancel(); <-done }()
			door := httptest.NewServer(g.Handler())
			defer door.Close()
			for g.balancer.ready() == 0 {
				time.Sleep(time.Millisecond)
			}
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
			defer client.CloseIdleConnections()
			b.SetParallelism(8)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					req, _ := http.NewRequest(http.MethodPost, door.URL+"/v1/chat/completions", strings.NewReader(`{"stream":true}`))
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
