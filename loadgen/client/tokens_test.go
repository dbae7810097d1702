package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// If the service has closed a kept connection, the count is requested again on another
// one, and only then.
func TestCountTokensAfterASilentClose(t *testing.T) {
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, sent := r.Header["Idempotency-Key"]; sent {
			t.Error("the service is told of a key")
		}
		if asked.Add(1) == 2 {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, `{"tokens":[15043,3186]}`)
	}))
	defer srv.Close()
	c := made(Config{BaseURL: srv.URL, Model: "m"})
	for range 2 {
		if n, err := c.CountTokens(context.Background(), "Hello world"); n != 2 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	if asked.Load() != 3 {
		t.Errorf("asked %d times, want 3", asked.Load())
	}
}

// Each service reads the keys that it knows from the same request, and answers in its
// own format.
func TestCountTokens(t *testing.T) {
	for _, tt := range []struct {
		name, reads, answer string
		status, want        int
		none                bool
	}{
		{"vLLM", "prompt", `{"count":3,"max_model_len":4096,"tokens":[1,15043,3186],"token_strs":null}`, 200, 3, false},
		{"SGLang", "prompt", `{"tokens":[15043,3186],"count":2,"max_model_len":4096}`, 200, 2, false},
		{"llama.cpp", "content", `{"tokens":[15043,3186]}`, 200, 2, false},
		{"TGI", "inputs", `[{"id":1,"text":"<s>","start":0,"stop":0},{"id":15043,"text":"Hello","start":0,"stop":5}]`, 200, 2, false},
		{"OpenAI has none", "prompt", `{"error":{"message":"Invalid URL"}}`, 404, 0, true},
		{"something else is there", "prompt", `<html>`, 200, 0, true},
		{"an object of another kind", "prompt", `{"ok":true}`, 200, 0, true},
		{"another method is there", "prompt", `{"detail":"Method Not Allowed"}`, 405, 0, true},
		{"it is not built yet", "prompt", ``, 501, 0, true},
		{"it needs a key", "prompt", `{"error":{"message":"who are you?"}}`, 401, 0, false},
		{"it fails", "prompt", `{"error":{"message":"out of memory"}}`, 500, 0, false},
		{"it counts nothing", "prompt", `{"count":0,"tokens":[]}`, 200, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var asked map[string]any
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if json.NewDecoder(r.Body).Decode(&asked) != nil || r.URL.Path != "/tokenize" || r.Method != http.MethodPost {
					t.Errorf("%s %s", r.Method, r.URL.Path)
				}
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.answer)
			}))
			defer srv.Close()
			n, err := made(Config{BaseURL: srv.URL, Model: "m"}).CountTokens(context.Background(), "Hello world")
			if n != tt.want || (err == nil) != (tt.want > 0) || errors.Is(err, ErrNoTokenizer) != tt.none {
				t.Errorf("%d, %v; want %d", n, err, tt.want)
			}
			if asked[tt.reads] != "Hello world" || asked["model"] != "m" {
				t.Errorf("asked %v; it reads %q", asked, tt.reads)
			}
		})
	}
	if _, err := made(Config{BaseURL: "grpc://127.0.0.1:1"}).CountTokens(context.Background(), "x"); !errors.Is(err, ErrNoTokenizer) {
		t.Errorf("over gRPC: %v", err)
	}
}
