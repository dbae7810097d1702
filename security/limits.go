package security

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

const (
	burstSize  = 240 // far more requests than a person or a page sends at once
	burstLines = 12  // connections
)

var rateLimit = Check{
	Name:    "rate-limit",
	Asks:    "whether the requests of one address are limited, both with a valid key and while it guesses keys",
	Control: "a single request of the burst is answered",
	Flaw:    "twice, one address sends a burst of 240 requests over 12 connections within seconds, and the service refuses no request (429 or 503) and no connection",
	Planted: "test service: no-limit, unlimited-guesses; reference server: no-limit, unlimited-validate",
	Cap:     Cap{Requests: 2500, Seconds: 60, Bytes: 64 << 20},
	worst:   "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:L",
	run:     runRateLimit,
}

var forwardedHeaders = Check{
	Name:    "forwarded-headers",
	Asks:    "whether a client evades the rate limit by claiming another address (X-Forwarded-For and similar headers)",
	Control: "the same burst without the header is limited immediately before",
	Flaw:    "in two rounds, the burst is limited without the header and not limited with it",
	Planted: "test service and reference server: trust-x-forwarded-for",
	Cap:     Cap{Requests: 8000, Seconds: 90, Bytes: 128 << 20},
	worst:   "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:L",
	run:     runForwardedHeaders,
}

var limitTags = []string{"OWASP API4:2023", "OWASP LLM10:2025", "CWE-770"}

// burst is the result of many requests at once.
type burst struct {
	sent, answered, limited, failed int64
	took                            time.Duration
	refusal                         answer
}

// isLimited reports whether requests were refused. enough reports whether enough of the
// burst was sent to draw a conclusion.
func (b burst) isLimited() bool { return b.limited > 0 || b.failed > b.sent/10 }
func (b burst) enough() bool    { return b.sent >= burstSize*9/10 }

// String describes the burst for a person.
func (b burst) String() string {
	return fmt.Sprintf("%d of %d answered within %s, %d refused (429 or 503), %d without an answer", b.answered, b.sent, b.took.Round(time.Millisecond), b.limited, b.failed)
}

// volley sends a burst from one address; make makes each request.
func (t *trial) volley(ctx context.Context, from string, make func(i int64) request) burst {
	ctx, cancel := context.WithTimeout(ctx, 12*time.Second)
	defer cancel()
	began := time.Now()
	var next, sent, answered, limited, failed atomic.Int64
	var b burst
	var mu sync.Mutex
	var lines sync.WaitGroup
	for range burstLines {
		lines.Go(func() {
			var l *line
			defer func() {
				if l != nil {
					l.Close()
				}
			}()
			for ctx.Err() == nil {
				i := next.Add(1)
				if i > burstSize || !t.spend() {
					return
				}
				if l == nil {
					var err error
					if l, err = t.dial(ctx, from, "http/1.1"); err != nil {
						sent.Add(1)
						failed.Add(1)
						l = nil
						continue
					}
				}
				a := l.send(ctx, make(i))
				sent.Add(1)
				switch {
				case a.err != nil:
					failed.Add(1)
				case a.limited():
					limited.Add(1)
					mu.Lock()
					b.refusal = a
					mu.Unlock()
				default:
					answered.Add(1)
				}
				if a.err != nil || a.header.Get("Connection") == "close" {
					l.Close()
					l = nil
				}
			}
		})
	}
	lines.Wait()
	b.sent, b.answered, b.limited, b.failed, b.took = sent.Load(), answered.Load(), limited.Load(), failed.Load(), time.Since(began)
	return b
}

// burstKind is a kind of request whose rate should be limited.
type burstKind struct {
	kind  string
	title words.Sentence
	make  func(i int64) request
}

func (t *trial) burstKinds(r route) []burstKind {
	all := []burstKind{{"requests", say("the requests of one address are not limited"), func(int64) request {
		return request{method: r.method, path: r.path, body: r.body, key: t.target.Key}
	}}}
	if t.target.Key != "" {
		guess := func(path string) func(int64) request {
			return func(int64) request {
				return request{method: "GET", path: path, key: t.random.letters(max(16, len(t.target.Key)))}
			}
		}
		all = append(all, burstKind{"guesses", say("guesses of keys from one address are not limited"), guess("/v1/models")},
			burstKind{"guesses at /validate", say("guesses of keys from one address are not limited"), guess("/validate")})
	}
	return all
}

