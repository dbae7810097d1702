package security

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

var logInjection = Check{
	Name:    "log-injection",
	Asks:    "whether a client can inject lines into the logs, or control characters that a terminal interprets",
	Control: "an ordinary request leaves a line in the named log",
	Flaw:    "a log line with the request's canary begins with what the client sent after a line break, is not JSON in a log that otherwise is, or contains a raw control character",
	Planted: "test service and reference server: raw-audit-line",
	Needs:   "the logs (logs)",
	Cap:     Cap{Requests: 80, Seconds: 20, Bytes: 64 << 20},
	worst:   "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:H/A:N",
	asked:   func(s scenarios.Scan) bool { return len(s.Logs) > 0 },
	run:     runLogInjection,
}

// injections are requests that could break a line of a log; %s in them is the start of
// the forged line.
func (t *trial) injections(forged string) []request {
	escaped := strings.NewReplacer("\n", "%0a", "\r", "%0d", "{", "%7b", "}", "%7d", `"`, "%22", " ", "%20", "\u2028", "%e2%80%a8", "\x1b", "%1b").Replace
	inJSON := func(s string) string { return quoted(s) }
	var all []request
	for _, line := range []string{"\n" + forged, "\r\n" + forged, "\u2028" + forged, "\x1b[2K" + forged} {
		all = append(all,
			request{method: "GET", path: "/v1/models" + escaped(line), key: t.target.Key},
			request{method: "GET", path: "/v1/models?x=" + escaped(line), key: t.target.Key},
			request{method: "POST", path: "/v1/chat/completions", key: t.target.Key, body: `{"model":` + inJSON("m"+line) + `,"messages":[{"role":"user","content":"hi"}],"max_tokens":1}`},
			request{method: "POST", path: "/v1/chat/completions", key: t.target.Key, body: `{"model":` + quoted(t.model) + `,"messages":[{"role":"user","content":"hi"}],"max_tokens":1,"user":` + inJSON("u"+line) + `}`},
		)
	}
	for _, line := range []string{"\x1b[2K" + forged, "\u2028" + forged, "\t" + forged} {
		all = append(all,
			request{method: "GET", path: "/v1/models", key: t.target.Key, headers: []string{"User-Agent: x" + line}},
			request{method: "GET", path: "/v1/models", headers: []string{"Authorization: Bearer x" + line}},
			request{method: "GET", path: "/v1/models", key: t.target.Key, headers: []string{"X-Request-Id: x" + line}},
			request{method: "GET", path: "/v1/models", key: t.target.Key, headers: []string{"X-Forwarded-For: x" + line}})
	}
	return all
}

func runLogInjection(ctx context.Context, t *trial) end {
	before := t.sizes()
	if len(before) == 0 {
		return unproven("none of the named logs could be read")
	}
	t.ask(ctx, request{method: "GET", path: "/v1/models", key: t.target.Key})
	t.ask(ctx, request{method: "GET", path: "/v1/" + t.random.letters(8), key: t.target.Key})
	time.Sleep(300 * time.Millisecond)
	structured := map[string]bool{} // logs in which every line is JSON
	written := false
	for path, size := range t.sizes() {
		text := news(path, before[path], maxLogBytes)
		written = written || len(text) > 0
		if whole := news(path, 0, 1<<20); size > 0 && allJSON(whole) {
			structured[path] = true
		}
	}
	if !written {
		return unproven("nothing was written to the named logs during the check, so they are not the logs of this service")
	}
	before = t.sizes()
	canary := t.random.letters(24)
	forged := `{"forged":"` + canary + `"}`
	sent := t.injections(forged)
	for _, r := range sent {
		t.ask(ctx, r)
	}
	time.Sleep(300 * time.Millisecond)
	lines := 0
	for path := range t.sizes() {
		text := news(path, before[path], maxLogBytes)
		for line := range bytes.SplitSeq(text, []byte("\n")) {
			if len(line) > 0 {
				lines++
			}
			if !bytes.Contains(line, []byte(canary)) {
				continue
			}
			raw := bytes.ContainsAny(line, "\x1b\x00") || bytes.Contains(line, []byte("\u2028"))
			begins := bytes.HasPrefix(bytes.TrimLeft(line, "\r "), []byte(`{"forged"`))
			if begins || raw || structured[path] && !json.Valid(line) {
				t.found(flaw{
					title: say("a client can inject lines or control characters into a log"), kind: "line", where: filepath.Base(path), vector: t.check.worst, tags: []string{"OWASP API8:2023", "CWE-117"},
					evidence: []recording.Exchange{{Sent: sent[0].shown(), Came: path + ": " + printable(clip(string(line), 300))}},
					verified: say("the line contains the canary of a request, and it begins with what the client sent, is not JSON in a log that otherwise is, or contains a raw control character"),
					fix:      say("write each entry as JSON with a library that escapes it, and limit its length"),
				})
				return t.ended("")
			}
		}
	}
	return t.ended("%s requests with line breaks and control characters left %s log lines, each intact", number(int64(len(sent))), number(int64(lines)))
}

func allJSON(text []byte) bool {
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	if len(lines) < 2 {
		return false
	}
	for _, line := range lines[:len(lines)-1] { // the last line may be incomplete
		if !json.Valid(line) {
			return false
		}
	}
	return true
}
