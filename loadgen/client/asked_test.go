package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

// The request that arrives is the one the prompt asks for: its path, parameters,
// headers and fields.
func TestAsked(t *testing.T) {
	for _, tt := range []struct {
		says, path string // path after the host, as the user gave it
		cfg        Config
		p          Prompt
		uri, body  string
	}{
		{"without a path, /v1 is put behind", "", Config{}, Prompt{API: APIChat}, "/v1/chat/completions", ""},
		{"a /v1 is taken as meant", "/v1/", Config{}, Prompt{API: APICompletions}, "/v1/completions", ""},
		{"a path is taken as it is", "/v1beta/openai/", Config{}, Prompt{API: APIChat}, "/v1beta/openai/chat/completions", ""},
		{"another version too", "/api/v3", Config{}, Prompt{API: APIResponses}, "/api/v3/responses", ""},
		{"a deployment with its parameters", "/openai/deployments/gpt-4o", Config{Query: map[string]string{"api-version": "2024-10-21"}}, Prompt{API: APIChat}, "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21", ""},
		{"a field under another name, and one left out", "", Config{}, Prompt{API: APIChat, Fields: map[string]string{"max_completion_tokens": `"${max_tokens}"`, "max_tokens": "null", "temperature": "null"}}, "/v1/chat/completions",
			`{"max_completion_tokens":8,"messages":[{"role":"user","content":"Hi"}],"model":"m","stream":false}`},
		{"fields of all requests under those of this one", "", Config{Fields: map[string]string{"top_p": "0.5", "seed": "1", "temperature": "null"}}, Prompt{API: APIChat, Fields: map[string]string{"top_p": "0.9"}}, "/v1/chat/completions",
			`{"max_tokens":8,"messages":[{"role":"user","content":"Hi"}],"model":"m","seed":1,"stream":false,"top_p":0.9}`},
		{"deep in a value", "", Config{Fields: map[string]string{"options": `{"num_predict": "${max_tokens}", "n": [1, "${model}"], "text": "not ${model}"}`}}, Prompt{API: APIResponses}, "/v1/responses",
			`{"input":[{"role":"user","content":"Hi"}],"max_output_tokens":8,"model":"m","options":{"n":[1,"m"],"num_predict":8,"text":"not ${model}"},"store":false,"stream":false,"temperature":0}`},
	} {
		t.Run(tt.says, func(t *testing.T) {
			var uri, body string
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				uri, body = r.RequestURI, string(b)
			}))
			defer srv.Close()
			tt.cfg.BaseURL, tt.cfg.Model = srv.URL+tt.path, "m"
			tt.p.Messages, tt.p.MaxTokens, tt.p.Timeout = hi, 8, time.Second
			made(tt.cfg).Do(t.Context(), tt.p, recording.NewClock(), 1)
			if uri != tt.uri || tt.body != "" && body != tt.body {
				t.Errorf("asked %s\n%s\nwant  %s\n%s", uri, body, tt.uri, tt.body)
			}
		})
	}
	row := made(Config{BaseURL: "http://127.0.0.1:1"}).Do(t.Context(), Prompt{API: APIChat, Messages: hi, Fields: map[string]string{"x": `"${prompt}"`}}, recording.NewClock(), 1)
	if row.Error != recording.ErrorNotSent || !strings.Contains(row.ErrorText, "found ${prompt}") {
		t.Errorf("a field of another API: %q (%s)", row.Error, row.ErrorText)
	}
}

