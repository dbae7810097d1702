package security

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

var leaks = Check{
	Name:    "leaks",
	Asks:    "whether secrets leak: keys and prompts into errors, metrics and logs; stack traces, internal addresses and paths into errors",
	Control: "the request with the canary is answered; where logs are checked, they grew during the check",
	Flaw:    "a random canary of 24 letters, sent in a key, a prompt or a header, appears where it does not belong, plain or encoded; or an error twice contains a stack trace, an internal address or a path",
	Planted: "test service: echo-key, log-prompts, stack-trace; reference server: also inside-errors",
	Cap:     Cap{Requests: 200, Seconds: 40, Bytes: 64 << 20},
	worst:   "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N",
	run:     runLeaks,
}

var leakTags = []string{"OWASP API8:2023", "OWASP LLM02:2025", "CWE-209", "CWE-532"}

// inside are signatures of internal details, which answers must not contain.
var inside = []struct {
	kind    string
	pattern *regexp.Regexp
}{
	{"a stack trace of Python", regexp.MustCompile(`Traceback \(most recent call last\)|File "[^"]+\.py", line \d+`)},
	{"a stack trace of Go", regexp.MustCompile(`goroutine \d+ \[|runtime error: |panic: `)},
	{"a stack trace of Java", regexp.MustCompile(`\bat [\w.$]+\([\w]+\.java:\d+\)`)},
	{"a stack trace of Node.js", regexp.MustCompile(`\bat [^\n]+ \(?(/|node:)[^\n]+:\d+:\d+\)?`)},
	{"a stack trace of Rust", regexp.MustCompile(`thread '[^']+' panicked at`)},
	{"an address of the inside", regexp.MustCompile(`(dial tcp|connect to|connection refused|upstream)[^\n]{0,60}\b(127\.\d+\.\d+\.\d+|10\.\d+\.\d+\.\d+|192\.168\.\d+\.\d+|localhost):\d+`)},
	{"a path of the inside", regexp.MustCompile(`/(usr/(local/)?lib|home/\w+|root|app|opt|workspace)/[\w./-]+\.(py|go|js|so|gguf|safetensors)\b`)},
	{"an error of a database", regexp.MustCompile(`SQLSTATE|sqlite3?\.|SQL logic error|psycopg2?\.|pq: `)},
}

// refusedRequests are requests that a service has to refuse. Most have the canary in
// their bodies.
func (t *trial) refusedRequests(canary string) []request {
	chat := "/v1/chat/completions"
	key := t.target.Key
	post := func(body string) request { return request{method: "POST", path: chat, body: body, key: key} }
	content := quoted(canary)
	return []request{
		post(`{"model":` + quoted(t.model) + `,"messages":"` + canary + `"}`),
		post(`{"model":` + quoted(t.model) + `,"messages":[{"role":"user","content":` + content + `}],"max_tokens":"many"}`),
		post(`{"model":` + quoted(t.model) + `,"messages":[{"role":"user","content":` + content + `}],"temperature":99}`),
		post(`{"model":` + quoted(t.model) + `,"messages":[{"role":"nobody","content":` + content + `}]}`),
		post(`{"model":"../../../` + t.random.letters(6) + `","messages":[{"role":"user","content":` + content + `}]}`),
		post(`{"model":` + quoted(t.model) + `,"messages":[{"role":"user","content":` + content + `}`),
		post(`{"model":` + quoted(t.model) + `,"messages":[{"role":"user","content":{"x":` + content + `}}]}`),
		post(`{"model":` + quoted(t.model) + `,"messages":[],"tools":[{"type":"function"}]}`),
		post(`{"model":` + quoted(t.model) + `,"messages":[{"role":"user","content":` + content + `}],"response_format":{"type":"json_schema","json_schema":{"schema":{"$ref":"#/nowhere"}}}}`),
		post("\x00\xff\xfe"), post(`[]`), post(`"` + canary + `"`),
		{method: "PUT", path: chat, body: `{}`, key: key},
		{method: "GET", path: "/v1/models/" + t.random.letters(8), key: key}, // a path may be logged
		{method: "GET", path: "/v1/responses/" + t.random.letters(8), key: key},
		{method: "GET", path: "/" + t.random.letters(8), key: key},
		{method: "POST", path: chat, body: quoted(canary), key: key, headers: []string{"Content-Type: text/html"}},
	}
}

