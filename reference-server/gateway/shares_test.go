package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/launchgate/launchgate/reference-server/ledger"
)

// What gateways ask for, one after the other, and what each may fill then. The
// slots of all are never more than the concurrency.
func TestSlots(t *testing.T) {
	type step struct {
		gateway               string
		inFlight, asks, after int
		may                   int
	}
	for _, tt := range []struct {
		name        string
		concurrency int
		steps       []step // after: seconds since the step before
	}{
		{"one gateway has all of it", 10, []step{{"a", 0, 4, 0, 4}, {"a", 4, 12, 1, 10}, {"a", 2, 2, 1, 2}}},
		{"two never have more than all", 10, []step{{"a", 0, 8, 0, 8}, {"b", 0, 8, 0, 2}, {"b", 2, 2, 1, 2}, {"a", 8, 9, 1, 8}}},
		{"who has more than half gives back what ends", 10, []step{{"a", 0, 10, 0, 10}, {"b", 0, 8, 0, 0}, {"a", 10, 10, 1, 5}, {"a", 4, 10, 1, 5}, {"b", 0, 8, 0, 5}}},
		{"what is not needed is the other's", 10, []step{{"a", 0, 10, 0, 10}, {"a", 1, 1, 1, 1}, {"b", 0, 9, 0, 9}}},
		{"a dead gateway's share comes back", 10, []step{{"a", 0, 10, 0, 10}, {"b", 0, 8, 2, 0}, {"b", 0, 8, 2, 8}}},
		{"one slot goes round", 1, []step{{"a", 0, 1, 0, 1}, {"b", 0, 1, 0, 0}, {"a", 1, 1, 1, 0}, {"b", 0, 1, 0, 0}, {"a", 0, 1, 0, 0}, {"b", 0, 1, 0, 1}}},
		{"what is under way stays", 4, []step{{"a", 0, 4, 0, 4}, {"b", 0, 4, 4, 4}, {"a", 4, 4, 0, 0}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, now := readSheet(""), time.Unix(1e9, 0)
			for i, step := range tt.steps {
				now = now.Add(time.Duration(step.after) * time.Second)
				may := s.settle(now, step.gateway, map[string]asks{"acme": {step.inFlight, step.asks, 0}}, func(string) Budget { return Budget{Concurrency: tt.concurrency} })
				if may["acme"] != step.may {
					t.Errorf("step %d: %s may fill %d, want %d", i, step.gateway, may["acme"], step.may)
				}
				b, err := json.Marshal(s)
				if err != nil {
					t.Fatal(err)
				}
				s = readSheet(string(b))
			}
		})
	}
}

// Tokens that one gateway counted are the others' too, owed ones as well, and a
// minute takes a budget of them away.
func TestTokensOfAllGateways(t *testing.T) {
	s, now := readSheet(""), time.Unix(1e9, 0)
	spend := func(gateway string, tokens int64) float64 {
		s.settle(now, gateway, map[string]asks{"acme": {spent: tokens}}, func(string) Budget { return Budget{TokensPerMinute: 60} })
		if a := s.Tenants["acme"]; a != nil {
			return a.Used
		}
		return 0
	}
	for i, step := range []struct {
		gateway     string
		tokens      int64
		after, want float64
	}{{"a", 40, 0, 40}, {"b", 50, 0, 90}, {"a", 0, 30, 60}, {"b", 10, 0, 70}, {"a", 0, 100, 0}} {
		now = now.Add(time.Duration(step.after * float64(time.Second)))
		if used := spend(step.gateway, step.tokens); used != step.want {
			t.Errorf("step %d: %v are used, want %v", i, used, step.want)
		}
	}
	if len(s.Tenants) != 0 {
		t.Errorf("there is nothing to say, and the sheet says %v", s.Tenants)
	}
}