// A secret that a service repeats is hidden.
func TestSecretsAreNotRepeated(t *testing.T) {
	for _, stream := range []string{"", "in band", "beside"} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			said := fmt.Sprintf(`{"error":{"message":"wrong: %s %s %s"}}`, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), r.Header.Get("Api-Key"), r.URL.Query().Get("sig"))
			switch stream {
			case "in band":
				sse("data: "+said+"\n\n")(w, r)
			case "beside":
				sse(said+"\n")(w, r)
			default:
				w.WriteHeader(401)
				fmt.Fprint(w, said)
			}
		}))
		c := made(Config{BaseURL: srv.URL, Model: "m", APIKey: "sk-of-the-target", Headers: map[string]string{"api-key": "sk-of-a-header"}, Query: map[string]string{"sig": "sk-of-a-parameter"}, Secrets: []string{"sk-of-a-header", "sk-of-a-parameter"}})
		p := prompt
		p.APIKey = "sk-of-a-tenant"
		row := c.Do(t.Context(), p, recording.NewClock(), 1)
		srv.Close()
		if row.OK() || strings.Contains(row.ErrorText, "sk-of") || strings.Count(row.ErrorText, "[secret]") != 3 {
			t.Errorf("%s: %s", stream, row.ErrorText)
		}
	}
}

// The first request of Preflight is as small as the API and the service allow, and its
// timeout is that of the load. A service that is not ready yet is waited for.
func TestTheFirstQuestion(t *testing.T) {
	answer := func(w http.ResponseWriter, r *http.Request) { sse(good)(w, r) }
	for _, tt := range []struct {
		says     string
		p        Prompt
		handler  func(n int64, tokens int, w http.ResponseWriter, r *http.Request)
		err      string
		progress string
	}{
		{"responses of 16 tokens at least", Prompt{API: APIResponses, MaxTokens: 64}, func(_ int64, tokens int, w http.ResponseWriter, r *http.Request) {
			if tokens < 16 || tokens > 63 {
				http.Error(w, "Expected a value >= 16", 400)
				return
			}
			sse(goodResponse)(w, r)
		}, "", ""},
		{"larger where the small one is refused", Prompt{API: APIChat, MaxTokens: 64}, func(_ int64, tokens int, w http.ResponseWriter, r *http.Request) {
			if tokens < 32 {
				http.Error(w, "too few tokens", 400)
				return
			}
			answer(w, r)
		}, "", ""},
		{"larger where the model thinks first", Prompt{API: APIChat, MaxTokens: 64}, func(_ int64, tokens int, w http.ResponseWriter, r *http.Request) {
			if tokens < 32 {
				sse("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}],\"usage\":{\"completion_tokens\":4}}\n\ndata: [DONE]\n\n")(w, r)
				return
			}
			answer(w, r)
		}, "", ""},
		{"slow", Prompt{API: APIChat, MaxTokens: 64}, func(_ int64, _ int, w http.ResponseWriter, r *http.Request) {
			time.Sleep(300 * time.Millisecond)
			answer(w, r)
		}, "", ""},
		{"too slow", Prompt{API: APIChat, MaxTokens: 64, Timeout: 100 * time.Millisecond}, func(_ int64, _ int, _ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-time.After(2 * time.Second):
			}
		}, "no answer within 100ms", ""},
		{"503 at first", Prompt{API: APIChat, MaxTokens: 8}, func(n int64, _ int, w http.ResponseWriter, r *http.Request) {
			if n < 3 {
				w.WriteHeader(503)
				fmt.Fprint(w, `{"error":{"message":"Loading model","type":"unavailable_error","code":503}}`)
				return
			}
			answer(w, r)
		}, "", "Loading model"},
		{"another status that says it loads", Prompt{API: APIChat, MaxTokens: 8}, func(n int64, _ int, w http.ResponseWriter, r *http.Request) {
			if n < 3 {
				http.Error(w, "model m is currently loading", 500)
				return
			}
			answer(w, r)
		}, "", "currently loading"},
		{"503 for ever", Prompt{API: APIChat, MaxTokens: 8, Timeout: 700 * time.Millisecond}, func(_ int64, _ int, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(503)
			fmt.Fprint(w, `{"error":{"message":"no workers"}}`)
		}, "no workers (after 700ms", "no workers"},
		{"a finish reason that the load does not allow", Prompt{API: APIChat, MaxTokens: 8, Finish: []string{"stop"}}, func(_ int64, _ int, w http.ResponseWriter, r *http.Request) {
			answer(w, r)
		}, "", ""},
	} {
		t.Run(tt.says, func(t *testing.T) {
			var n atomic.Int64
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var asked struct {
					Tokens int `json:"max_tokens"`
					Output int `json:"max_output_tokens"`
				}
				_ = json.NewDecoder(r.Body).Decode(&asked)
				tt.handler(n.Add(1), max(asked.Tokens, asked.Output), w, r)
			}))
			defer srv.Close()
			tt.p.Messages, tt.p.Stream = hi, true
			if tt.p.Timeout == 0 {
				tt.p.Timeout = 5 * time.Second
			}
			progress := ""
			err := made(Config{BaseURL: srv.URL, Model: "m"}).Preflight(t.Context(), tt.p, Patience{Tell: func(format words.Phrase, args ...any) { progress += words.Say(format, args...).String() }})
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%v, want %q", err, tt.err)
			}
			if (progress == "") != (tt.progress == "") || !strings.Contains(progress, tt.progress) {
				t.Errorf("told %q, want %q", progress, tt.progress)
			}
		})
	}
}

