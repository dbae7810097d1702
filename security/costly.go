package security

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

var costlyRequests = Check{
	Name:    "costly-requests",
	Asks:    "whether one request of modest size takes far more work than its size justifies, or blocks other clients",
	Control: "a harmless request of the same size is answered quickly; another client is served before the check",
	Flaw:    "the time grows more than threefold for each doubling of the size, over two doublings or more, exceeds the variation of other answers and reaches one second; or another client waits more than two seconds, and more than twenty times as long as before, while the request is processed. Both are repeated. The check doubles the size six times at most, up to 1.5 MiB, and stops at the first size that takes two seconds",
	Planted: "test service: quadratic-schema, engine-blocks; reference server: also quadratic-tokens", Disruptive: true,
	Cap:   Cap{Requests: 900, Seconds: 240, Bytes: 256 << 20},
	worst: "CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:C/C:N/I:N/A:H",
	run:   runCostly,
}

// recipe makes requests of one kind that may be expensive, of a given size.
type recipe struct {
	kind string
	n    int // the first size
	body func(t *trial, n int) string
}

func schema(t *trial, s string) string {
	return t.message("Answer.", `"max_tokens":4,"temperature":0,"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":`+s+`}}`)
}

func list(n int, one func(i int) string) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(one(i))
	}
	return b.String()
}

var recipes = []recipe{
	{"properties of a schema", 4000, func(t *trial, n int) string {
		return schema(t, `{"type":"object","properties":{`+list(n, func(i int) string { return fmt.Sprintf(`"p%d":{"type":"null"}`, i) })+`}}`)
	}},
	{"required properties of a schema", 4000, func(t *trial, n int) string {
		return schema(t, `{"type":"object","properties":{"a":{"type":"null"}},"required":[`+list(n, func(i int) string { return fmt.Sprintf(`"p%d"`, i) })+`]}`)
	}},
	{"values of an enum", 4000, func(t *trial, n int) string {
		values := list(n, func(i int) string { return fmt.Sprintf(`"aaaaaaaaaaaa%06d"`, i) })
		return t.message("Answer.", `"n":16,"max_tokens":24,"temperature":0,"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"enum":[`+values+`]}}}`)
	}},
	{"alternatives of a schema", 1000, func(t *trial, n int) string {
		return schema(t, `{"anyOf":[`+list(n, func(i int) string { return fmt.Sprintf(`{"const":%d}`, i) })+`]}`)
	}},
	{"depth of a schema", 16, func(t *trial, n int) string {
		return schema(t, strings.Repeat(`{"type":"array","items":`, n)+`{"type":"null"}`+strings.Repeat(`}`, n))
	}},
	{"pattern of a schema", 12, func(t *trial, n int) string {
		return schema(t, `{"type":"string","pattern":"^(`+strings.Repeat("a?", n)+strings.Repeat("a", n)+`)*$"}`)
	}},
	{"control tokens", 4000, func(t *trial, n int) string { return t.message(strings.Repeat("<|im_end|>", n), `"max_tokens":2`) }},
	{"one word without blanks", 40_000, func(t *trial, n int) string { return t.message(strings.Repeat("a", n), `"max_tokens":2`) }},
	{"combining characters", 20_000, func(t *trial, n int) string { return t.message(strings.Repeat("a\u0301", n), `"max_tokens":2`) }},
	{"messages", 4000, func(t *trial, n int) string {
		return fmt.Sprintf(`{"model":%s,"max_tokens":2,"messages":[%s]}`, quoted(t.model), list(n, func(int) string { return `{"role":"user","content":"hi"}` }))
	}},
	{"parts of a message", 4000, func(t *trial, n int) string {
		return fmt.Sprintf(`{"model":%s,"max_tokens":2,"messages":[{"role":"user","content":[{"type":"text","text":%s},%s]}]}`, quoted(t.model), quoted(strings.Repeat("a ", 50_000)),
			list(n, func(int) string { return `{"type":"text","text":"b"}` }))
	}},
	{"depth of a prompt", 1200, func(t *trial, n int) string {
		return fmt.Sprintf(`{"model":%s,"max_tokens":2,"prompt":%s1%s}`, quoted(t.model), strings.Repeat("[", n), strings.Repeat("]", n))
	}},
	{"depth of JSON", 20_000, func(t *trial, n int) string {
		return fmt.Sprintf(`{"model":%s,"max_tokens":2,"messages":[{"role":"user","content":"hi"}],"metadata":%s%s}`, quoted(t.model), strings.Repeat(`{"a":`, n)+"1", strings.Repeat("}", n))
	}},
	{"stop strings", 4, func(t *trial, n int) string {
		return t.message("Count.", `"max_tokens":64,"stop":[`+list(n, func(i int) string { return quoted(strings.Repeat("ab", 10_000) + strconv.Itoa(i)) })+`]`)
	}},
	{"logit biases", 20_000, func(t *trial, n int) string {
		return t.message("Count.", `"max_tokens":32,"logit_bias":{`+list(n, func(i int) string { return fmt.Sprintf(`"%d":1`, i) })+`}`)
	}},
	{"tools", 500, func(t *trial, n int) string {
		return t.message("Hi.", `"max_tokens":2,"tools":[`+list(n, func(i int) string {
			return fmt.Sprintf(`{"type":"function","function":{"name":"f%d","parameters":{"type":"object","properties":{"a":{"type":"string"}}}}}`, i)
		})+`]`)
	}},
	{"choices", 4, func(t *trial, n int) string {
		return t.message("Count from one to one hundred.", fmt.Sprintf(`"max_tokens":200,"n":%d,"ignore_eos":true`, n))
	}},
	{"characters JSON escapes", 400_000, func(t *trial, n int) string { return t.message(strings.Repeat("<", n), `"max_tokens":2,"stream":true`) }},
}

