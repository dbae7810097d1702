package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/launchgate/launchgate/reference-server/access"
	"github.com/launchgate/launchgate/reference-server/engine"
)

// maker makes random structured requests: valid ones, unusual ones, and ones
// with a few bytes changed.
type maker struct{ *rand.Rand }

func pick[T any](m maker, of ...T) T { return of[m.IntN(len(of))] }

func (m maker) text() string {
	return pick(m, "", "a", "hi", "\x00", "<|im_end|>", "<|im_start|>system\n", strings.Repeat("<|im_end|>", 300), "é", "\U0001F4A9", "{{7*7}}", "{% for i in range(10**9) %}{% endfor %}", "\u2028", `"`, `\`, strings.Repeat("a", 3000), strings.Repeat(" ", 500), strings.Repeat("1 ", 900), "\r\n", "\ufdd0<")
}

func (m maker) number() any {
	return pick[any](m, 0, 1, -1, 2, 16, 17, 1<<31-1, 1<<31, -1<<31, 1<<53, 1<<63-1, -1<<63, json.Number("18446744073709551616"), json.Number("1e400"), 0.5, 1e-320, 1e308, -0.5, 2.0)
}

func (m maker) value(depth int) any {
	switch n := m.IntN(7); {
	case n < 2:
		return m.number()
	case n < 4:
		return m.text()
	case n == 4 || depth > 3:
		return pick[any](m, nil, true, false)
	case n == 5:
		list := []any{}
		for range pick(m, 0, 1, 2, 5) {
			list = append(list, m.value(depth+1))
		}
		return list
	}
	object := map[string]any{}
	for range pick(m, 0, 1, 3) {
		object[pick(m, "type", "text", "role", "content", "a", "schema", "json_schema", "properties", "enum", "items")] = m.value(depth + 1)
	}
	return object
}

func (m maker) schema(depth int) any {
	if depth > 30 || m.IntN(4) == 0 {
		return pick[any](m, map[string]any{}, true, false, map[string]any{"type": "string"}, map[string]any{"type": "integer"}, map[string]any{"enum": []any{"a", 1, nil}}, map[string]any{"const": m.value(0)},
			map[string]any{"type": []string{"null", "array"}}, map[string]any{"type": []string{}}, map[string]any{"type": "array", "minItems": 1 << 62}, map[string]any{"enum": []any{m.value(0), m.value(0)}})
	}
	switch m.IntN(4) {
	case 0:
		properties := map[string]any{}
		for i := range pick(m, 0, 1, 3, 64, 65) {
			properties[fmt.Sprint("p", i)] = m.schema(depth + 10)
		}
		return map[string]any{"type": "object", "properties": properties, "required": pick(m, []string{}, []string{"p0"}, []string{"none"})}
	case 1:
		return map[string]any{"type": "array", "items": m.schema(depth + 1), "minItems": pick(m, 0, 1, 3), "maxItems": pick(m, 0, 1, 5)}
	case 2:
		values := []any{}
		for i := range pick(m, 1, 10, 500, 5000) {
			values = append(values, fmt.Sprintf("aaaaaaaa%05x", i))
		}
		return map[string]any{"enum": values}
	}
	return map[string]any{"additionalProperties": m.schema(depth + 1)}
}

// request is a path and a body.
func (m maker) request() (path string, body []byte) {
	path = pick(m, "/v1/chat/completions", "/v1/chat/completions", "/v1/completions", "/v1/responses", "/tokenize", "/detokenize")
	q := map[string]any{"max_tokens": pick(m, 1, 2, 5, 20)}
	messages := []any{}
	for range pick(m, 1, 1, 2, 5) {
		messages = append(messages, map[string]any{"role": pick[any](m, "user", "system", "assistant", "developer", "tool", 1), "content": pick[any](m, m.text(), []any{map[string]any{"type": "text", "text": m.text()}})})
	}
	switch path {
	case "/v1/completions":
		q["prompt"] = pick(m, any(m.text()), any([]any{m.number()}), any([]any{1, 2, 3}), any([]any{[]any{1, 2}}), m.value(0))
	case "/v1/responses":
		q = map[string]any{"input": pick(m, any(m.text()), any(messages), m.value(0)), "max_output_tokens": pick(m, any(1), any(5), m.number())}
	case "/detokenize":
		q = map[string]any{"tokens": pick(m, any([]any{m.number()}), any([]any{1, 2}), m.value(0))}
	default:
		q["messages"] = messages
	}
	for range pick(m, 0, 1, 2, 4) {
		q[pick(m, "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty", "seed", "stop", "n", "logprobs", "top_logprobs", "stream", "stream_options", "response_format", "max_completion_tokens", "tools", "echo", "suffix", "model", "logit_bias", "metadata", "background", "instructions", "best_of", "Stream")] = m.value(0)
	}
	if m.IntN(4) == 0 {
		q["response_format"] = map[string]any{"type": pick(m, "json_schema", "json_object", "text"), "json_schema": map[string]any{"schema": m.schema(0)}}
	}
	if m.IntN(3) == 0 {
		q["stream"] = true
	}
	if m.IntN(5) == 0 {
		q["n"] = pick(m, 1, 2, 16)
	}
	body, _ = json.Marshal(q)
	for range m.IntN(20) - 16 {
		body[m.IntN(len(body))] = byte(m.IntN(256))
	}
	return path, body
}

// Three tenants send random requests at once and leave at random times. There
// is no panic, every request is answered in time, and so are the requests of a
// fourth tenant. LAUNCHGATE_FUZZ=5m makes the test last so long.
func TestTenantsByChance(t *testing.T) {
	// The test lasts until it has seen some requests of each kind, because a
	// slow machine takes longer. It lasts a minute at most.
	lasts, seed, enough := 4*time.Second, uint64(1), time.Minute
	if long, err := time.ParseDuration(os.Getenv("LAUNCHGATE_FUZZ")); err == nil {
		lasts, seed = long, uint64(time.Now().UnixNano())
	}
	pool := newPool(t, engine.Config{Path: "../models/default/default.gguf", Name: model, MaxSequence: 96, Threads: 1})
	if err := pool.Load(); err != nil {
		t.Fatal(err)
	}
	s := New(pool, access.Policy{Secret: secret}, quiet)
	h := s.Handler()
	const budget = 30 * time.Second // generous: other programs use this machine too
	send := func(tenant string, class string, path string, body []byte) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
		r.Header.Set(access.HeaderSecret, secret)
		r.Header.Set(access.HeaderTenant, tenant)
		r.Header.Set(access.HeaderClass, class)
		w := httptest.NewRecorder()
		late := time.AfterFunc(budget, func() { panic(fmt.Sprintf("no answer to %s %.2000q", path, body)) })
		defer late.Stop()
		h.ServeHTTP(w, r)
		return w
	}
	var all sync.WaitGroup
	var sent, taken atomic.Int64
	began := time.Now()
	under := func() bool {
		passed := time.Since(began)
		return passed < lasts || passed < enough && (sent.Load() < 20 || taken.Load() < 5)
	}
	for i, tenant := range []string{"alice", "bob", "carol"} {
		m := maker{rand.New(rand.NewPCG(seed, uint64(i)))}
		all.Go(func() {
			for under() {
				path, body := m.request()
				w := send(tenant, pick(m, "batch", "standard"), path, body)
				sent.Add(1)
				if w.Code == 200 {
					taken.Add(1)
				}
				if w.Code >= 500 && w.Code != http.StatusServiceUnavailable || w.Code >= 400 && w.Code < 500 && w.Body.Len() > 2000 {
					t.Errorf("seed %d: %d %.300s to %s %.2000q", seed, w.Code, w.Body, path, body)
				}
			}
		})
	}
	worst, asked := time.Duration(0), 0
	for under() {
		asks := time.Now()
		w := send("canary", "interactive", "/v1/chat/completions", []byte(`{`+user+`,"max_tokens":2}`))
		worst = max(worst, time.Since(asks))
		if asked++; w.Code != 200 {
			t.Errorf("the canary: %d %s", w.Code, w.Body)
		}
		time.Sleep(20 * time.Millisecond)
	}
	all.Wait()
	pool.Close()
	s.Wait()
	t.Logf("seed %d: %d requests by chance, %d of them taken; %d of the canary's, the slowest %s", seed, sent.Load(), taken.Load(), asked, worst)
	if sent.Load() < 20 || taken.Load() < 5 || worst > 10*time.Second {
		t.Errorf("%d requests, %d taken, the canary waited up to %s", sent.Load(), taken.Load(), worst)
	}
}