func runLeaks(ctx context.Context, t *trial) end {
	before := t.sizes()
	wrongKey, prompt, header := t.random.letters(24), t.random.letters(24), t.random.letters(24)
	answered := 0
	refuse := request{method: "GET", path: "/v1/models", key: wrongKey, headers: []string{"X-Note: " + header}}
	if a := t.ask(ctx, refuse); a.err == nil {
		answered++
		if holdsAnywhere(a, wrongKey) {
			if again := t.ask(ctx, refuse); holdsAnywhere(again, wrongKey) {
				t.found(flaw{title: say("an error repeats the key that was sent"), kind: "echo key", where: "GET /v1/models", vector: "CVSS:3.1/AV:N/AC:L/PR:N/UI:R/S:U/C:L/I:N/A:N", tags: leakTags,
					evidence: []recording.Exchange{exchange(refuse, again)}, verified: say("a random key came back in the answer, twice"), fix: say("say that the key is wrong, but do not repeat the key")})
			}
		}
	}
	if t.chat {
		ask := request{method: "POST", path: "/v1/chat/completions", key: t.target.Key, body: t.message("Say hi to "+prompt, `"max_tokens":2`), headers: []string{"X-Note: " + header}}
		if a := t.ask(ctx, ask); a.ok() {
			answered++
		}
	}
	seen := map[string]bool{}
	for _, r := range t.refusedRequests(prompt) {
		a := t.ask(ctx, r)
		if a.err != nil {
			continue
		}
		answered++
		for _, sign := range inside {
			found := sign.pattern.Find(a.body)
			if found == nil || seen[sign.kind] {
				continue
			}
			if again := t.ask(ctx, r); sign.pattern.Match(again.body) {
				seen[sign.kind] = true
				t.found(flaw{title: say("an error reveals internal details: %s", sign.kind), kind: sign.kind, where: r.method + " " + r.path, vector: tellsLittle, tags: leakTags,
					evidence: []recording.Exchange{exchange(r, again)}, verified: say("two answers to the same refused request contained it: %s", string(found)), fix: say("answer with a short sentence and an id, and write the details to the log")})
			}
		}
	}
	if answered == 0 {
		return unproven("no request was answered")
	}
	secrets := map[string]string{"a prompt": prompt, "a key that was sent": wrongKey, "a key": t.target.Key, "another tenant's key": t.target.OtherKey}
	t.searchMetrics(ctx, secrets)
	read, grew := t.searchLogs(before, secrets)
	switch {
	case len(t.target.Logs) > 0 && read == 0:
		return unproven("none of the named logs could be read")
	case len(t.target.Logs) > 0 && !grew:
		return unproven("nothing was written to the named logs during the check, so they are not the logs of this service")
	}
	return t.ended("%s answers and %s log files contain no canary and no internal details", number(int64(answered)), number(int64(read)))
}

func holdsAnywhere(a answer, secret string) bool {
	if holdsSecret(a.body, secret) {
		return true
	}
	for _, values := range a.header {
		if holdsSecret([]byte(strings.Join(values, "\n")), secret) {
			return true
		}
	}
	return false
}

func (t *trial) searchMetrics(ctx context.Context, secrets map[string]string) {
	r := request{method: "GET", path: "/metrics"}
	pages := map[string]answer{"": t.ask(ctx, r)}
	for _, address := range t.Scan.Addresses {
		if other, ok := t.beside(address); ok {
			pages[strings.TrimSuffix(address, "/")] = other.ask(ctx, r)
		}
	}
	for at, a := range pages {
		for kind, secret := range secrets {
			if len(secret) >= 8 && a.ok() && holdsSecret(a.body, secret) {
				t.found(flaw{title: say("metrics hold %s", kind), kind: kind, where: at + "/metrics", vector: t.check.worst, tags: leakTags,
					evidence: []recording.Exchange{{Sent: r.shown(), Came: around(a.body, secret)}}, verified: say("they contain a random canary that was sent before"), fix: say("take the labels of metrics from a fixed list, never from what clients send")})
			}
		}
	}
}

// around is the part of a text around a secret.
func around(text []byte, secret string) string {
	for _, form := range forms(secret) {
		if at := strings.Index(string(text), form); at >= 0 {
			return "…" + clip(string(text[max(0, at-80):min(len(text), at+len(form)+80)]), 300) + "…"
		}
	}
	return ""
}

const (
	maxLogFiles = 200
	maxLogBytes = 32 << 20 // limit for all logs together
)

// sizes are the current sizes of the logs, to read only what is added later.
func (t *trial) sizes() map[string]int64 {
	sizes := map[string]int64{}
	for _, where := range t.target.Logs {
		_ = filepath.WalkDir(where, func(path string, d fs.DirEntry, err error) error {
			if err != nil || len(sizes) >= maxLogFiles {
				return nil //nolint:nilerr // an unreadable file does not count as read
			}
			if info, err := d.Info(); err == nil && info.Mode().IsRegular() && isLog(path) {
				sizes[path] = info.Size()
			}
			return nil
		})
	}
	return sizes
}

// isLog excludes files that are binary by their names, such as the ledger in the same
// folder.
func isLog(path string) bool {
	switch filepath.Ext(path) {
	case ".db", ".db-wal", ".db-shm", ".ltx", ".pem", ".parquet", ".gguf", ".bin", ".sqlite":
		return false
	}
	return !strings.Contains(path, "second-place")
}

// news is what was appended to a log.
func news(path string, from int64, most int64) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	if info.Size() < from {
		from = 0 // it was rotated
	}
	text := make([]byte, min(info.Size()-from, most))
	n, _ := f.ReadAt(text, from)
	return text[:n]
}

func (t *trial) searchLogs(before map[string]int64, secrets map[string]string) (read int, grew bool) {
	if len(t.target.Logs) == 0 {
		return 0, false
	}
	time.Sleep(300 * time.Millisecond) // the service may buffer its logs for a moment
	left := int64(maxLogBytes)
	for path := range t.sizes() {
		text := news(path, before[path], left)
		left -= int64(len(text))
		if _, readable := os.Stat(path); readable == nil {
			read++
		}
		grew = grew || len(text) > 0
		for kind, secret := range secrets {
			if len(secret) >= 8 && holdsSecret(text, secret) {
				t.found(flaw{title: say("a log holds %s", kind), kind: kind, where: filepath.Base(path), vector: "CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:N/A:N", tags: leakTags,
					evidence: []recording.Exchange{{Sent: "a request with a random canary", Came: path + ": " + around(text, secret)}}, verified: say("the canary appeared there after it was sent"), fix: say("log ids, sizes and times, but neither keys nor user text")})
			}
		}
	}
	return read, grew
}
