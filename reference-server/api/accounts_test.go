package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/reference-server/access"
	"github.com/launchgate/launchgate/reference-server/engine"
)

// usedBy asks for the usage of a gateway's request.
func usedBy(t *testing.T, url, id string) (status, prompt, output int) {
	t.Helper()
	resp, err := http.Get(url + "/usage/" + id)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var told struct {
		ID    string
		Usage struct {
			Prompt int `json:"prompt_tokens"`
			Output int `json:"completion_tokens"`
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&told); err != nil || resp.StatusCode == http.StatusOK && told.ID != id {
		t.Fatalf("%+v %v", told, err)
	}
	return resp.StatusCode, told.Usage.Prompt, told.Usage.Output
}

// The usage of a client that leaves is reported for every kind of request: a
// whole answer, a stream, a response.
func TestWhatIsUsedByWhoLeaves(t *testing.T) {
	srv, _, e := serving(t, engine.Config{})
	long := strings.Replace(ask, `"max_tokens":24`, `"max_tokens":900,"ignore_eos":true`, 1)
	for name, tt := range map[string]struct{ path, body string }{
		"whole":    {"/v1/chat/completions", long + `}`},
		"several":  {"/v1/chat/completions", long + `,"n":3}`},
		"streamed": {"/v1/chat/completions", long + `,"stream":true}`},
		"text":     {"/v1/completions", `{"prompt":"Once upon a time there was","max_tokens":900,"ignore_eos":true}`},
		"response": {"/v1/responses", `{"input":"Tell me a long story of a cat that went to sea","max_output_tokens":900}`},
	} {
		t.Run(name, func(t *testing.T) {
			before := e.Stats().OutputTokens
			ctx, cancel := context.WithCancel(t.Context())
			req, _ := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+tt.path, bytes.NewBufferString(tt.body))
			req.Header.Set(access.HeaderRequest, "req_"+name)
			left := make(chan struct{})
			go func() {
				defer close(left)
				resp, err := http.DefaultClient.Do(req)
				if err == nil {
					<-ctx.Done()
					resp.Body.Close()
				}
			}()
			for deadline := time.Now().Add(time.Minute); e.Stats().OutputTokens < before+5; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("nothing is computed")
				}
			}
			cancel()
			<-left
			status, prompt, output := usedBy(t, srv.URL, "req_"+name)
			computed := int(e.Stats().OutputTokens - before)
			if status != http.StatusOK || prompt < 5 || output < 5 || output > computed {
				t.Errorf("%d: %d tokens of the prompt and %d of the answer are told, and %d were computed", status, prompt, output, computed)
			}
		})
	}
}

// The usage of a complete answer is reported too, and the prompt tokens before
// the answer. Only the last requests are known. An unknown request is an error.
func TestWhatIsUsed(t *testing.T) {
	srv, _, _ := serving(t, engine.Config{})
	for i, body := range []string{ask + `}`, ask + `,"stream":true}`} {
		id := fmt.Sprint("req_", i)
		resp, b := asTenant(t, srv.URL, "/v1/chat/completions", body, map[string]string{access.HeaderRequest: id})
		status, prompt, output := usedBy(t, srv.URL, id)
		if status != http.StatusOK || fmt.Sprint(prompt) != resp.Header.Get(HeaderPrompt) || output != 24 {
			t.Errorf("%d: %d and %d tokens, and the header says %s of %s", status, prompt, output, resp.Header.Get(HeaderPrompt), b)
		}
	}
	if status, _, _ := usedBy(t, srv.URL, "req_9"); status != http.StatusNotFound {
		t.Errorf("a request that never came: %d", status)
	}
	var k accounts
	for i := range accountsKept + 10 {
		r, _ := http.NewRequest(http.MethodPost, "http://replica", nil)
		r.Header.Set(access.HeaderRequest, fmt.Sprint(i))
		k.open(r).close()
	}
	if k.of("9") != nil || k.of("10") == nil || k.order.Len() != accountsKept || len(k.byID) != accountsKept {
		t.Errorf("%d accounts are kept, want the last %d", len(k.byID), accountsKept)
	}
}