func runRateLimit(ctx context.Context, t *trial) end {
	r, has := t.cheapest()
	if !has {
		return unproven("no route of OpenAI's API answered")
	}
	looked := 0
	for _, d := range t.burstKinds(r) {
		from := t.own()
		first := d.make(0)
		first.from = from
		if alone := t.ask(ctx, first); alone.err != nil || alone.status == 404 || alone.status == 405 {
			continue // the service has no such path
		}
		looked++
		b := t.volley(ctx, from, d.make)
		if !b.enough() && !b.isLimited() {
			return unproven("only %s of %s requests of the burst could be sent", number(b.sent), number(burstSize))
		}
		if b.isLimited() {
			continue
		}
		again := t.volley(ctx, from, d.make)
		if again.isLimited() || !again.enough() {
			continue
		}
		t.found(flaw{
			title: d.title, kind: d.kind, where: first.method + " " + first.path, vector: t.check.worst, tags: limitTags,
			evidence: []recording.Exchange{{Sent: first.shown(), Came: again.String()}},
			verified: say("two bursts of %s requests from one address over %s connections were answered completely", number(burstSize), number(burstLines)),
			fix:      say("limit each address and each key (429 with Retry-After), including wrong keys and the gateway's own routes"),
		})
	}
	if looked == 0 {
		return unproven("a single request was not answered")
	}
	return t.ended("each of %[2]s entry points refused a part of a burst of %[1]s requests from one address", number(burstSize), number(int64(looked)))
}

// claims are headers in which a proxy names the client of a request.
var claims = []string{"X-Forwarded-For", "X-Real-IP", "Forwarded", "True-Client-IP", "CF-Connecting-IP", "X-Client-IP", "X-Cluster-Client-IP", "Fastly-Client-IP"}

func (t *trial) claim(name string) string {
	address := "203.0." + number(int64(t.random.intN(256))) + "." + number(int64(t.random.intN(256)))
	if name == "Forwarded" {
		return "Forwarded: for=" + address
	}
	return name + ": " + address
}

func runForwardedHeaders(ctx context.Context, t *trial) end {
	r, has := t.cheapest()
	if !has {
		return unproven("no route of OpenAI's API answered")
	}
	// Without a key, only the address can be limited.
	plain := func(int64) request { return request{method: r.method, path: r.path, body: r.body} }
	all := func(int64) request {
		q := plain(0)
		for _, name := range claims {
			q.headers = append(q.headers, t.claim(name))
		}
		return q
	}
	from := t.own()
	escapes := func(with func(int64) request) (evidence burst, escaped, ok bool) {
		if b := t.volley(ctx, from, plain); !b.isLimited() {
			return b, false, false
		}
		b := t.volley(ctx, from, with)
		return b, !b.isLimited() && b.enough(), true
	}
	_, escaped, ok := escapes(all)
	if !ok {
		return unproven("the burst without the header was not limited, so there is no limit to evade")
	}
	if !escaped {
		return safe("the limit on a burst still applied with %s headers that claim another address", number(int64(len(claims))))
	}
	for _, name := range claims {
		if ctx.Err() != nil {
			break
		}
		with := func(int64) request {
			q := plain(0)
			q.headers = []string{t.claim(name)}
			return q
		}
		if _, first, _ := escapes(with); !first {
			continue
		}
		if b, second, _ := escapes(with); second {
			t.found(flaw{
				title: say("a client evades the rate limit by claiming another address"), kind: name, where: name, vector: t.check.worst, tags: append(limitTags, "CWE-348"),
				evidence: []recording.Exchange{{Sent: with(0).shown(), Came: b.String()}},
				verified: say("in two rounds, a burst without the header was limited and the same burst with it was not"),
				fix:      say("take the client's address from the connection; trust a header only from listed proxies, and only the last entry that they added"),
			})
		}
	}
	return t.ended("the limit on a burst still applied with each of %s headers that claim another address", number(int64(len(claims))))
}
