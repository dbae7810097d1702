package client

import (
	"bufio"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

const goodResponse = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"a\"}\n\n" +
	"event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"status\":\"completed\",\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\n"

// The API defines where an answer ends, whatever the service does with the connection.
// Later data is counted, and is no part of the answer.
func TestAnAnswerEndsWithItsEnd(t *testing.T) {
	later := `data: {"choices":[{"delta":{"content":"more"},"finish_reason":"length"}]}` + "\n\n"
	for _, tt := range []struct {
		says, api, answer, after string
		stays                    time.Duration // how long the body stays open; 0: it ends with the answer
		left, more               int64
		class                    string
	}{
		{"the body ends with it", APIChat, good, "", 0, 0, 0, ""},
		{"the body stays open", APIChat, good, "", 3 * time.Second, 1, 0, ""},
		{"a response, and the body stays open", APIResponses, goodResponse, "", 3 * time.Second, 1, 0, ""},
		{"[DONE] after a response's end is no more", APIResponses, goodResponse, "data: [DONE]\n\n", 0, 0, 0, ""},
		{"more comes, and the body ends", APIChat, good, later, 0, 0, 1, ""},
		{"more comes without end", APIChat, good, strings.Repeat(later, 4<<10), 3 * time.Second, 1, 1, ""},
		{"an error is an end too", APIChat, "data: {\"error\":{\"message\":\"overloaded\"}}\n\n", "", 3 * time.Second, 1, 0, recording.ErrorInBand},
		{"an end without a finish reason is no good one", APIChat, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: [DONE]\n\n", "", 3 * time.Second, 1, 0, recording.ErrorTruncated},
	} {
		t.Run(tt.says, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = io.WriteString(w, tt.answer+tt.after)
				w.(http.Flusher).Flush()
				select {
				case <-time.After(tt.stays):
				case <-r.Context().Done():
				}
			}))
			defer srv.Close()
			c := made(Config{BaseURL: srv.URL, Model: "m"})
			p := prompt
			p.API = tt.api
			row := c.Do(t.Context(), p, recording.NewClock(), 1)
			if row.Error != tt.class || row.End-row.Sent > time.Second || tt.class == "" && row.OutputTokens != 1 {
				t.Errorf("%q (%s) after %s with %d tokens", row.Error, row.ErrorText, row.End-row.Sent, row.OutputTokens)
			}
			if tt.class == recording.ErrorTruncated && !strings.Contains(row.ErrorText, "finish reason") {
				t.Errorf("%s", row.ErrorText)
			}
			if left, more := c.AfterEnd(); left != tt.left || more != tt.more {
				t.Errorf("%d connections left open and %d answers with more, want %d and %d", left, more, tt.left, tt.more)
			}
		})
	}
}

// closing serves the requests of a connection one after the other, as raw bytes; n
// counts them from 1.
func closing(t *testing.T, serve func(c net.Conn, in *bufio.Reader, n int)) string {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lis.Close() })
	var requests atomic.Int64
	go func() {
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in := bufio.NewReader(c)
				for {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					serve(c, in, int(requests.Add(1)))
				}
			}()
		}
	}()
	return "http://" + lis.Addr().String()
}

func rawAnswer(c net.Conn) {
	fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n%s", len(good), good)
}