// Preflight waits a moment if nothing listens at the address.
func TestWhoListensLater(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := lis.Addr().String()
	lis.Close()
	p := prompt
	p.Timeout = 200 * time.Millisecond
	err = made(Config{BaseURL: "http://" + address, Model: "m"}).Preflight(t.Context(), p)
	if err == nil || !strings.Contains(err.Error(), "refused") || !strings.Contains(err.Error(), "after 200ms") {
		t.Errorf("nobody comes: %v", err)
	}
	time.AfterFunc(600*time.Millisecond, func() {
		if lis, err := net.Listen("tcp", address); err == nil {
			srv := &http.Server{Handler: sse(good)}
			go func() { _ = srv.Serve(lis) }()
			t.Cleanup(func() { srv.Close() })
		}
	})
	progress := ""
	if err := made(Config{BaseURL: "http://" + address, Model: "m"}).Preflight(t.Context(), p, Patience{Ready: 20 * time.Second, Tell: func(format words.Phrase, args ...any) { progress = words.Say(format, args...).String() }}); err != nil || !strings.Contains(progress, "refused") {
		t.Errorf("somebody comes later: %v, told %q", err, progress)
	}
}

// Lists of models come in many formats.
func TestListsOfModels(t *testing.T) {
	for list, want := range map[string]string{
		`{"object":"list","data":[{"id":"a"},{"id":"b"}]}`:    "a b",
		`[{"id":"a"},{"name":"b"}]`:                           "a b",
		`{"models":[{"name":"a","model":"a"},{"model":"b"}]}`: "a b",
		`{"data":["a","b","a"," "]}`:                          "a b",
		"\ufeff" + `{"data":[]}`:                              "",
		`{"data":null}`:                                       "not a list",
		`{"error":"x"}`:                                       "not a list",
		`<html>`:                                              "not a list",
	} {
		names, ok := modelsIn([]byte(list))
		if got := strings.Join(names, " "); ok && got != want || ok == (want == "not a list") {
			t.Errorf("%s lists %q (%t), want %q", list, got, ok, want)
		}
	}
	for _, tt := range []struct {
		says, models string
		status       int
		serves       string // the model that answers; -: one without a name, *: any
		model, err   string
	}{
		{"the first that answers", `{"data":[{"id":"text-embedding-nomic"},{"id":"m"}]}`, 200, "m", "m", ""},
		{"one that refuses, and another", `{"data":[{"id":"guard"},{"id":"m"}]}`, 200, "m", "m", ""},
		{"none that answers", `{"data":[{"id":"a"},{"id":"b"}]}`, 200, "m", "", `the requested model is "b", one of 2 listed models (a, b); choose another with --model`},
		{"no list, and none is needed", `{"detail":"Not Found"}`, 404, "-", "", ""},
		{"no list, and one is needed", `{"detail":"Not Found"}`, 404, "m", "", "404 Not Found: Not Found: the service lists no models there"},
		{"no right", `{"error":"who are you?"}`, 401, "m", "", "--api-key-env"},
	} {
		t.Run(tt.says, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet {
					w.WriteHeader(tt.status)
					fmt.Fprint(w, tt.models)
					return
				}
				var asked struct{ Model string }
				_ = json.NewDecoder(r.Body).Decode(&asked)
				if asked.Model != strings.Trim(tt.serves, "-") {
					http.Error(w, `{"error":{"message":"this is not a chat model"}}`, 400)
					return
				}
				sse(good)(w, r)
			}))
			defer srv.Close()
			c := made(Config{BaseURL: srv.URL})
			err := c.Preflight(t.Context(), prompt)
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) || err == nil && c.Model() != tt.model {
				t.Errorf("model %q, %v; want %q, %q", c.Model(), err, tt.model, tt.err)
			}
		})
	}
}

