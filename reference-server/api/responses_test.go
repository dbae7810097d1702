package api

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/reference-server/engine"
)

type responseObject struct {
	ID, Object, Status, Model string
	Output                    []struct {
		Role    string
		Content []struct{ Type, Text string }
	}
	Usage *struct {
		Input  int `json:"input_tokens"`
		Output int `json:"output_tokens"`
	}
	Incomplete *struct{ Reason string } `json:"incomplete_details"`
}

func send(t *testing.T, method, url, body string) (int, responseObject) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var o responseObject
	b, _ := io.ReadAll(resp.Body)
	if err := json.Unmarshal(b, &o); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return resp.StatusCode, o
}

const respondBody = `{"model":"tiny","input":"Tell me about the sea.","max_output_tokens":24,"temperature":0`

// A response has the same text as a chat: whole, streamed, and in the
// background.
func TestResponsesSayWhatChatsSay(t *testing.T) {
	srv, pool, _ := serving(t, engine.Config{})
	_ = pool
	_, b := post(t, srv.URL+"/v1/chat/completions", ask+"}")
	var chat whole
	if err := json.Unmarshal(b, &chat); err != nil {
		t.Fatal(err)
	}
	want := chat.Choices[0].Message.Content
	code, o := send(t, "POST", srv.URL+"/v1/responses", respondBody+"}")
	if code != 200 || o.Status != "incomplete" || o.Incomplete.Reason != "max_output_tokens" || o.Output[0].Content[0].Text != want || o.Usage.Output != 24 {
		t.Errorf("%d %+v, want %q", code, o, want)
	}
	if _, o := send(t, "POST", srv.URL+"/v1/responses", strings.Replace(respondBody, `"Tell me about the sea."`, `[{"role":"user","content":[{"type":"input_text","text":"Tell me about the sea."}]}]`, 1)+"}"); o.Output[0].Content[0].Text != want {
		t.Errorf("by parts: %+v", o)
	}

	resp, err := http.Post(srv.URL+"/v1/responses", "application/json", strings.NewReader(respondBody+`,"stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	var text string
	var kinds []string
	for line := range strings.Lines(string(body)) {
		var ev struct {
			Type, Delta string
			Sequence    int `json:"sequence_number"`
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok && json.Unmarshal([]byte(data), &ev) == nil {
			if ev.Sequence != len(kinds) {
				t.Errorf("event %d has the number %d", len(kinds), ev.Sequence)
			}
			kinds, text = append(kinds, ev.Type), text+ev.Delta
		}
	}
	if text != want || kinds[0] != "response.created" || kinds[len(kinds)-1] != "response.incomplete" {
		t.Errorf("streamed %q by %v", text, kinds)
	}

	code, o = send(t, "POST", srv.URL+"/v1/responses", respondBody+`,"background":true}`)
	if code != 200 || o.Status != "queued" || o.ID == "" {
		t.Fatalf("%d %+v", code, o)
	}
	for deadline := time.Now().Add(30 * time.Second); o.Status == "queued" || o.Status == "in_progress"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", o)
		}
		_, o = send(t, "GET", srv.URL+"/v1/responses/"+o.ID, "")
	}
	if o.Status != "incomplete" || o.Output[0].Content[0].Text != want {
		t.Errorf("%+v", o)
	}
	if code, _ := send(t, "DELETE", srv.URL+"/v1/responses/"+o.ID, ""); code != 200 {
		t.Errorf("delete: %d", code)
	}
	if code, _ := send(t, "GET", srv.URL+"/v1/responses/"+o.ID, ""); code != 404 {
		t.Errorf("after it was deleted: %d", code)
	}
}

func TestBackgroundResponseIsCancelled(t *testing.T) {
	srv, _, e := serving(t, engine.Config{Threads: 1})
	long := strings.Replace(respondBody, `"max_output_tokens":24`, `"max_output_tokens":900`, 1) + `,"background":true}`
	_, o := send(t, "POST", srv.URL+"/v1/responses", long)
	if _, c := send(t, "POST", srv.URL+"/v1/responses/"+o.ID+"/cancel", ""); c.Status != "cancelled" && c.Status != "completed" {
		t.Errorf("%+v", c)
	}
	for deadline := time.Now().Add(30 * time.Second); e.Stats().Running > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is still computed")
		}
	}
	if _, c := send(t, "GET", srv.URL+"/v1/responses/"+o.ID, ""); c.Status != "cancelled" && c.Status != "completed" {
		t.Errorf("%+v", c)
	}
}

func TestBadResponses(t *testing.T) {
	srv, _, _ := serving(t, engine.Config{})
	for _, body := range []string{`{}`, `{"input":5}`, `{"input":[{"type":"function_call"}]}`, `{"input":"x","tools":[{}]}`, `{"input":"x","stream":true,"background":true}`, `{"input":"x","previous_response_id":"r"}`, `{"input":"x","model":"other"}`} {
		resp, b := post(t, srv.URL+"/v1/responses", body)
		if resp.StatusCode != 400 && resp.StatusCode != 404 {
			t.Errorf("%s: %s %s", body, resp.Status, b)
		}
	}
}