// Two gateways over one ledger hold a caller to what one would.
func TestTwoGatewaysHoldOneLimit(t *testing.T) {
	held := make(chan struct{})
	c := generous()
	c.Key = Limit{0.01, 10}
	c.Tenant = Budget{Concurrency: 8}
	open := &Limit{1e6, 1e6}
	c.Tenants = map[string]Plan{"many": {Budget: Budget{Concurrency: 8}, Key: open}, "tokens": {Budget: Budget{TokensPerMinute: 100}, Key: open}, "free": {Key: open}}
	books, replica := openBooks(t), newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/held" {
			<-held
		}
		answering(w, r)
	})
	both := []*house{newHouse(t, c, books, replica), newHouse(t, c, books, replica)}
	for _, h := range both {
		waitShared(t, h, 2)
	}
	t.Run("rate of a key", func(t *testing.T) {
		passed := map[int]int{}
		for range 20 {
			for _, h := range both {
				resp, _ := h.ask("POST", "/v1/chat/completions", both[0].secret, "{}")
				passed[resp.StatusCode]++
			}
		}
		if passed[200] != 10 || passed[429] != 30 {
			t.Errorf("answers are %v, want 10 of 40 with 200", passed)
		}
	})
	t.Run("concurrency of a tenant", func(t *testing.T) {
		secret := both[0].key(ledger.Key{ID: "many", Tenant: "many", Scopes: []string{"inference"}})
		var asking sync.WaitGroup
		answers := make(chan int, 40)
		for i := range 40 {
			asking.Go(func() {
				resp, _ := both[i%2].ask("POST", "/v1/held", secret, "{}")
				answers <- resp.StatusCode
			})
		}
		eventually(t, "what is past the limit is refused", func() bool { return len(answers) >= 32 })
		close(held)
		asking.Wait()
		close(answers)
		got := map[int]int{}
		for status := range answers {
			got[status]++
		}
		// Slots may be on their way from one gateway to the other.
		if got[200] < 4 || got[200] > 8 || got[200]+got[429] != 40 {
			t.Errorf("answers are %v, want at most 8 of 40 with 200", got)
		}
		// Whichever gateway had the slots, the other one has them within seconds.
		for _, h := range both {
			eventually(t, "the tenant is let in again", func() bool {
				resp, _ := h.ask("POST", "/v1/chat/completions", secret, "{}")
				return resp.StatusCode == 200
			})
		}
	})
	t.Run("tokens of a tenant", func(t *testing.T) {
		secret := both[0].key(ledger.Key{ID: "tokens", Tenant: "tokens", Scopes: []string{"inference"}})
		passed, began := 0, time.Now()
		for range 20 { // each takes 10 tokens of 100
			if resp, _ := both[0].ask("POST", "/v1/chat/completions", secret, "{}"); resp.StatusCode == 200 {
				passed++
			}
		}
		if most := 11 + int(10*time.Since(began).Minutes()); passed < 10 || passed > most {
			t.Errorf("%d passed, want 10 to %d", passed, most)
		}
		eventually(t, "the other gateway refuses", func() bool {
			resp, body := both[1].ask("POST", "/v1/chat/completions", secret, "{}")
			return resp.StatusCode == 429 && codeOf(body) == "tokens_exceeded"
		})
	})
	t.Run("who is left has all of it", func(t *testing.T) {
		both[1].stop()
		waitShared(t, both[0], 1)
	})
}

// A gateway that dies says nothing: what it had is the others' once its time
// has run out.
func TestDeadGatewayLosesItsShare(t *testing.T) {
	books := openBooks(t)
	h := newHouse(t, generous(), books, newBackend(t, ok))
	dead := &guard{name: "dead", ledger: books, tenants: map[string]*tenant{"acme": {most: 256}}}
	c := generous()
	dead.config.Store(&c)
	eventually(t, "one gateway has all slots, and the other knows of it", func() bool {
		dead.tenants["acme"].most = 256
		return dead.share(t.Context()) == nil && dead.tenants["acme"].slots == 256 && h.g.guard.gateways.Load() == 2
	})
	if resp, body := h.ask("POST", "/v1/chat/completions", h.secret, "{}"); resp.StatusCode != 429 || codeOf(body) != "concurrency_exceeded" {
		t.Errorf("%s %s", resp.Status, body)
	}
	waitShared(t, h, 1)
	eventually(t, "the slots are back", func() bool {
		resp, _ := h.ask("POST", "/v1/chat/completions", h.secret, "{}")
		return resp.StatusCode == 200
	})
}

// Where the ledger does not say how much a tenant has, nobody is let in on a
// guess, and nobody waits for longer than one question takes.
func TestNoShareIsNoEntry(t *testing.T) {
	books, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	books.Close()
	c := generous()
	g := &guard{name: "alone", ledger: books, log: slog.New(slog.DiscardHandler), tenants: map[string]*tenant{}}
	g.config.Store(&c)
	for range 3 {
		if _, d := g.enter(context.Background(), "acme", c.Tenant, 1, 0); d == nil || d.status != 503 || d.code != "ledger_unavailable" {
			t.Errorf("%+v", d)
		}
	}
	if _, d := g.enter(context.Background(), "acme", Budget{}, 1, 0); d != nil {
		t.Errorf("a tenant without a budget: %+v", d)
	}
}

// waitShared waits until a gateway knows of n.
func waitShared(t *testing.T, h *house, n int64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d gateways know of each other", n), func() bool { return h.g.guard.gateways.Load() == n })
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}
