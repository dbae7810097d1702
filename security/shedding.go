package security

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

var loadShedding = Check{
	Name:    "load-shedding",
	Asks:    "whether the load of one tenant causes the service to refuse the requests of another",
	Control: "before the load, sixteen requests of the tenant that asks are all served; after it, the tenant is served within twenty seconds",
	Flaw:    "while one tenant keeps up to 240 requests under way, at least four of sixteen requests of the other are refused (429 or 503), and the same happens with the tenants changed over. If it happens in one direction only, the keys may have different priorities, and the result is unproven",
	Planted: "test service and reference server: unfair-shedding", Disruptive: true,
	Needs: "a key of another tenant (other_key_env)",
	Cap:   Cap{Requests: 12_000, Seconds: 180, Bytes: 96 << 20},
	worst: "CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:C/C:N/I:N/A:H",
	run:   runLoadShedding,
}

const (
	manyLoads     = 240
	shedAsked     = 16 // requests of the tenant that asks
	shedRefused   = 4  // as many refusals of them count
	shedMostly    = 14 // as many mean that the other tenant is kept out
	loadBuilds    = 3 * time.Second
	loadRetries   = time.Second // after a refusal, where the service names no time
	recoversAfter = 20 * time.Second
)

// load is what one tenant sends to fill the service.
type load struct {
	under, most    atomic.Int64 // requests under way, and the most of them at one time
	done, refused  atomic.Int64
	failed         atomic.Int64 // no answer, while the load went on
	stop           context.CancelFunc
	all            sync.WaitGroup
	firstOfFailure atomic.Value // answer
}

// fill keeps many long answers of one tenant under way until the load is ended. A
// request that is refused is sent again later.
func (t *trial) fill(ctx context.Context, key string) *load {
	ctx, cancel := context.WithCancel(ctx)
	o := &load{stop: cancel}
	body := t.message("Count from one to one thousand, and write every number as words.", `"max_tokens":256,"temperature":0,"stream":true`)
	for range manyLoads {
		o.all.Go(func() {
			for ctx.Err() == nil && !t.capped() {
				n := o.under.Add(1)
				for most := o.most.Load(); n > most && !o.most.CompareAndSwap(most, n); most = o.most.Load() {
				}
				a := t.once(ctx, request{method: "POST", path: "/v1/chat/completions", body: body, key: key, within: time.Minute})
				o.under.Add(-1)
				pause := loadRetries
				switch {
				case ctx.Err() != nil:
					return
				case a.err != nil, !a.ok() && !a.limited():
					o.failed.Add(1)
					o.firstOfFailure.CompareAndSwap(nil, a)
				case a.limited():
					o.refused.Add(1)
					pause = a.retryAfter(loadRetries)
				default:
					o.done.Add(1)
					continue
				}
				sleep(ctx, pause)
			}
		})
	}
	return o
}

func (o *load) end() { o.stop(); o.all.Wait() }

// shedBy is how one tenant was served during the load of the other.
type shedBy struct {
	refused  int
	under    int64 // the most requests of the load at one time
	evidence recording.Exchange
}

// loadedBy measures how the tenant that asks is served during the load of the other. If
// it could not, why says so.
func (t *trial) loadedBy(ctx context.Context, loads, asks string) (s shedBy, why *end) {
	stop := func(e end) (shedBy, *end) { return s, &e }
	if ok, _, last := t.served(ctx, asks, shedAsked); ok < shedAsked {
		return stop(unproven("only %s of %s requests were served before the load: %s", number(int64(ok)), number(shedAsked), clip(last.String(), 200)))
	}
	o := t.fill(ctx, loads)
	defer o.end()
	sleep(ctx, loadBuilds)
	ok, refused, last := t.served(ctx, asks, shedAsked)
	// Where all requests come from one address, its limit may be what refuses them.
	byAddress := false
	if refused >= shedRefused && len(t.sources) == 0 {
		byAddress = t.once(ctx, request{method: "GET", path: "/v1/models"}).limited()
	}
	under := o.under.Load()
	o.end()
	answered := o.done.Load() + o.refused.Load()
	switch {
	case byAddress:
		return stop(unproven("a request without a key was refused for the load too: the service limits the address of the scan"))
	case answered == 0 && (under == 0 || o.failed.Load() > 0 && under < manyLoads/8):
		text := "no answer"
		if a, ok := o.firstOfFailure.Load().(answer); ok {
			text = a.String()
		}
		return stop(unproven("the load could not be sent: %s", clip(text, 200)))
	case !t.servedAgain(ctx, asks, recoversAfter):
		return stop(unproven("the other tenant was not served within twenty seconds after the load, so the cause is unknown"))
	case refused < shedRefused && ok+refused <= shedAsked-shedRefused:
		return stop(unproven("under the load only %s of %s requests were served: %s", number(int64(ok)), number(shedAsked), clip(last.String(), 200)))
	}
	s = shedBy{refused: refused, under: o.most.Load(), evidence: recording.Exchange{
		Sent: fmt.Sprintf("up to %d streams of one tenant under way (%d refused); then %d times POST /v1/chat/completions as the other one", o.most.Load(), o.refused.Load(), shedAsked),
		Came: fmt.Sprintf("%d of %d refused\n%s", refused, shedAsked, last.String())}}
	return s, nil
}

func runLoadShedding(ctx context.Context, t *trial) end {
	if t.target.OtherKey == "" {
		return unproven("no second key: the variable of other_key_env is empty or not named")
	}
	if !t.chat {
		return unproven("the service does not chat")
	}
	var both []shedBy
	for _, keys := range [][2]string{{t.target.Key, t.target.OtherKey}, {t.target.OtherKey, t.target.Key}} {
		s, why := t.loadedBy(ctx, keys[0], keys[1])
		if why != nil {
			return *why
		}
		both = append(both, s)
	}
	fewest, most := min(both[0].refused, both[1].refused), max(both[0].refused, both[1].refused)
	if most >= shedRefused && fewest < shedRefused {
		return unproven("under the load of the other, one tenant had %s of %s requests refused, and the other tenant %s: their keys may have different priorities; scan with two keys of the same priority",
			number(int64(most)), number(shedAsked), number(int64(fewest)))
	}
	if fewest >= shedRefused {
		vector := "CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:C/C:N/I:N/A:L"
		if fewest >= shedMostly {
			vector = t.check.worst
		}
		t.found(flaw{title: say("the load of one tenant causes the service to refuse others"), kind: "shedding", where: "POST /v1/chat/completions", vector: vector, tags: []string{"OWASP API4:2023", "OWASP LLM10:2025", "CWE-770"},
			evidence: []recording.Exchange{both[0].evidence, both[1].evidence},
			verified: say("under the load of the first tenant, %s of %s requests of the other were refused, and %s of %s with the tenants changed over; without it none were", number(int64(both[0].refused)), number(shedAsked), number(int64(both[1].refused)), number(shedAsked)),
			fix:      say("when there is too much load, refuse the tenants that have more than an even share of it first, or limit how many requests of one tenant are under way")})
	}
	return t.ended("with up to %s requests of one tenant under way, %s and %s of %s requests of the other were refused", number(max(both[0].under, both[1].under)), number(int64(both[0].refused)), number(int64(both[1].refused)), number(shedAsked))
}
