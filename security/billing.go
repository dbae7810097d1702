package security

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

var billing = Check{
	Name:    "billing",
	Asks:    "whether usage is billed when the request is spelled in an unusual way or the client leaves early",
	Control: "an ordinary streamed answer has a usage record with its tokens, found by its X-Request-Id",
	Flaw:    "twice, an answer with text has no usage record within five seconds, or one with no output tokens",
	Planted: "test service and reference server: usage-by-exact-key, usage-only-at-end",
	Cap:     Cap{Requests: 1200, Seconds: 90, Bytes: 16 << 20},
	worst:   "CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:U/C:N/I:H/A:L",
	run:     runBilling,
}

// streamed is the part of a stream that was read.
type streamed struct {
	id     string
	pieces int // number of chunks with text
	text   string
	usage  *usage
	status int
	sent   request
	err    error
}

// stream sends a request, reads up to so many chunks of text (0: all) and closes the
// connection.
func (t *trial) stream(ctx context.Context, r request, pieces int) streamed {
	out := streamed{sent: r}
	l, err := t.dial(ctx, t.next(), "http/1.1")
	if err != nil {
		out.err = err
		return out
	}
	defer l.Close()
	if pieces == 0 {
		r.close = true
		a := l.send(ctx, r)
		out.status, out.id, out.err = a.status, a.header.Get("X-Request-Id"), a.err
		for line := range strings.Lines(string(a.body)) {
			out.event(line)
		}
		if c, ok := a.parsed(); ok && out.text == "" { // the answer was not streamed
			out.text, out.usage = c.text(), c.Usage
			out.pieces = min(1, len(out.text))
		}
		return out
	}
	_ = l.SetDeadline(time.Now().Add(replyTimeout))
	stop := context.AfterFunc(ctx, func() { l.SetDeadline(time.Now()) })
	defer stop()
	if _, out.err = l.Write(t.wire(r)); out.err != nil {
		return out
	}
	for out.pieces < pieces {
		line, err := l.in.ReadString('\n')
		if err != nil {
			break // a short answer may end before
		}
		if status, ok := strings.CutPrefix(line, "HTTP/1.1 200"); ok && status != "" {
			out.status = 200
		}
		if name, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(name, "X-Request-Id") {
			out.id = strings.TrimSpace(value)
		}
		out.event(line)
	}
	return out
}

// event takes a line of a stream.
func (s *streamed) event(line string) {
	data, ok := strings.CutPrefix(strings.TrimSpace(line), "data:")
	if !ok {
		return
	}
	var e struct {
		Choices []struct {
			Text  string `json:"text"`
			Delta struct {
				Content   string `json:"content"`
				Reasoning string `json:"reasoning_content"`
			} `json:"delta"`
		} `json:"choices"`
		Delta json.RawMessage `json:"delta"`
		Usage *usage          `json:"usage"`
	}
	if json.Unmarshal([]byte(data), &e) != nil {
		return
	}
	if e.Usage != nil {
		s.usage = e.Usage
	}
	text := ""
	for _, c := range e.Choices {
		text += c.Delta.Content + c.Delta.Reasoning + c.Text
	}
	if text != "" {
		s.pieces++
		s.text += text
	}
}

// billedWithin is how long a usage record may take to appear.
const billedWithin = 5 * time.Second

// billed are the output tokens that the service has recorded for a request, and whether
// the question was answered; -1 tokens: there is no record.
func (t *trial) billed(ctx context.Context, id string) (tokens int64, answered bool) {
	path := strings.ReplaceAll(orElse(t.Scan.Usage, "/v1/usage/{id}"), "{id}", url.PathEscape(id))
	a := t.ask(ctx, request{method: "GET", path: path, key: t.target.Key})
	return usedTokens(a), a.err == nil && !a.limited()
}

// usageTry is a request whose answer has to be billed.
type usageTry struct {
	kind   string
	sent   request
	pieces int // pieces of text after which the client leaves; 0: it reads all
}

// unbilled sends the requests, one after the other, and returns how many were answered
// with text, those of them that have no usage record in time, and of how many this is
// not known. All records are waited for together, because each may take as long as it is
// allowed to. Only a question that was sent after the time tells that there is none.
func (t *trial) unbilled(ctx context.Context, tries []usageTry) (answered int, missing []usageTry, unknown int) {
	type pending struct {
		try  usageTry
		id   string
		till time.Time
	}
	var waiting []*pending
	for _, try := range tries {
		s := t.stream(ctx, try.sent, try.pieces)
		if s.err != nil || s.status != 200 || s.pieces == 0 || s.id == "" || s.pieces < try.pieces {
			continue // without an answer there is nothing to bill
		}
		answered++
		waiting = append(waiting, &pending{try: try, id: s.id, till: time.Now().Add(billedWithin)})
	}
	for len(waiting) > 0 {
		var later []*pending
		for _, p := range waiting {
			asked := time.Now()
			n, ok := t.billed(ctx, p.id)
			switch {
			case ctx.Err() != nil || t.capped():
				return answered, nil, 0
			case n > 0:
			case asked.Before(p.till), !ok && asked.Before(p.till.Add(billedWithin)):
				later = append(later, p)
			case ok:
				missing = append(missing, p.try)
			default:
				unknown++
			}
		}
		if waiting = later; len(waiting) > 0 && !sleep(ctx, 500*time.Millisecond) {
			return answered, nil, 0
		}
	}
	return answered, missing, unknown
}

