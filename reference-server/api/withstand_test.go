package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/reference-server/access"
	"github.com/launchgate/launchgate/reference-server/engine"
)

const user = `"messages":[{"role":"user","content":"x"}]`

// A body that is ambiguous or has a value out of range is refused with 400, and
// the server goes on.
func TestBodiesAreReadStrictly(t *testing.T) {
	srv, _, _ := serving(t, engine.Config{MaxSequence: 128})
	chat, text, respond := "/v1/chat/completions", "/v1/completions", "/v1/responses"
	for _, tt := range []struct{ name, path, body, says string }{
		{"a name twice", chat, `{"stream":false,"stream":true,` + user + `}`, "twice"},
		{"a name twice, once escaped", chat, `{"stream":false,"str\u0065am":true,` + user + `}`, "twice"},
		{"a name twice further in", chat, `{"stream_options":{"include_usage":true,"include_usage":false},` + user + `}`, "twice"},
		{"a name twice in a message", chat, `{"messages":[{"role":"user","role":"system","content":"x"}]}`, "twice"},
		{"another case", chat, `{"Stream":true,` + user + `}`, `"stream" is`},
		{"another case further in", chat, `{"stream_options":{"INCLUDE_USAGE":false},` + user + `}`, `"include_usage" is`},
		{"a letter that folds", chat, "{\"\u017ftream\":true," + user + "}", `"stream" is`},
		{"another case of a count", respond, `{"input":"x","Background":true}`, `"background" is`},
		{"bytes that are no text", chat, "{\"user\":\"\xff\"," + user + "}", "UTF-8"},
		{"more than one value", chat, `{` + user + `}{}`, "JSON"},
		{"too deep", chat, `{"x":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}`, "nested"},
		{"a prompt too deep", text, `{"prompt":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`, "prompt"},
		{"too many names", chat, `{` + strings.Repeat(`"a":{},`, maxNames) + user + `}`, "names"},
		{"too many messages", chat, `{"messages":[` + strings.Repeat(`{"role":"user","content":"x"},`, 40000) + `{"role":"user","content":"x"}]}`, "messages"},
		{"the largest number", chat, `{"max_tokens":9223372036854775807,` + user + `}`, "max_tokens"},
		{"the same, newer", chat, `{"max_completion_tokens":9223372036854775807,` + user + `}`, "max_tokens"},
		{"the same, of a response", respond, `{"input":"x","max_output_tokens":9223372036854775807}`, "max_tokens"},
		{"past the largest number", chat, `{"max_tokens":9223372036854775808,` + user + `}`, "max_tokens"},
		{"the smallest number", chat, `{"max_tokens":-9223372036854775808,` + user + `}`, "max_tokens"},
		{"a huge top_k", chat, `{"top_k":1e30,` + user + `}`, "top_k"},
		{"a huge seed", chat, `{"seed":99999999999999999999,` + user + `}`, "seed"},
		{"a number past all", chat, `{"temperature":1e400,` + user + `}`, "temperature"},
		{"a token past its type", text, `{"prompt":[4294967296]}`, "prompt"},
		{"a negative token", text, `{"prompt":[-1]}`, "-1"},
		{"a stop that is a book", chat, `{"stop":"` + strings.Repeat("x", 5000) + `",` + user + `}`, "stop"},
		{"a text for a number", chat, `{"n":"two",` + user + `}`, "n: found a text"},
		{"a list for an object", chat, `{"stream_options":[],` + user + `}`, "stream_options: found a list"},
		{"a number for messages", chat, `{"messages":5}`, "messages: found 5"},
		{"no object", chat, `[]`, "the body: found a list"},
		{"a detokenized number", "/detokenize", `{"tokens":[-1]}`, "-1"},
		{"another", "/detokenize", `{"tokens":[2147483647]}`, "2147483647"},
		{"much metadata", respond, `{"input":"x","metadata":{"a":"` + strings.Repeat("x", 600) + `"}}`, "metadata"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			began := time.Now()
			resp, b := post(t, srv.URL+tt.path, tt.body)
			var w whole
			if err := json.Unmarshal(b, &w); err != nil || w.Error == nil || resp.StatusCode != 400 || !strings.Contains(w.Error.Message, tt.says) {
				t.Fatalf("%s %.300s", resp.Status, b)
			}
			if len(b) > 1000 || strings.Contains(string(b), "json:") || strings.Contains(string(b), "struct") {
				t.Errorf("the error tells of the inside, or the request again: %.300s", b)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %s to refuse", took)
			}
		})
	}
	for _, body := range []string{`{"user":"STREAM","Anything":1,` + user + `,"max_tokens":1}`, `{"stream_options":null,"stop":null,"n":null,` + user + `,"max_tokens":1}`, ` { "max_tokens" : 1 , "messages" : [ { "role" : "user" , "content" : [ { "type" : "text" , "text" : "a\"b\\" } , {"type":"text","text":""} ] } ] } `} {
		if resp, b := post(t, srv.URL+chat, body); resp.StatusCode != 200 {
			t.Errorf("%s: %s %s", body, resp.Status, b)
		}
	}
}

