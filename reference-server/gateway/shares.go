package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// The gateways of a ledger apply one set of limits together. They share their state
// in a sheet, one row of the ledger, of which each gateway writes the next version
// every second:
//
//	gateways   who lives        → a rate is divided among them
//	tenants    slots, tokens    → a request enters within its gateway's slots
//
// So a request waits for the ledger only if its gateway has no free slot for its
// tenant.

const (
	shareEvery  = time.Second
	shareFor    = 3 * time.Second        // after which a dead gateway's share is the others'
	shareWithin = 2 * time.Second        // for the ledger to answer
	askEvery    = 100 * time.Millisecond // how often at most a gateway asks for a tenant that gets no more slots
	slotsAhead  = 16                     // a part of a tenant's concurrency that is asked for beyond what is needed
)

// sheet is that row, as JSON.
type sheet struct {
	Gateways map[string]int64    `json:"gateways"` // until when each lives, in µs
	Tenants  map[string]*account `json:"tenants"`
}

// account is the state of a tenant over all gateways.
type account struct {
	Slots map[string]slots `json:"slots,omitempty"` // by gateway
	Used  float64          `json:"used,omitempty"`  // tokens that count against the budget; in a minute one budget of them expires
	At    int64            `json:"at"`              // when that was so, in µs
}

// slots are requests that a gateway may have under way.
type slots struct {
	Has  int `json:"has"`
	Asks int `json:"asks"` // more than it has, where the others have the rest
}

// asks is the report of a gateway about a tenant.
type asks struct {
	inFlight int
	slots    int
	spent    int64 // tokens, since it last said so
}

func readSheet(content string) sheet {
	var s sheet
	if json.Unmarshal([]byte(content), &s) != nil || s.Gateways == nil || s.Tenants == nil { // the first one is empty
		return sheet{map[string]int64{}, map[string]*account{}}
	}
	return s
}

// settle enters the report of a gateway into the sheet, and returns the slots that
// it may fill from now on. All slots of a tenant are never more than its
// concurrency, unless more requests are under way already, because admitted
// requests are not ended. While another gateway asks for slots, a gateway with more
// than an equal part gives back those of requests that end.
func (s *sheet) settle(now time.Time, gateway string, said map[string]asks, budgetOf func(string) Budget) (may map[string]int) {
	s.forget(func(g string, until int64) bool { return g != gateway && until < now.UnixMicro() })
	s.Gateways[gateway] = now.Add(shareFor).UnixMicro()
	for name := range said {
		if s.Tenants[name] == nil {
			s.Tenants[name] = &account{At: now.UnixMicro()}
		}
	}
	may = map[string]int{}
	for name, a := range s.Tenants {
		b, own := budgetOf(name), said[name]
		a.spend(now, b, own.spent)
		had := a.Slots[gateway].Has
		delete(a.Slots, gateway)
		if b.Concurrency > 0 {
			have, ask := 0, 0
			for _, other := range a.Slots {
				have, ask = have+other.Has, ask+max(other.Has, other.Asks)
			}
			fair := max(b.Concurrency/len(s.Gateways), b.Concurrency-ask)
			if had == 0 {
				fair = max(fair, 1) // fewer slots than gateways go round
			}
			may[name] = max(0, min(own.slots, fair, b.Concurrency-have))
			if has := max(own.inFlight, may[name]); has > 0 || own.slots > 0 {
				if a.Slots == nil {
					a.Slots = map[string]slots{}
				}
				a.Slots[gateway] = slots{has, own.slots}
			}
		}
		if len(a.Slots) == 0 && a.Used < 1 {
			delete(s.Tenants, name)
		}
	}
	return may
}

// spend adds tokens to those that count against the budget.
func (a *account) spend(now time.Time, b Budget, spent int64) {
	a.Used = counted(a.Used, b, now.Sub(time.UnixMicro(a.At))) + float64(spent)
	if b.TokensPerMinute == 0 {
		a.Used = 0
	}
	a.At = now.UnixMicro()
}

// counted is the number of used tokens that still count after a time.
func counted(used float64, b Budget, after time.Duration) float64 {
	return max(0, used-float64(b.TokensPerMinute)*max(0, after.Minutes()))
}

// forget removes gateways and their slots.
func (s *sheet) forget(dead func(gateway string, until int64) bool) {
	for g, until := range s.Gateways {
		if !dead(g, until) {
			continue
		}
		delete(s.Gateways, g)
		for _, a := range s.Tenants {
			delete(a.Slots, g)
		}
	}
}