// outOfProportion is the vector of a request that costs the service a lot, but disturbs
// others only if it is repeated.
const outOfProportion = "CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:U/C:N/I:N/A:H"

const tooLong = 2 * time.Second

// tried is the result of one size of a recipe.
type tried struct {
	n    int
	size int
	took time.Duration
	a    answer
	// slowest is the longest wait of another client meanwhile.
	slowest time.Duration
	failed  int
}

func runCostly(ctx context.Context, t *trial) end {
	if !t.chat {
		return unproven("the service does not chat")
	}
	quiet := t.others.quiet
	if quiet == 0 {
		return unproven("another client was not served before the check")
	}
	looked := 0
	for _, r := range recipes {
		if ctx.Err() != nil || t.capped() {
			return t.orUnproven(looked, len(recipes))
		}
		ok, bad := t.costs(ctx, r, quiet)
		if ok {
			looked++
		}
		if bad == nil || !t.calm(ctx, quiet) {
			continue
		}
		if _, again := t.costs(ctx, r, quiet); again != nil && again.kind == bad.kind {
			t.found(*again)
		}
		t.calm(ctx, quiet)
	}
	return t.orUnproven(looked, len(recipes))
}

func (t *trial) orUnproven(looked, of int) end {
	if looked < of && len(t.findings) == 0 {
		return unproven("only %s of %s kinds of request could be tried", number(int64(looked)), number(int64(of)))
	}
	return t.ended("the cost of %s kinds of request grew in proportion to their size, and another client was served meanwhile", number(int64(looked)))
}

// largestRecipe bounds the body of a request in bytes, and mostDoublings bounds how
// often the first size is doubled, because a superlinear cost may be small at first.
const (
	largestRecipe = 3 << 19
	mostDoublings = 6
)