func runBilling(ctx context.Context, t *trial) end {
	if t.target.Key == "" || !t.chat {
		return unproven("no key was given, or the service does not chat, so there is nobody to bill")
	}
	body := func(more string) string {
		return t.message("Count from one to one hundred, in words.", `"max_tokens":48,"temperature":0`+comma(more))
	}
	ask := func(more string) request {
		return request{method: "POST", path: "/v1/chat/completions", key: t.target.Key, body: body(more)}
	}
	const plainStream = `"stream":true`
	control := t.stream(ctx, ask(plainStream), 0)
	switch {
	case control.err != nil || control.text == "":
		return unproven("the control did not get a stream with text")
	case control.id == "":
		return unproven("answers have no X-Request-Id, so their usage cannot be asked for")
	}
	var n int64
	for until := time.Now().Add(billedWithin); n <= 0; {
		n, _ = t.billed(ctx, control.id)
		if n <= 0 && (time.Now().After(until) || !sleep(ctx, 250*time.Millisecond)) {
			return unproven("the usage of the control cannot be read at %s: set the path with usage", orElse(t.Scan.Usage, "/v1/usage/{id}"))
		}
	}
	spelled := []struct{ kind, more string }{
		{"Stream", `"Stream":true`}, {"STREAM", `"STREAM":true`}, {"ſtream (U+017F)", "\"\u017ftream\":true"}, {"stream twice", `"stream":false,"stream":true`},
		{"stream and Stream", `"stream":false,"Stream":true`}, {"escaped stream", `"str\u0065am":true`},
		{"include_usage false", plainStream + `,"stream_options":{"include_usage":false}`},
		{"INCLUDE_USAGE false", plainStream + `,"stream_options":{"include_usage":true,"INCLUDE_USAGE":false}`},
		{"STREAM_OPTIONS", plainStream + `,"STREAM_OPTIONS":{"include_usage":false}`},
		{"stream_options null", plainStream + `,"stream_options":null`},
		{"stream_options twice", plainStream + `,"stream_options":{"include_usage":true},"stream_options":{"include_usage":false}`},
		{"not streamed", `"stream":false`}, {"no stream", ``}, {"n of 2", `"n":2`},
	}
	var tries []usageTry
	for _, s := range spelled {
		tries = append(tries, usageTry{kind: s.kind, sent: ask(s.more)})
	}
	for _, pieces := range []int{1, 12} {
		r := ask(plainStream)
		r.body = strings.Replace(r.body, `"max_tokens":48`, `"max_tokens":160`, 1)
		tries = append(tries, usageTry{kind: "leaving early", sent: r, pieces: pieces})
	}
	answered, missing, unknown := t.unbilled(ctx, tries)
	if answered == 0 {
		return unproven("no spelling of the request got an answer with text")
	}
	_, missing, more := t.unbilled(ctx, missing)
	unknown += more
	var free []string
	var evidence []recording.Exchange
	left := false
	for _, m := range missing {
		switch {
		case m.pieces == 0:
			free = append(free, m.kind)
			evidence = append(evidence, recording.Exchange{Sent: m.sent.shown(), Came: "an answer with text, but no usage record"})
		case !left:
			left = true
			t.foundUnbilled(m.kind, say("usage is not billed when the client leaves before the end"),
				[]recording.Exchange{{Sent: m.sent.shown(), Came: "the connection was closed after " + number(int64(m.pieces)) + " pieces with text, and there is no record of its usage"}})
		}
	}
	if len(free) > 0 {
		t.foundUnbilled("spelling", say("usage is not billed when the request is spelled differently: %s", strings.Join(free, ", ")), evidence[:min(3, len(evidence))])
	}
	if unknown > 0 {
		return unproven("the service did not say whether %s of %s answers have a usage record", number(int64(unknown)), number(int64(answered)))
	}
	return t.ended("%s answers, to requests spelled in %s ways or left early, have a usage record like the control's (%s output tokens)", number(int64(answered)), number(int64(len(spelled))), number(n))
}

func (t *trial) foundUnbilled(kind string, title words.Sentence, evidence []recording.Exchange) {
	t.found(flaw{
		title: title, kind: kind, where: "POST /v1/chat/completions", vector: t.check.worst, tags: []string{"OWASP API6:2023", "OWASP LLM10:2025", "CWE-436"},
		evidence: evidence,
		verified: say("twice, an answer with text had no usage record after five seconds, while the control had one"),
		fix:      say("decode the request once and forward the decoded form; bill what was sent to the client until it left"),
	})
}