// A kept connection that the service closed while it was idle is no error of the
// service. A connection that breaks after the service had time to read the request is
// one.
func TestKeptConnectionsThatWereClosed(t *testing.T) {
	reset := func(c net.Conn) {
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	for _, tt := range []struct {
		says  string
		serve func(c net.Conn, in *bufio.Reader, n int)
		stale int64
		class string
	}{
		{"closed before the answer, at once", func(c net.Conn, _ *bufio.Reader, n int) {
			if n == 2 {
				reset(c)
				return
			}
			rawAnswer(c)
		}, 1, ""},
		{"closed politely, at once", func(c net.Conn, _ *bufio.Reader, n int) {
			if n == 2 {
				c.Close()
				return
			}
			rawAnswer(c)
		}, 1, ""},
		{"closed when the request had been worked on", func(c net.Conn, _ *bufio.Reader, n int) {
			if n == 2 {
				time.Sleep(300 * time.Millisecond)
				reset(c)
				return
			}
			rawAnswer(c)
		}, 0, recording.ErrorConnect},
		{"closed when a part of the answer had come", func(c net.Conn, _ *bufio.Reader, n int) {
			if n == 2 {
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Ty")
				c.Close()
				return
			}
			rawAnswer(c)
		}, 0, recording.ErrorConnect},
		{"closed on a connection of its own", func(c net.Conn, _ *bufio.Reader, n int) {
			if n >= 2 { // the second request meets a kept connection, and then a new one
				reset(c)
				return
			}
			rawAnswer(c)
		}, 1, recording.ErrorConnect},
	} {
		t.Run(tt.says, func(t *testing.T) {
			c := made(Config{BaseURL: closing(t, tt.serve), Model: "m"})
			if row := c.Do(t.Context(), prompt, recording.NewClock(), 1); !row.OK() {
				t.Fatalf("the first: %s", row.ErrorText)
			}
			time.Sleep(5 * time.Millisecond)
			row := c.Do(t.Context(), prompt, recording.NewClock(), 1)
			if row.Error != tt.class || c.Stale() != tt.stale {
				t.Errorf("%q (%s) with %d stale connections, want %q with %d", row.Error, row.ErrorText, c.Stale(), tt.class, tt.stale)
			}
		})
	}
}

// A write on a closed kept connection is sent again. A write that the service had time
// to work on is not.
func TestWritesOnKeptConnectionsThatWereClosed(t *testing.T) {
	for _, tt := range []struct {
		says         string
		takes        time.Duration // time before the second write is cut off
		stale, asked int64
		class        string
	}{
		{"closed before", 0, 1, 3, ""},
		{"closed when it had been worked on", 300 * time.Millisecond, 0, 2, recording.ErrorConnect},
	} {
		t.Run(tt.says, func(t *testing.T) {
			var asked atomic.Int64
			c := made(Config{Model: "m", BaseURL: closing(t, func(c net.Conn, _ *bufio.Reader, n int) {
				if asked.Store(int64(n)); n == 2 {
					time.Sleep(tt.takes)
					_ = c.(*net.TCPConn).SetLinger(0)
					c.Close()
					return
				}
				answer := fmt.Sprintf(`{"id":"resp_%d","status":"queued","background":true}`, n)
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
			})})
			clock := recording.NewClock()
			if row := c.Write(t.Context(), prompt, "1", clock, 1); row.Error != "" || row.Record != "resp_1" {
				t.Fatalf("the first: %+v", row)
			}
			time.Sleep(5 * time.Millisecond)
			row := c.Write(t.Context(), prompt, "2", clock, 1)
			if row.Error != tt.class || c.Stale() != tt.stale || asked.Load() != tt.asked || tt.class == "" && row.Record != "resp_3" {
				t.Errorf("%q (%s) as %q with %d stale connections and %d requests", row.Error, row.ErrorText, row.Record, c.Stale(), asked.Load())
			}
		})
	}
}

// A service that closes an idle connection at the moment at which the next request
// comes causes no error.
func TestIdleConnectionsAreClosedUnderRequests(t *testing.T) {
	const idle = 20 * time.Millisecond
	url := closing(t, func(c net.Conn, _ *bufio.Reader, _ int) {
		rawAnswer(c)
		_ = c.SetReadDeadline(time.Now().Add(idle))
	})
	c := made(Config{BaseURL: url, Model: "m"})
	clock := recording.NewClock()
	for i := range 60 {
		row := c.Do(t.Context(), prompt, clock, 1)
		if !row.OK() {
			t.Fatalf("request %d: %s: %s", i, row.Error, row.ErrorText)
		}
		time.Sleep(idle - 500*time.Microsecond + time.Duration(i%10)*100*time.Microsecond)
	}
}

// A hostile target costs a bounded amount of memory and time, and the error describes
// it.
func TestHostileTargets(t *testing.T) {
	endless := func(kind, piece string, encode bool) func(net.Conn, *bufio.Reader, int) {
		return func(c net.Conn, _ *bufio.Reader, _ int) {
			head := "HTTP/1.1 200 OK\r\nConnection: close\r\n"
			if kind != "" {
				head += "Content-Type: " + kind + "\r\n"
			}
			if encode {
				head += "Content-Encoding: gzip\r\n"
			}
			_, err := fmt.Fprint(c, head)
			if kind != "" {
				_, err = fmt.Fprint(c, "\r\n")
			}
			var out io.Writer = c
			if encode {
				out, _ = gzip.NewWriterLevel(c, gzip.BestSpeed)
			}
			for lump := strings.Repeat(piece, 1+(64<<10)/len(piece)); err == nil; {
				_, err = io.WriteString(out, lump)
			}
		}
	}
	for _, tt := range []struct {
		name  string
		serve func(net.Conn, *bufio.Reader, int)
		class string
		says  string
	}{
		{"headers without end", endless("", "X-A: "+strings.Repeat("a", 1000)+"\r\n", false), recording.ErrorConnect, "headers exceeded"},
		{"an event without end", endless("text/event-stream", "data: "+strings.Repeat("x", 1<<10), false), recording.ErrorProtocol, "8 MiB"},
		{"an event of lines without end", endless("text/event-stream", "data: x\n", false), recording.ErrorProtocol, "8 MiB"},
		{"an event without end, in gzip", endless("text/event-stream", "data: "+strings.Repeat("x", 1<<10), true), recording.ErrorProtocol, "8 MiB"},
		{"an object without end", endless("application/json", `{"a":1,`, false), recording.ErrorProtocol, "larger than 32 MiB"},
		{"an object without end, in gzip", endless("application/json", strings.Repeat(" ", 1<<10), true), recording.ErrorProtocol, "larger than 32 MiB"},
		{"chunks without end", endless("text/event-stream", "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n", false), recording.ErrorProtocol, "no end"},
		{"words that paint over a terminal", func(c net.Conn, _ *bufio.Reader, _ int) {
			said := "{\"error\":{\"message\":\"\\u001b[2J\\u001b[31mquota\\u0000 \\u202egone ]]> <b>\"}}"
			fmt.Fprintf(c, "HTTP/1.1 500 Oops\x1b[2J\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(said), said)
		}, recording.ErrorStatus, `\x1b[2J\x1b[31mquota\x00 \u202egone ]]> <b>`},
		{"a finish reason and a name as long as a book", func(c net.Conn, _ *bufio.Reader, _ int) {
			said := "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"" + strings.Repeat("stop\\u001b", 4<<10) + "\"}]}\n\ndata: [DONE]\n\n"
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Launchgate-Replica: %s\r\nX-Launchgate-Retries: -99999999999\r\nContent-Length: %d\r\n\r\n%s", strings.Repeat("r", 4<<10), len(said), said)
		}, recording.ErrorFinish, "the answer ended with the finish reason"},
		{"a redirect to elsewhere", func(c net.Conn, _ *bufio.Reader, _ int) {
			fmt.Fprint(c, "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://192.0.2.1/login\r\nContent-Length: 0\r\n\r\n")
		}, recording.ErrorStatus, `307 Temporary Redirect (it redirects to http://192.0.2.1/login)`},
		{"a page", func(c net.Conn, _ *bufio.Reader, _ int) {
			page := "<!DOCTYPE html><html><head><title>502 Bad Gateway</title><style>h1{}</style></head><body><h1>Bad Gateway</h1><script>alert(1)</script>nginx</body></html>"
			fmt.Fprintf(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s", len(page), page)
		}, recording.ErrorStatus, "502 Bad Gateway: 502 Bad Gateway Bad Gateway nginx"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := prompt
			p.Timeout = 30 * time.Second
			p.Stream = !strings.Contains(tt.name, "object")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			row := made(Config{BaseURL: closing(t, tt.serve), Model: "m"}).Do(ctx, p, recording.NewClock(), 1)
			if row.Error != tt.class || !strings.Contains(row.ErrorText, tt.says) {
				t.Errorf("%q (%s), want %q with %q", row.Error, row.ErrorText, tt.class, tt.says)
			}
			for _, kept := range []string{row.ErrorText, row.FinishReason, row.Replica} {
				if strings.ContainsAny(kept, "\x1b\x00\u202e") || len(kept) > maxSaid+100 {
					t.Errorf("it is kept as %.400q", kept)
				}
			}
			if row.Retries < 0 {
				t.Errorf("%d retries", row.Retries)
			}
		})
	}
}

// The workload says which finish reasons are no error.
func TestFinishReasons(t *testing.T) {
	for _, tt := range []struct {
		reason, class string
		allowed       []string
	}{
		{"stop", "", nil},
		{"length", "", nil},
		{"tool_calls", "", nil},
		{"function_call", "", nil},
		{"abort", recording.ErrorFinish, nil},
		{"error", recording.ErrorFinish, nil},
		{"content_filter", recording.ErrorFinish, nil},
		{"content_filter", "", []string{"stop", "content_filter"}},
		{"length", recording.ErrorFinish, []string{"stop"}},
		{"because", recording.ErrorFinish, nil},
		{"because", "", []string{"because"}},
	} {
		for _, stream := range []bool{true, false} {
			p := prompt
			p.Stream, p.Finish = stream, tt.allowed
			row := do(t, p, func(w http.ResponseWriter, r *http.Request) {
				if stream {
					sse("data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\""+tt.reason+"\"}]}\n\ndata: [DONE]\n\n")(w, r)
					return
				}
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprintf(w, `{"choices":[{"message":{"content":"a"},"finish_reason":%q}],"usage":{"completion_tokens":1}}`, tt.reason)
			})
			if row.Error != tt.class || row.FinishReason != tt.reason || tt.class != "" && !strings.Contains(row.ErrorText, tt.reason) {
				t.Errorf("%s where %v are allowed, streamed %t: %q (%s)", tt.reason, tt.allowed, stream, row.Error, row.ErrorText)
			}
		}
	}
}

// Errors come in many formats, and the sentence in each is found.
func TestErrorTexts(t *testing.T) {
	for body, want := range map[string]string{
		`{"error":{"message":"no such model","type":"x"}}`:                     "no such model",
		`{"error":"overloaded"}`:                                               "overloaded",
		`{"object":"error","message":"too long","code":400}`:                   "too long",
		`{"detail":"Not Found"}`:                                               "Not Found",
		`{"detail":[{"loc":["body","max_tokens"],"msg":"field required"}]}`:    "field required",
		`[{"error":{"code":404,"message":"Requested entity was not found."}}]`: "Requested entity was not found.",
		`{"errors":[{"message":"bad"}]}`:                                       "bad",
		`{"title":"Bad Request","detail":"n is out of range"}`:                 "n is out of range",
		`{"a":1}`:        `{"a":1}`,
		`null`:           "null",
		"plain\n  words": "plain words",
		"<html><head><title>Sign in</title></head><body></body></html>":        "Sign in",
		`{"error":{"error":{"error":{"error":{"error":{"message":"deep"}}}}}}`: `{"error":{"error":{"error":{"error":{"error":{"message":"deep"}}}}}}`,
		`{"error":{"code":"x","message":""},"message":"outer"}`:                "outer",
		"\x1b]0;title\a" + `{"error":`:                                         `\x1b]0;title\x07{"error":`,
	} {
		if got := errorText([]byte(body)); got != want {
			t.Errorf("%s says %q, want %q", body, got, want)
		}
	}
}

func FuzzErrorText(f *testing.F) {
	f.Add([]byte(`{"error":{"message":"x"}}`))
	f.Add([]byte("<html><script>\x1b</html>"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := errorText(b)
		if len(got) > maxSaid+8 || strings.ContainsAny(got, "\x1b\x00\r\n\u202e") {
			t.Fatalf("%q says %q", b, got)
		}
	})
}