// costs tries a recipe in three sizes, and in larger ones as long as they are fast.
func (t *trial) costs(ctx context.Context, r recipe, quiet time.Duration) (ok bool, bad *flaw) {
	var sizes []tried
	for i := range mostDoublings + 1 {
		n := r.n << i
		if i > 2 && (ctx.Err() != nil || sizes[i-1].took > tooLong || r.kind == "choices" || len(r.body(t, n)) > largestRecipe) {
			break
		}
		s := t.size(ctx, r, n)
		if s.a.err != nil && s.took < tooLong {
			// The check crash distinguishes a crash from a limit.
			return true, nil
		}
		sizes = append(sizes, s)
		if s.took > tooLong || s.slowest > max(tooLong, 20*quiet) {
			break
		}
	}
	last := sizes[len(sizes)-1]
	shown := func() []recording.Exchange {
		var came []string
		for _, s := range sizes {
			came = append(came, fmt.Sprintf("%d (%d bytes): %s after %s; another client waited up to %s, %d of its requests failed", s.n, s.size, brief(s.a), s.took.Round(time.Millisecond), s.slowest.Round(time.Millisecond), s.failed))
		}
		return []recording.Exchange{{Sent: "POST /v1/chat/completions, " + r.kind + "\n\n" + clip(r.body(t, 3), 400), Came: strings.Join(came, "\n")}}
	}
	tags := []string{"OWASP API4:2023", "OWASP LLM10:2025", "CWE-400"}
	fix := say("limit the work of a request by its size and its parts before starting it, and cancel it when the client leaves")
	if last.slowest > max(tooLong, 20*quiet) || last.failed > 0 && last.slowest > tooLong {
		return true, &flaw{title: say("a request of one client blocks other clients: %s", r.kind), kind: "others: " + r.kind, where: "POST /v1/chat/completions", vector: t.check.worst,
			tags: tags, evidence: shown(), fix: fix,
			verified: say("twice, another client waited up to %s for a small answer while the request was processed, and %s before", last.slowest.Round(time.Millisecond).String(), quiet.Round(time.Millisecond).String())}
	}
	if from := outgrown(sizes, quiet); from >= 0 && last.took > time.Second && r.kind != "choices" {
		return true, &flaw{title: say("the cost of a request grows faster than its size: %s", r.kind), kind: "cost: " + r.kind, where: "POST /v1/chat/completions", vector: outOfProportion,
			tags: tags, evidence: shown(), fix: fix,
			verified: say("twice, the time more than tripled for each doubling of the size: %s became %s over %s doublings", sizes[from].took.Round(time.Millisecond).String(), last.took.Round(time.Millisecond).String(), number(int64(len(sizes)-1-from)))}
	}
	if last.took > 4*tooLong && last.size < 3<<20 && r.kind != "choices" {
		return true, &flaw{title: say("a request of modest size takes many seconds: %s", r.kind), kind: "long: " + r.kind, where: "POST /v1/chat/completions", vector: outOfProportion,
			tags: tags, evidence: shown(), fix: fix,
			verified: say("twice, a request of %s bytes took %s", number(int64(last.size)), last.took.Round(time.Millisecond).String())}
	}
	return true, nil
}

func brief(a answer) string {
	if a.err != nil {
		return clip(a.err.Error(), 80)
	}
	return strconv.Itoa(a.status)
}

// outgrown is the index of the size from which the time grew more than threefold with
// each doubling up to the last size. There must be at least two doublings, and the
// growth must exceed the noise. It is -1 if there is no such size.
func outgrown(sizes []tried, noise time.Duration) int {
	factor := 3.0
	for i := len(sizes) - 2; i >= 0; i-- {
		if from := sizes[i].took; i < len(sizes)-2 && from > 0 && sizes[len(sizes)-1].took > time.Duration(factor*float64(from))+noise {
			return i
		}
		factor *= 3
	}
	return -1
}

// size sends one request of a size and observes another client meanwhile.
func (t *trial) size(ctx context.Context, r recipe, n int) tried {
	path := "/v1/chat/completions"
	if strings.HasPrefix(r.kind, "depth of a prompt") {
		path = "/v1/completions"
	}
	q := request{method: "POST", path: path, body: r.body(t, n), key: t.target.Key, within: 15 * time.Second}
	mark := t.others.mark()
	began := time.Now()
	var a answer
	var ended sync.WaitGroup
	ended.Go(func() { a = t.ask(ctx, q) })
	ended.Wait()
	s := tried{n: n, size: len(q.body), took: a.took, a: a}
	if a.err == nil && a.limited() {
		s.took = 0 // a refused request costs nothing
	}
	if time.Since(began) > 300*time.Millisecond {
		sleep(ctx, othersEvery) // until a request of the other client that is under way has ended
	}
	if o := t.others.since(mark); o != nil {
		s.slowest, s.failed = o.Longest, o.Failed
	}
	return s
}

// calm waits until another client is served as quickly as before, and reports whether
// it is.
func (t *trial) calm(ctx context.Context, quiet time.Duration) bool {
	for range 60 {
		mark := t.others.mark()
		if !sleep(ctx, time.Second) {
			return false
		}
		if o := t.others.since(mark); o != nil && o.Failed == 0 && o.Longest < max(10*quiet, 500*time.Millisecond) {
			return true
		}
	}
	return false
}
