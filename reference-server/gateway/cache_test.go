package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/launchgate/launchgate/reference-server/ledger"
)

// Past the mark, a question at temperature 0 that was answered before gets the
// same answer again, byte for byte, and is billed; below it, and for others,
// nothing comes from the cache.
func TestCacheUnderOverload(t *testing.T) {
	held, begun := make(chan struct{}), make(chan struct{}, 2)
	c := generous()
	c.Degrade.Queue = 1
	c.Classes = []string{"standard"} // the most important: never refused
	c.Degrade.Shorten = nil
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/held" {
			begun <- struct{}{}
			<-held
			return
		}
		answering(w, r)
	})
	h := newHouse(t, c, openBooks(t), b)
	type asked struct {
		resp *http.Response
		body string
	}
	ask := func(secret, body string) asked {
		resp, got := h.ask("POST", "/v1/chat/completions", secret, body)
		return asked{resp, got}
	}
	const whole, stream, random = `{"temperature":0,"n":1}`, `{"temperature":0,"stream":true}`, `{"temperature":1}`
	before := map[string]asked{}
	for _, q := range []string{whole, stream, random} {
		before[q] = ask(h.secret, q)
		if again := ask(h.secret, q); again.resp.Header.Get("X-Launchgate-Cache") != "" {
			t.Errorf("%s came from the cache without need", q)
		}
	}
	other := h.key(ledger.Key{ID: "other", Tenant: "other", Class: "standard", Scopes: []string{"inference"}})

	var waiting sync.WaitGroup
	for range 2 {
		waiting.Go(func() { h.ask("POST", "/v1/held", h.secret, "{}") })
	}
	for range 2 {
		<-begun
	}
	served := b.served.Load()
	for _, q := range []string{whole, stream} {
		got := ask(h.secret, q)
		if got.body != before[q].body || got.resp.Header.Get("X-Launchgate-Cache") != "hit" || got.resp.Header.Get("Content-Type") != before[q].resp.Header.Get("Content-Type") {
			t.Errorf("%s: %q %v, before %q", q, got.body, got.resp.Header, before[q].body)
		}
		if u, err := h.books.UsageOf(t.Context(), got.resp.Header.Get("X-Request-Id")); err != nil || u.Output != 7 {
			t.Errorf("%s: usage %+v %v", q, u, err)
		}
	}
	if n := b.served.Load() - served; n != 0 {
		t.Errorf("the replica was asked %d times for what was in the cache", n)
	}
	for name, got := range map[string]asked{
		"temperature 1": ask(h.secret, random), "another question": ask(h.secret, `{"temperature":0,"n":2}`), "another tenant": ask(other, whole),
		"usage, which was not asked for before": ask(h.secret, `{"temperature":0,"stream":true,"stream_options":{"include_usage":true}}`),
	} {
		if got.resp.StatusCode != 200 || got.resp.Header.Get("X-Launchgate-Cache") != "" {
			t.Errorf("%s: %s from the cache %q", name, got.resp.Status, got.resp.Header.Get("X-Launchgate-Cache"))
		}
	}
	close(held)
	waiting.Wait()
}

// A stream that broke, or that ended in an error, is no answer to give again.
func TestOnlyWholeAnswersAreCached(t *testing.T) {
	const usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n"
	for _, tt := range []struct {
		says, body string
		err        error
		kept       bool
	}{
		{"whole", usage + "data: [DONE]\n\n", nil, true},
		{"broken", usage, io.ErrUnexpectedEOF, false},
		{"no end", usage, nil, false},
		{"no usage", "data: [DONE]\n\n", nil, false},
		{"too large", usage + "data: \"" + strings.Repeat("x", answerMost) + "\"\n\ndata: [DONE]\n\n", nil, false},
	} {
		g := &guard{cache: newCache(), ledger: openBooks(t)}
		g.config.Store(&Config{})
		key := cacheKey{1}
		var body io.Reader = strings.NewReader(tt.body)
		if tt.err != nil {
			body = io.MultiReader(body, failing{tt.err})
		}
		a := &accounted{body: io.NopCloser(body), g: g, c: &call{id: tt.says, cacheAs: &key}, buf: make([]byte, 100)}
		got, _ := io.ReadAll(a)
		kept, ok := g.cache.get(key)
		if ok != tt.kept || ok && string(kept.body) != string(got) {
			t.Errorf("%s: kept %v", tt.says, ok)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// The cache stays within its bound, and keeps what is used.
func TestCacheIsBounded(t *testing.T) {
	c := newCache()
	first := cacheKey{}
	c.put(&answer{key: first, body: make([]byte, 100)})
	for i := range 2 * cacheBytes / answerMost {
		var k cacheKey
		copy(k[:], fmt.Sprintf("answer %d", i))
		c.put(&answer{key: k, body: make([]byte, answerMost)})
		if _, ok := c.get(first); !ok {
			t.Fatal("what is used was forgotten")
		}
	}
	if c.bytes > cacheBytes || c.order.Len() != len(c.byKey) || c.order.Len() < cacheBytes/answerMost/2 {
		t.Errorf("%d bytes in %d answers", c.bytes, c.order.Len())
	}
}