// The values of a body are the same as with encoding/json.
func TestMembersAreThoseOfJSON(t *testing.T) {
	for _, body := range []string{`{}`, `[]`, `{"a":1}`, ` { "a" : [1,{"b":"}"}] , "c\"" : "x,y:z" ,"d":null, "e" : {"f":{}} }`, `[1, "a,b", [2,3], {"x":[]}, null ]`} {
		if kindOf([]byte(body)) == '{' {
			var want map[string]json.RawMessage
			_ = json.Unmarshal([]byte(body), &want)
			got := members([]byte(body))
			for _, m := range got {
				if string(m.value) != string(want[m.name]) {
					t.Errorf("%s: %q is %s, want %s", body, m.name, m.value, want[m.name])
				}
			}
			if len(got) != len(want) {
				t.Errorf("%s: %d members, want %d", body, len(got), len(want))
			}
			continue
		}
		var want []json.RawMessage
		_ = json.Unmarshal([]byte(body), &want)
		got := elements([]byte(body))
		if len(got) != len(want) {
			t.Fatalf("%s: %d elements, want %d", body, len(got), len(want))
		}
		for i := range got {
			if string(got[i]) != string(want[i]) {
				t.Errorf("%s: element %d is %s, want %s", body, i, got[i], want[i])
			}
		}
	}
}

// Valid JSON is read as by encoding/json, and accepted JSON has no name twice.
func FuzzStrict(f *testing.F) {
	for _, s := range []string{`{"a":1,"a":2}`, `{"messages":[{"role":"user","content":"x"}],"n":2}`, `[[1],{"x":"\"","y":[]}]`, `{"\u0061":1,"a":2}`, "{\"max_tokens\":9223372036854775807}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var q request
		if decodeStrict(body, &q) != nil {
			return
		}
		var loose request
		if err := json.Unmarshal(body, &loose); err != nil {
			t.Fatalf("%q was taken, and is %v", body, err)
		}
		a, _ := json.Marshal(q.Messages)
		b, _ := json.Marshal(loose.Messages)
		if q.Stream != loose.Stream || q.Model != loose.Model || !bytes.Equal(a, b) {
			t.Fatalf("%q is read as %+v, and loosely as %+v", body, q, loose)
		}
		_, _ = q.engineRequest(nil)
		_, _ = q.chatMessages()
	})
}

// The time to read a body is proportional to its length, for any content.
func TestReadingIsLinear(t *testing.T) {
	parts := func(n int) []byte {
		return []byte(`{"messages":[{"role":"user","content":[{"type":"text","text":"` + strings.Repeat("y", 20*n) + `"}` + strings.Repeat(`,{"type":"text","text":"y"}`, n) + `]}]}`)
	}
	for name, body := range map[string]func(n int) []byte{
		"parts":  parts,
		"names":  func(n int) []byte { return []byte(`{"x":[` + strings.Repeat(`{"a":{"b":{}}},`, n) + `0]}`) },
		"lists":  func(n int) []byte { return []byte(`{"prompt":[` + strings.Repeat(`[1],`, n) + `[1]]}`) },
		"stops":  func(n int) []byte { return []byte(`{"stop":[` + strings.Repeat(`"a",`, n) + `"b"]}`) },
		"quotes": func(n int) []byte { return []byte(`{"model":"` + strings.Repeat(`\"`, 10*n) + `"}`) },
	} {
		best := func(n int) time.Duration {
			least, b := time.Hour, body(n)
			for range 5 {
				began := time.Now()
				var q request
				if err := decodeStrict(b, &q); err != nil {
					t.Fatal(name, err)
				}
				_, _ = q.chatMessages()
				_, _ = q.promptTokens(context.Background(), nil)
				_, _ = stops(q.Stop)
				least = min(least, time.Since(began))
			}
			return least
		}
		growth := 1e9
		for range 6 {
			if growth = min(growth, float64(best(24000))/float64(best(3000))); growth < 20 {
				break
			}
		}
		if growth > 28 {
			t.Errorf("%s: 8 times the body takes %.1f times the time", name, growth)
		}
	}
}

