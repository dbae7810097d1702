package security

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

var crash = Check{
	Name:    "crash",
	Asks:    "whether an invalid request crashes its handler, or makes the gateway eject replicas so that others are refused",
	Control: "a harmless request of the same size gets 2xx or 4xx immediately afterwards; another client is served before the check",
	Flaw:    "twice, the connection closes without an answer or the answer is a 5xx, while the harmless request is answered. The request is then sent six times to see whether another client is refused or not served",
	Planted: "test service and reference server: panic-on-max-tokens, eject-on-client-error", Disruptive: true,
	Cap:   Cap{Requests: 1500, Seconds: 240, Bytes: 64 << 20},
	worst: "CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:C/C:N/I:N/A:H",
	run:   runCrash,
}

// odd are requests that a service has to refuse, or answer sensibly.
func (t *trial) odd() []spelling {
	chat := func(kind, more string) spelling {
		return spelling{kind, request{method: "POST", path: "/v1/chat/completions", body: t.message("hi", more)}}
	}
	raw := func(kind, path, body string, headers ...string) spelling {
		return spelling{kind, request{method: "POST", path: path, body: body, headers: headers}}
	}
	m := quoted(t.model)
	ok := t.message("hi", `"max_tokens":2`)
	all := []spelling{
		chat("max_tokens of 2⁶³−1", `"max_tokens":9223372036854775807`), chat("max_tokens of 2⁶³", `"max_tokens":9223372036854775808`), chat("max_tokens of 2³¹−1", `"max_tokens":2147483647`), chat("max_tokens of −1", `"max_tokens":-1`),
		chat("max_tokens of 0", `"max_tokens":0`), chat("max_tokens of 1e400", `"max_tokens":1e400`), chat("max_completion_tokens of 2⁶³−1", `"max_completion_tokens":9223372036854775807`),
		chat("n of 2⁶³−1", `"n":9223372036854775807,"max_tokens":1`), chat("n of −1", `"n":-1,"max_tokens":1`), chat("n of 0", `"n":0,"max_tokens":1`), chat("best_of of 2³¹", `"best_of":2147483648,"max_tokens":1`),
		chat("temperature of 1e308", `"max_tokens":1,"temperature":1e308`), chat("temperature of −1", `"max_tokens":1,"temperature":-1`), chat("top_p of 0", `"max_tokens":1,"top_p":0`), chat("top_k of −2⁶³", `"max_tokens":1,"top_k":-9223372036854775808`),
		chat("seed of 2⁶³", `"max_tokens":1,"seed":9223372036854775808`), chat("logprobs of a million", `"max_tokens":1,"logprobs":true,"top_logprobs":1000000`), chat("top_logprobs of −1", `"max_tokens":1,"logprobs":true,"top_logprobs":-1`),
		chat("logit_bias of unknown tokens", `"max_tokens":1,"logit_bias":{"-1":100,"999999999":-100,"x":1}`), chat("empty stop", `"max_tokens":2,"stop":""`), chat("empty stops", `"max_tokens":2,"stop":["",""]`), chat("repetition_penalty of 0", `"max_tokens":2,"repetition_penalty":0`),
		chat("min_tokens above max_tokens", `"max_tokens":2,"min_tokens":1000000`), chat("priority of 2⁶³", `"max_tokens":2,"priority":9223372036854775807`),
		chat("a schema with a reference to itself", `"max_tokens":2,"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"$ref":"#"}}}`),
		chat("a schema that nothing fulfils", `"max_tokens":2,"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"type":[]}}}`),
		chat("a schema that is a number", `"max_tokens":2,"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":7}}`),
		chat("a schema with an unclosed pattern", `"max_tokens":2,"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"string","pattern":"(((["}}}`),
		chat("an unclosed regular expression", `"max_tokens":2,"guided_regex":"((("`), chat("a grammar without rules", `"max_tokens":2,"guided_grammar":"","grammar":""`),
		chat("a tool without a name", `"max_tokens":2,"tools":[{"type":"function","function":{}}],"tool_choice":{"type":"function","function":{"name":null}}`),
		raw("messages that are none", "/v1/chat/completions", `{"model":`+m+`,"messages":null}`), raw("no messages", "/v1/chat/completions", `{"model":`+m+`,"messages":[]}`),
		raw("a message that is null", "/v1/chat/completions", `{"model":`+m+`,"messages":[null],"max_tokens":2}`), raw("content that is null", "/v1/chat/completions", `{"model":`+m+`,"messages":[{"role":"user","content":null}],"max_tokens":2}`),
		raw("an image that is none", "/v1/chat/completions", `{"model":`+m+`,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}],"max_tokens":2}`),
		raw("text that is no UTF-8", "/v1/chat/completions", `{"model":`+m+`,"messages":[{"role":"user","content":"`+"\xff\xfe\xc0\xaf"+`"}],"max_tokens":2}`),
		raw("half a surrogate", "/v1/chat/completions", `{"model":`+m+`,"messages":[{"role":"user","content":"\ud800"}],"max_tokens":2}`),
		raw("NUL in content", "/v1/chat/completions", `{"model":`+m+`,"messages":[{"role":"user","content":"a\u0000b"}],"max_tokens":2}`),
		raw("a path for a model", "/v1/chat/completions", `{"model":"../../../../etc/passwd","messages":[{"role":"user","content":"hi"}]}`), raw("a model that is a number", "/v1/chat/completions", `{"model":1,"messages":[]}`),
		raw("tokens that are none", "/v1/completions", `{"model":`+m+`,"prompt":[-1,999999999],"max_tokens":2}`), raw("an empty prompt", "/v1/completions", `{"model":`+m+`,"prompt":"","max_tokens":2}`), raw("an empty list of prompts", "/v1/completions", `{"model":`+m+`,"prompt":[],"max_tokens":2}`),
		raw("prompts of empty lists", "/v1/completions", `{"model":`+m+`,"prompt":[[],[]],"max_tokens":2}`), raw("logprobs of a million", "/v1/completions", `{"model":`+m+`,"prompt":"a","logprobs":1000000,"max_tokens":2}`),
		raw("tokens that are none, to text", "/detokenize", `{"model":`+m+`,"tokens":[-1,999999999999]}`), raw("nothing to tokenize", "/tokenize", `{"model":`+m+`}`),
		raw("max_output_tokens of 2⁶³−1", "/v1/responses", `{"model":`+m+`,"input":"hi","max_output_tokens":9223372036854775807}`), raw("input of lists", "/v1/responses", `{"model":`+m+`,"input":[[[]]]}`), raw("an unknown previous response", "/v1/responses", `{"model":`+m+`,"input":"hi","previous_response_id":"resp_x"}`),
		raw("deep JSON", "/v1/chat/completions", strings.Repeat(`{"a":`, 20_000)), raw("deep lists", "/v1/chat/completions", strings.Repeat(`[`, 100_000)), raw("a long number", "/v1/chat/completions", `{"model":`+m+`,"max_tokens":`+strings.Repeat("9", 10_000)+`}`),
		raw("Upgrade: foo", "/v1/chat/completions", ok, "Connection: Upgrade", "Upgrade: foo"), raw("Upgrade: websocket", "/v1/chat/completions", ok, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version: 13"),
		raw("Upgrade: h2c", "/v1/chat/completions", ok, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
		raw("Expect of something else", "/v1/chat/completions", ok, "Expect: 200-maybe"), raw("an unknown Content-Encoding", "/v1/chat/completions", ok, "Content-Encoding: br, gzip, zstd"), raw("a TE header", "/v1/chat/completions", ok, "TE: trailers, deflate;q=0.5"),
		raw("a header of 60 KB", "/v1/chat/completions", ok, "X-Long: "+strings.Repeat("a", 60_000)), raw("a trailer", "/v1/chat/completions", ok, "Trailer: Authorization"),
	}
	// Embedding and other routes have bodies of their own.
	return all
}

func runCrash(ctx context.Context, t *trial) end {
	if !t.chat {
		return unproven("the service does not chat")
	}
	harmless := t.small()
	if a := t.ask(ctx, harmless); !meansCompletion(a) {
		return unproven("the harmless request was not answered")
	}
	if t.ejects(ctx) { // otherwise each of the next requests would have to wait until the replicas are back
		return t.ended("")
	}
	looked := 0
	for _, o := range t.odd() {
		if ctx.Err() != nil {
			break
		}
		r := o.request
		r.key = t.target.Key
		r.within = 15 * time.Second
		looked++
		if broke, _ := t.breaks(ctx, r); !broke {
			continue
		}
		broke, a := t.breaks(ctx, r)
		if !broke {
			continue
		}
		// Six requests are enough for three replicas to be ejected twice each.
		mark := t.others.mark()
		before := t.others.since(max(0, mark-3))
		for range 6 {
			t.once(ctx, r)
		}
		sleep(ctx, 2*time.Second)
		harm := t.others.since(mark)
		tags := []string{"OWASP API4:2023", "CWE-20", "CWE-248"}
		f := flaw{kind: o.kind, where: r.method + " " + r.path, tags: tags, evidence: []recording.Exchange{exchange(r, a)},
			fix: say("check every number against its bounds before using it, answer mistakes of the client with 4xx, and eject a replica only for its own failures")}
		if harm != nil && before != nil && before.Failed == 0 && harm.Failed > 0 {
			f.title, f.vector = say("a request of one client causes the service to refuse others: %s", o.kind), t.check.worst
			f.verified = say("after six such requests, %s of %s requests of another client failed; none failed before", number(int64(harm.Failed)), number(int64(harm.Asked)))
			t.waitServed(ctx)
			t.found(f)
			continue
		}
		f.title = say("a request crashes its handler: %s", o.kind)
		if a.err == nil { // the handler may be well, but counts its client's mistake as its own
			f.title = say("a request is answered as a failure of the service (%s): %s", number(int64(a.status)), o.kind)
		}
		f.vector = "CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:U/C:N/I:N/A:L"
		f.verified = say("twice, the request got a 5xx or a closed connection, and a harmless request immediately afterwards got 2xx; another client was served meanwhile")
		t.found(f)
	}
	if looked == 0 {
		return unproven("no malformed request could be tried between harmless ones")
	}
	return t.ended("%s malformed requests were refused or answered, the harmless request after each was answered, and another client was served throughout", number(int64(looked)))
}

// ejects reports whether requests that are rightly refused with 4xx count as failures
// of the replicas, so that the replicas are ejected.
func (t *trial) ejects(ctx context.Context) bool {
	const many = 8
	r := request{method: "POST", path: "/v1/chat/completions", body: `{"model":` + quoted(t.model) + `,"messages":null}`, key: t.target.Key}
	var refused, last answer
	for range 2 {
		if !meansCompletion(t.ask(ctx, t.small())) {
			return false
		}
		for range many {
			if refused = t.ask(ctx, r); refused.err != nil || refused.status < 400 || refused.status >= 500 {
				break
			}
		}
		for range 3 {
			harmless := t.small()
			harmless.from = t.own()
			if last = t.once(ctx, harmless); last.err != nil || last.status != 502 && last.status != 503 {
				return false
			}
		}
		if !t.waitServed(ctx) {
			return false
		}
	}
	t.found(flaw{title: say("malformed requests of one client cause the service to refuse others"), kind: "ejection", where: r.method + " " + r.path, vector: t.check.worst, tags: []string{"OWASP API4:2023", "CWE-703"},
		evidence: []recording.Exchange{exchange(r, refused), exchange(t.small(), last)},
		verified: say("twice, harmless requests of other addresses were refused after %s malformed ones, and served later", number(many)),
		fix:      say("check every number against its bounds before using it, answer mistakes of the client with 4xx, and eject a replica only for its own failures")})
	return true
}

// breaks sends a request and a harmless one after it. It reports whether the request
// broke the handler, or the service, which had worked before.
func (t *trial) breaks(ctx context.Context, r request) (broke bool, a answer) {
	a = t.ask(ctx, r)
	after := t.ask(ctx, t.small())
	if after.err != nil || after.status >= 500 {
		if !t.waitServed(ctx) {
			return true, a
		}
	}
	closed := a.err != nil && (errors.Is(a.err, io.EOF) || errors.Is(a.err, io.ErrUnexpectedEOF) || errors.Is(a.err, syscall.ECONNRESET))
	failed := a.err == nil && slices.Contains([]int{500, 502, 504}, a.status)
	refusedShape := len(r.headers) > 0 && strings.HasPrefix(r.headers[0], "X-Long") // a header that is too long may end the connection
	return (closed && !refusedShape) || failed, a
}

// waitServed waits until another client is served again.
func (t *trial) waitServed(ctx context.Context) bool {
	for range 45 {
		if a := t.once(ctx, t.small()); meansCompletion(a) {
			return true
		}
		if !sleep(ctx, time.Second) {
			return false
		}
	}
	return false
}
