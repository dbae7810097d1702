package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Many streams share a connection to each replica. One replica hangs and
// another is killed. Every client gets its own complete answer, or its
// beginning and an error. No client gets foreign or repeated tokens or an end
// without an error.
func TestStreamsStayApartWhileReplicasFail(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("skipped: processes are stopped and gone on with as on Linux")
	}
	path, dir := build(t), t.TempDir()
	serve := func(addr, metrics string) *program {
		return start(t, path, "serve", "--addr", addr, "--metrics-addr", metrics, "--grpc-addr", "", "--threads", "1", "--device", "cpu", "--device-file", filepath.Join(dir, "device.json"))
	}
	var addrs, metrics [2]string
	var replicas [2]*program
	for i := range replicas {
		addrs[i], metrics[i] = freeAddress(t), freeAddress(t)
		replicas[i] = serve(addrs[i], metrics[i])
	}
	frontEnd, status := freeAddress(t), freeAddress(t)
	start(t, path, "gateway", "--addr", frontEnd, "--metrics-addr", status, "--replica", "a=http://"+addrs[0], "--replica", "b=http://"+addrs[1])
	for _, addr := range append(addrs[:], frontEnd) {
		waitFor(t, "http://"+addr+"/ready")
	}
	const clients = 12
	var want [clients]string
	for i := range want {
		a, how := answerOf(t, frontEnd, i)
		if how != "" || a == "" {
			t.Fatalf("before anything failed: %q %s", a, how)
		}
		want[i] = a
	}
	var mu sync.Mutex
	whole, broken := 0, 0
	stop := make(chan struct{})
	var asking sync.WaitGroup
	for i := range clients {
		asking.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				got, how := answerOf(t, frontEnd, i)
				mu.Lock()
				switch {
				case how == "" && got == want[i]:
					whole++
				case how != "" && strings.HasPrefix(want[i], got):
					broken++
				default:
					t.Errorf("client %d got\n%q, and should have\n%q (%s)", i, got, want[i], how)
				}
				mu.Unlock()
			}
		})
	}
	time.Sleep(500 * time.Millisecond)
	_ = replicas[0].cmd.Process.Signal(syscall.SIGSTOP)
	time.Sleep(1500 * time.Millisecond)
	_ = replicas[0].cmd.Process.Signal(syscall.SIGCONT)
	waitFor(t, "http://"+addrs[0]+"/ready")
	time.Sleep(500 * time.Millisecond)
	replicas[1].kill()
	time.Sleep(300 * time.Millisecond)
	serve(addrs[1], metrics[1])
	waitFor(t, "http://"+addrs[1]+"/ready")
	time.Sleep(500 * time.Millisecond)
	close(stop)
	asking.Wait()
	if whole < 3*clients {
		t.Errorf("only %d whole answers", whole)
	}
	t.Logf("%d whole answers, %d that broke off and said so", whole, broken)
}

// answerOf asks the question of one client. how is the failure that the client saw,
// and is empty after a complete answer.
func answerOf(t *testing.T, frontEnd string, client int) (text, how string) {
	resp, body, err := ask(t.Context(), "http://"+frontEnd+"/v1/chat/completions", "", fmt.Sprintf(`{"messages":[{"role":"user","content":"Client %d asks about the number %d."}],"max_tokens":48,"temperature":0,"stream":true}`, client, 7*client))
	switch {
	case resp == nil:
		return "", err.Error()
	case resp.StatusCode != 200:
		return "", resp.Status
	}
	done := false
	for line := range strings.Lines(body) {
		data, is := strings.CutPrefix(strings.TrimSpace(line), "data: ")
		var event struct {
			Error   json.RawMessage
			Choices []struct{ Delta struct{ Content string } }
		}
		switch {
		case !is:
		case data == "[DONE]":
			done = true
		case json.Unmarshal([]byte(data), &event) != nil: // the stream broke inside an event
		case len(event.Error) > 0:
			how = string(event.Error)
		case len(event.Choices) > 0:
			text += event.Choices[0].Delta.Content
		}
	}
	if err != nil && how == "" {
		how = err.Error()
	}
	if !done && how == "" {
		t.Errorf("client %d: the stream ended in silence after %q", client, text)
		how = "silence"
	}
	return text, how
}