const secret = "0123456789abcdef0123456789abcdef"

// asTenant sends a request with the gateway's headers.
func asTenant(t *testing.T, url, path, body string, headers map[string]string) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, url+path, strings.NewReader(body))
	if body == "" {
		r, err = http.NewRequest(http.MethodGet, url+path, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range headers {
		if r.Header.Set(k, v); k == "Host" {
			r.Host = v
		}
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, b
}

// A replica with a secret answers only its gateway, except for probes, and the
// headers about the caller are valid only with the secret. A replica without a
// secret accepts only its own host names, and no web page of another origin.
func TestWhoMayAsk(t *testing.T) {
	pool := newPool(t, engine.Config{Path: "../models/default/default.gguf", Name: model})
	if err := pool.Load(); err != nil {
		t.Fatal(err)
	}
	closed := httptest.NewServer(New(pool, access.Policy{Secret: secret}, quiet).Handler())
	open := httptest.NewServer(New(pool, access.Policy{Hosts: []string{"replica.test"}}, quiet).Handler())
	t.Cleanup(func() { closed.Close(); open.Close(); pool.Close() })
	body := `{` + user + `,"max_tokens":1}`
	h := func(kv ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	for _, tt := range []struct {
		name, url, path, body string
		headers               map[string]string
		status                int
	}{
		{"no secret", closed.URL, "/v1/chat/completions", body, nil, 401},
		{"a wrong secret", closed.URL, "/v1/chat/completions", body, h(access.HeaderSecret, secret+"0"), 401},
		{"a part of it", closed.URL, "/v1/chat/completions", body, h(access.HeaderSecret, secret[:8]), 401},
		{"an empty one", closed.URL, "/tokenize", body, h(access.HeaderSecret, ""), 401},
		{"a path that is none", closed.URL, "/nothing", body, nil, 401},
		{"models", closed.URL, "/v1/models", "", nil, 401},
		{"the secret", closed.URL, "/v1/chat/completions", body, h(access.HeaderSecret, secret, "Host", "anything.test"), 200},
		{"health", closed.URL, "/health", "", nil, 200},
		{"readiness", closed.URL, "/ready", "", nil, 200},
		{"a class that is none", closed.URL, "/v1/chat/completions", body, h(access.HeaderSecret, secret, access.HeaderClass, "royal"), 400},
		{"a class by number", closed.URL, "/v1/chat/completions", body, h(access.HeaderSecret, secret, access.HeaderClass, "3", access.HeaderWeight, "5"), 200},
		{"a weight that is none", closed.URL, "/v1/chat/completions", body, h(access.HeaderSecret, secret, access.HeaderWeight, "1000"), 400},
		{"a long tenant", closed.URL, "/v1/chat/completions", body, h(access.HeaderSecret, secret, access.HeaderTenant, strings.Repeat("x", 300)), 400},
		{"an address", open.URL, "/v1/chat/completions", body, nil, 200},
		{"localhost", open.URL, "/v1/chat/completions", body, h("Host", "LOCALHOST:80"), 200},
		{"an IPv6 address", open.URL, "/v1/chat/completions", body, h("Host", "[::1]:8080"), 200},
		{"its name", open.URL, "/v1/chat/completions", body, h("Host", "replica.test:8080"), 200},
		{"another name", open.URL, "/v1/chat/completions", body, h("Host", "rebound.test"), 421},
		{"a name like an address", open.URL, "/v1/chat/completions", body, h("Host", "127.0.0.1.rebound.test"), 421},
		{"another origin", open.URL, "/v1/chat/completions", body, h("Origin", "https://page.test"), 403},
		{"no origin", open.URL, "/v1/chat/completions", body, h("Origin", "null"), 403},
		{"its own origin", open.URL, "/v1/chat/completions", body, h("Origin", open.URL), 200},
		{"a forged class", open.URL, "/v1/chat/completions", body, h(access.HeaderClass, "royal", access.HeaderTenant, "alice"), 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, b := asTenant(t, tt.url, tt.path, tt.body, tt.headers)
			if resp.StatusCode != tt.status {
				t.Errorf("%s %s, want %d", resp.Status, b, tt.status)
			}
			for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"} {
				if got := resp.Header.Values(name); len(got) != 1 || got[0] != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if strings.Contains(string(b), secret) {
				t.Error("the answer has the secret")
			}
		})
	}
}

// The prefix cache reports hits only for a tenant's own prompts, and only the
// tenant can read its background responses.
func TestTenantsLearnNothingOfOneAnother(t *testing.T) {
	pool := newPool(t, engine.Config{Path: "../models/default/default.gguf", Name: model})
	if err := pool.Load(); err != nil {
		t.Fatal(err)
	}
	s := New(pool, access.Policy{Secret: secret}, quiet)
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(func() { srv.Close(); pool.Close(); s.Wait() })
	as := func(tenant string) map[string]string {
		return map[string]string{access.HeaderSecret: secret, access.HeaderTenant: tenant}
	}
	cached := func(tenant, content string) int {
		_, b := asTenant(t, srv.URL, "/v1/chat/completions", fmt.Sprintf(`{"messages":[{"role":"system","content":%q}],"max_tokens":1}`, content), as(tenant))
		var w whole
		if err := json.Unmarshal(b, &w); err != nil || w.Usage == nil {
			t.Fatalf("%s", b)
		}
		return w.Usage.Details.Cached
	}
	told := strings.Repeat("The codename is BLUEFINCH and the bid is secret. ", 8)
	for range 3 {
		cached("alice", told)
	}
	if n := cached("alice", told); n == 0 {
		t.Error("alice's own prompt is not found")
	}
	cached("bob", "something else") // the template's own tokens are in bob's cache by now
	if right, wrong := cached("bob", told), cached("bob", strings.ReplaceAll(told, "BLUE", "GREEN")); right > 16 || wrong > 16 {
		t.Errorf("bob's guesses: %d tokens where right, %d where wrong", right, wrong)
	}
	_, b := asTenant(t, srv.URL, "/v1/responses", `{"input":"x","max_output_tokens":4,"background":true}`, as("alice"))
	var o struct{ ID string }
	_ = json.Unmarshal(b, &o)
	if resp, b := asTenant(t, srv.URL, "/v1/responses/"+o.ID, "", as("alice")); resp.StatusCode != 200 {
		t.Errorf("alice: %s %s", resp.Status, b)
	}
	foreign, fb := asTenant(t, srv.URL, "/v1/responses/"+o.ID, "", as("bob"))
	none, nb := asTenant(t, srv.URL, "/v1/responses/"+strings.ToUpper(o.ID), "", as("bob"))
	if foreign.StatusCode != 404 || none.StatusCode != 404 || len(fb) != len(nb) {
		t.Errorf("bob: %s %s, and of one that never was %s %s", foreign.Status, fb, none.Status, nb)
	}
}

// A panic in a handler ends only its own request, and the answer says that the
// request and not the replica caused it.
func TestPanicEndsOneRequest(t *testing.T) {
	pool := newPool(t, engine.Config{Path: "../models/default/default.gguf", Name: model})
	s := New(pool, access.Policy{}, quiet)
	srv := httptest.NewServer(s.guarded(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/late" {
			w.WriteHeader(200)
		}
		if r.URL.Path != "/fine" {
			panic("makeslice: cap out of range")
		}
	})))
	t.Cleanup(func() { srv.Close(); pool.Close() })
	resp, b := asTenant(t, srv.URL, "/early", "", nil)
	if resp.StatusCode != 500 || resp.Header.Get(HeaderFault) != "request" || strings.Contains(string(b), "makeslice") {
		t.Errorf("%s %s %v", resp.Status, b, resp.Header)
	}
	if _, err := http.Get(srv.URL + "/late"); err == nil {
		t.Log("the answer had begun, and its client sees it broken off") // or no byte of it arrived
	}
	if resp, _ := asTenant(t, srv.URL, "/fine", "", nil); resp.StatusCode != 200 {
		t.Errorf("the next request: %s", resp.Status)
	}
}

// The list of models names the models, and nothing about the backend.
func TestModelsTellNothingOfTheInside(t *testing.T) {
	srv, _, _ := serving(t, engine.Config{})
	resp, err := http.Get(srv.URL + "/v1/models")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var list struct{ Data []map[string]any }
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil || len(list.Data) != 1 {
		t.Fatalf("%+v %v", list, err)
	}
	for name := range list.Data[0] {
		switch name {
		case "id", "object", "created", "owned_by", "max_model_len":
		default:
			t.Errorf("a model tells its %s", name)
		}
	}
}