// If no answer comes, the error says why and what to do about it.
func TestWhatKeepsAnAnswer(t *testing.T) {
	secure := httptest.NewTLSServer(sse(good))
	defer secure.Close()
	clear := httptest.NewServer(sse(good))
	defer clear.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // waits for more input, like servers in Python
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	go func() {
		for {
			c, err := silent.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, c); c.Close() }()
		}
	}()
	wrongName := strings.Replace(secure.URL, "127.0.0.1", "localhost", 1)
	for _, tt := range []struct{ name, url, ca, says string }{
		{"not trusted", secure.URL, "", "pass the PEM file of the authority that signed it with --ca-file"},
		{"another authority is trusted", secure.URL, otherAuthority(t), "did not sign it"},
		{"another name", wrongName, caFile(t, secure), "not for the requested localhost (use an address with a name in its certificate"},
		{"http to a TLS port", strings.Replace(secure.URL, "https", "http", 1), "", "https://"},
		{"https to a clear port", strings.Replace(clear.URL, "http", "https", 1), "", "use an http:// address"},
		{"a redirect", redirecting(t), "", "use the address that it redirects to"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := prompt
			err := made(Config{BaseURL: tt.url, Model: "m", CAFile: tt.ca}).Preflight(t.Context(), p)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, which should say %q", err, tt.says)
			}
		})
	}
}

func redirecting(t *testing.T) string {
	srv := httptest.NewServer(http.RedirectHandler("https://elsewhere.example/v1/chat/completions", http.StatusMovedPermanently))
	t.Cleanup(srv.Close)
	return srv.URL
}

// A proxy in the environment is used; if it cannot be, the error says why.
func TestProxies(t *testing.T) {
	var through atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Host == "llm.example.test" {
			through.Add(1)
		}
		sse(good)(w, r)
	}))
	defer proxy.Close()
	t.Setenv("HTTP_PROXY", strings.Replace(proxy.URL, "http://", "http://me:secret@", 1))
	t.Setenv("NO_PROXY", "direct.example.test")
	c := made(Config{BaseURL: "http://llm.example.test", Model: "m"})
	if row := c.Do(t.Context(), prompt, recording.NewClock(), 1); !row.OK() || through.Load() != 1 || !strings.Contains(c.Proxy(), "http://me:") || strings.Contains(c.Proxy(), "secret") {
		t.Errorf("%s, %d through %s", row.ErrorText, through.Load(), c.Proxy())
	}
	for name, cfg := range map[string]Config{
		"gRPC":               {BaseURL: "grpc://llm.example.test:1"},
		"HTTP/2 without TLS": {BaseURL: "http://llm.example.test", HTTP: "2"},
		"breaks the network": {BaseURL: "http://llm.example.test", Via: "127.0.0.1:1"},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "NO_PROXY") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, direct := range []string{"http://127.0.0.1:1", "http://direct.example.test"} {
		if c := made(Config{BaseURL: direct}); c.Proxy() != "" {
			t.Errorf("%s goes through %s", direct, c.Proxy())
		}
	}
}

// otherAuthority writes the certificate of an authority that signed no other
// certificate.
func otherAuthority(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "other"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "other.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
