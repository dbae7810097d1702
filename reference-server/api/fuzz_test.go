package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/reference-server/access"
	"github.com/launchgate/launchgate/reference-server/engine"
)

// For any body the server sends an answer or an error in OpenAI's shape, and
// never panics.
func FuzzBody(f *testing.F) {
	for _, b := range []string{
		ask + "}", ask + `,"stream":true,"n":2}`, `{"prompt":[1,2]}`, `{"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}],"stop":["a","b"]}`,
		`{"input":[{"role":"user","content":"x"}]}`, `{"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"object","properties":{"a":{"enum":[1]}}}}},"messages":[{"role":"user","content":"x"}]}`,
	} {
		f.Add("/v1/chat/completions", []byte(b))
		f.Add("/v1/completions", []byte(b))
		f.Add("/v1/responses", []byte(b))
		f.Add("/tokenize", []byte(b))
	}
	pool, err := engine.NewPool([]engine.Config{{Path: "../models/default/default.gguf", Name: model, MaxSequence: 48, Threads: 1}}, quiet)
	if err != nil {
		f.Fatal(err)
	}
	if err := pool.Load(); err != nil {
		f.Fatal(err)
	}
	s := New(pool, access.Policy{}, quiet)
	f.Cleanup(func() { pool.Close(); s.Wait() })
	h := s.Handler()
	f.Fuzz(func(t *testing.T, path string, body []byte) {
		if !strings.HasPrefix(path, "/v1/") && path != "/tokenize" && path != "/detokenize" || strings.ContainsAny(path, " ?#%\x7f") || strings.ContainsFunc(path, func(r rune) bool { return r < '!' || r > '~' }) {
			t.Skip()
		}
		w := httptest.NewRecorder()
		late := time.AfterFunc(20*time.Second, func() { panic(fmt.Sprintf("no answer to %s %q", path, body)) })
		defer late.Stop()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body)))
		if w.Code >= 500 && w.Code != http.StatusServiceUnavailable {
			t.Fatalf("%d: %s", w.Code, w.Body)
		}
		var e struct{ Error struct{ Message string } }
		if w.Code >= 400 && (json.Unmarshal(w.Body.Bytes(), &e) != nil || e.Error.Message == "") && w.Code != http.StatusMethodNotAllowed {
			t.Fatalf("%d: %s", w.Code, w.Body)
		}
	})
}

// Logs say what happened to a request. They never contain its text, at any
// level.
func TestLogsHoldNoPrompts(t *testing.T) {
	var log bytes.Buffer
	pool := newPool(t, engine.Config{Path: "../models/default/default.gguf", Name: model})
	if err := pool.Load(); err != nil {
		t.Fatal(err)
	}
	s := New(pool, access.Policy{}, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	srv := httptest.NewServer(s.Handler())
	for _, body := range []string{
		`{"messages":[{"role":"user","content":"sesame-opens"}],"max_tokens":3}`,
		`{"messages":[{"role":"user","content":"sesame-opens"}],"max_tokens":-3}`,
		`{"messages":[{"role":"sesame-opens","content":"x"}]}`,
		`{"prompt":"sesame-opens`,
	} {
		req, _ := http.NewRequest(http.MethodPost, srv.URL+"/v1/chat/completions", strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer sesame-opens")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	srv.Close()
	pool.Close()
	if strings.Contains(log.String(), "sesame") {
		t.Errorf("the log says:\n%s", log.String())
	}
}