// tenant is the state of a tenant at this gateway.
type tenant struct {
	inFlight int
	place    int       // of the class of its latest request, among the classes
	waiting  int       // for more slots
	most     int       // under way at once, since the sheet was last written
	slots    int       // that it may fill
	until    time.Time // expiry of slots, after which other gateways may have taken them
	refused  time.Time // for lack of slots
	used     float64   // tokens that count against its budget, all gateways' as of the last sheet
	usedAt   time.Time
	unsaid   int64 // used tokens that are not in the sheet yet
	expected int64 // tokens that the requests under way may use
}

// room reports whether n more may enter without asking the ledger.
func (t *tenant) room(b Budget, n int, now time.Time) bool {
	return now.Before(t.until) && (b.Concurrency == 0 || t.inFlight+n <= t.slots)
}

// grow asks for slots for a tenant that has no room for n more. Requests that wait
// for the ledger share one query, and its answer or failure holds for all.
func (g *guard) grow(ctx context.Context, t *tenant, b Budget, n int) error {
	g.sharing.Lock()
	defer g.sharing.Unlock()
	now := time.Now()
	g.mu.Lock()
	room, refusedRecently := t.room(b, n, now), now.Before(t.until) && now.Sub(t.refused) < askEvery
	g.mu.Unlock()
	switch {
	case room, refusedRecently:
		return nil
	case now.Sub(g.shareFailed) < shareEvery:
		return errors.New("the ledger did not answer a moment ago")
	}
	return g.share(ctx)
}

// share writes the next version of the sheet. Its caller holds g.sharing.
func (g *guard) share(ctx context.Context) error {
	// A client that leaves must not cancel the query for the others that wait for
	// it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shareWithin)
	defer cancel()
	now, said, config := time.Now(), map[string]asks{}, g.limits()
	g.mu.Lock()
	for name, t := range g.tenants {
		ahead := 0
		if t.waiting > 0 {
			ahead = config.budgetOf(name).Concurrency / slotsAhead
		}
		if want := max(t.most, t.inFlight+t.waiting+ahead); want > 0 || t.unsaid > 0 {
			said[name] = asks{t.inFlight, want, t.unsaid}
		}
	}
	g.mu.Unlock()
	var s sheet
	var may map[string]int
	err := g.rewrite(ctx, func(on *sheet) {
		s = *on
		may = s.settle(now, g.name, said, config.budgetOf)
	})
	if err != nil {
		g.shareFailed = time.Now()
		return err
	}
	g.gateways.Store(int64(len(s.Gateways)))
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, t := range g.tenants {
		own, is := said[name]
		if !is {
			if t.inFlight == 0 && t.waiting == 0 && t.unsaid == 0 {
				delete(g.tenants, name) // the sheet has what it used
			}
			continue
		}
		t.slots, t.until, t.most = may[name], now.Add(shareFor), t.inFlight
		t.unsaid -= own.spent
		t.used, t.usedAt = float64(t.unsaid), now
		if a := s.Tenants[name]; a != nil {
			t.used += a.Used
		}
	}
	return nil
}

// rewrite changes the sheet by change, and retries if another gateway has written
// it meanwhile.
func (g *guard) rewrite(ctx context.Context, change func(*sheet)) error {
	for {
		version, content, err := g.ledger.Shares(ctx)
		if err != nil {
			return err
		}
		s := readSheet(content)
		change(&s)
		b, err := json.Marshal(s)
		if err != nil {
			return err
		}
		if written, err := g.ledger.SetShares(ctx, version, string(b)); written || err != nil {
			return err
		}
	}
}

// keepSharing writes the sheet regularly until ctx ends.
func (g *guard) keepSharing(ctx context.Context) {
	for ; ctx.Err() == nil; pause(ctx, shareEvery) {
		g.sharing.Lock()
		if err := g.share(ctx); err != nil {
			g.log.Error("the limits are not shared with the other gateways", "why", err)
		}
		g.sharing.Unlock()
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), shareWithin)
	defer cancel()
	g.sharing.Lock()
	defer g.sharing.Unlock()
	err := g.rewrite(last, func(s *sheet) {
		g.mu.Lock()
		defer g.mu.Unlock()
		said := map[string]asks{}
		for name, t := range g.tenants {
			said[name] = asks{spent: t.unsaid}
		}
		s.settle(time.Now(), g.name, said, g.limits().budgetOf)
		s.forget(func(gateway string, _ int64) bool { return gateway == g.name })
	})
	if err != nil {
		g.log.Warn("the share of this gateway is the others' only when it runs out", "why", err)
	}
}

// part is this gateway's share of a limit for all gateways.
func (l Limit) part(gateways int64) Limit {
	n := max(1, gateways)
	return Limit{l.Rate / float64(n), max(1, l.Burst/int(n))}
}
