package run

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/scenarios"
)

// lateDefect is a service that is late for some requests, at some times, or in
// an unusual part of the answer. It names the objective of the scenario mixed
// that must fail.
type lateDefect struct {
	name, means, fails string
	who                string // in the reason
	flaw               flaw
	spoil              func(q arrival, a *timedAnswer) // a delay that a flaw cannot describe
	adds               *scenarios.Factor               // a factor that the gate must vary to find the defect
	sampled            bool                            // played in every test
	unwritten          bool                            // the defect cannot be simulated
}

// timedAnswer is an answer whose every token has its time.
type timedAnswer struct {
	tokens []string
	waits  []time.Duration // before each token, and before the end
	draw   *rand.Rand
}

// before puts a text before the first token, at once.
func (a *timedAnswer) before(text string) {
	a.tokens, a.waits = slices.Insert(a.tokens, 0, text), slices.Insert(a.waits, 0, 5*time.Millisecond)
}

const muchLater = 400 * time.Millisecond

func first(much time.Duration, whom func(q arrival) bool) flaw {
	return flaw{what: "first", much: much, often: 1, whom: whom}
}

func factorOf(name string, first, second scenarios.Workload) *scenarios.Factor {
	return &scenarios.Factor{Name: name, Values: []scenarios.Value{{Name: "first", Workload: first}, {Name: "second", Workload: second}}}
}

func sent(field, value string) map[string]scenarios.Field {
	f, err := scenarios.FieldOf(value)
	if err != nil {
		panic(err)
	}
	return map[string]scenarios.Field{field: f}
}

func having(value string) func(q arrival) bool {
	return func(q arrival) bool { return slices.Contains(strings.Fields(q.variant), value) }
}

var lateCatalog = []lateDefect{
	// Late for some lengths.
	{name: "late-for-long-prompts", sampled: true, means: "prompts of more than 160 tokens wait 400 ms longer", fails: "late_for_some(ttft) in mixed", who: "prompts of more than",
		flaw: first(muchLater, func(q arrival) bool { return q.prompt > 160 })},
	{name: "late-for-short-prompts", means: "prompts of less than 50 tokens wait 400 ms longer", fails: "late_for_some(ttft) in mixed", who: "the ttft of",
		flaw: first(muchLater, func(q arrival) bool { return q.prompt < 50 })},
	{name: "late-for-long-answers", means: "answers of more than 40 tokens begin 400 ms later", fails: "late_for_some(ttft) in mixed", who: "answers of more than",
		flaw: first(muchLater, func(q arrival) bool { return q.answer > 40 })},
	{name: "slow-tokens-in-long-answers", means: "each token of an answer of more than 40 takes 40 ms longer", fails: "late_for_some(tpot) in mixed", who: "answers of more than",
		flaw: flaw{what: "tokens", much: 40 * time.Millisecond, often: 1, whom: func(q arrival) bool { return q.answer > 40 }}},

	// Late in a crowd.
	{name: "late-in-a-crowd", sampled: true, means: "with four or more others under way the first token takes 400 ms longer", fails: "late_for_some(ttft) in mixed", who: "",
		flaw: first(muchLater, func(q arrival) bool { return q.crowd >= 4 })},

	// Late on some connections.
	{name: "late-on-new-connections", means: "the first request of a connection waits 400 ms longer", fails: "late_for_some(ttft) in mixed", who: "new",
		flaw: first(muchLater, func(q arrival) bool { return q.place == 1 })},
	{name: "late-on-some-new-connections", sampled: true, means: "one in five new connections waits 1.5 s longer", fails: "late_for_some(ttft) in mixed", who: "new",
		flaw: flaw{what: "first", much: 1500 * time.Millisecond, often: 0.2, whom: func(q arrival) bool { return q.place == 1 }}},
	{name: "late-on-kept-connections", means: "a request on a kept connection waits 400 ms longer", fails: "late_for_some(ttft) in mixed", who: "",
		flaw: first(muchLater, func(q arrival) bool { return q.place > 1 })},
	{name: "later-with-each-connection", means: "each connection waits 4 ms longer than the one before", fails: "late_for_some(ttft) in mixed", who: "",
		spoil: func(q arrival, a *timedAnswer) { a.waits[0] += 4 * time.Millisecond * time.Duration(q.number) }},
	{name: "late-each-fifth-on-a-connection", means: "each fifth request of a connection waits 400 ms longer", fails: "late_for_some(ttft) in mixed", who: "a multiple of 5",
		flaw: first(muchLater, func(q arrival) bool { return q.place%5 == 0 })},
	{name: "late-on-http2", means: "requests over HTTP/2 wait 400 ms longer", fails: "late_for_some(ttft) in mixed", who: "http=second",
		flaw: first(muchLater, having("proto=2")), adds: factorOf("http", scenarios.Workload{}, scenarios.Workload{Connection: scenarios.Connection{HTTP: "2"}})},

	// Late for some clients, or for some requests.
	{name: "late-for-one-key", sampled: true, means: "one of two keys waits 400 ms longer", fails: "late_for_some(ttft) in mixed", who: "key=second",
		flaw: first(muchLater, having("key=second")), adds: factorOf("key", scenarios.Workload{APIKeyEnv: "FIRST_KEY"}, scenarios.Workload{APIKeyEnv: "SECOND_KEY"})},
	{name: "late-for-one-user", means: "one of two users (the field user) waits 400 ms longer, one time in four", fails: "late_for_some(ttft) in mixed", who: "user=second",
		flaw: flaw{what: "first", much: muchLater, often: 0.25, whom: having("user=second")},
		adds: factorOf("user", scenarios.Workload{}, scenarios.Workload{Fields: sent("user", "second")})},
	{name: "late-for-a-model-alias", means: "the model under its other name waits 400 ms longer", fails: "late_for_some(ttft) in mixed", who: "alias=second",
		flaw: first(muchLater, having("model=alias")), adds: factorOf("alias", scenarios.Workload{}, scenarios.Workload{Model: "alias"})},
	{name: "late-for-a-tier", means: "requests of one service tier wait 400 ms longer", fails: "late_for_some(ttft) in mixed", who: "tier=second",
		flaw: first(muchLater, having("tier=flex")), adds: factorOf("tier", scenarios.Workload{}, scenarios.Workload{Fields: sent("service_tier", "flex")})},
	{name: "late-with-a-system-prompt", means: "chats with a system prompt wait 400 ms longer", fails: "late_for_some(ttft) in mixed", who: "system=some",
		flaw: first(muchLater, having("system=some"))},
	{name: "late-at-a-temperature", means: "at temperature 1 the first token takes 400 ms longer", fails: "late_for_some(ttft) in mixed", who: "temperature=one",
		flaw: first(muchLater, having("temperature=1"))},
	{name: "stalls-at-a-temperature", means: "at temperature 1 every answer stands still for 400 ms", fails: "late_for_some(max_icl) in mixed", who: "temperature=one",
		flaw: flaw{what: "stall", much: muchLater, often: 1, whom: having("temperature=1")}},
	{name: "late-for-other-languages", means: "a question that is not ASCII waits 400 ms longer", fails: "late_for_some(ttft) in mixed", who: "question=not-english",
		flaw: first(muchLater, func(q arrival) bool { return strings.ContainsFunc(q.question, func(r rune) bool { return r > 127 }) })},
	{name: "late-for-repeated-prompts", means: "a question that was asked before waits 400 ms longer", fails: "late_for_some(ttft) in mixed", who: "question=asked-before",
		flaw: first(muchLater, func(q arrival) bool { return q.question == "Tell me about the sea." })},
	{name: "late-on-one-replica", sampled: true, means: "one of three replicas waits 400 ms longer", fails: "late_for_some(ttft) in mixed", who: "replica-1",
		flaw: first(muchLater, func(q arrival) bool { return q.n%3 == 1 })},

	// Late at some time.
	{name: "late-every-five-seconds", means: "what comes in the first half second of every five waits 400 ms longer", fails: "late_for_some(ttft) in mixed", who: "of every ",
		flaw: first(muchLater, func(q arrival) bool { return q.clock.UnixMilli()%5000 < 500 })},

	// Late within an answer, and at its ends.
	{name: "tokens-slow-within-an-answer", means: "each token takes 1 ms longer than the one before", fails: "p90(icl_growth) in mixed",
		flaw: flaw{what: "growth", much: 100 * time.Millisecond, often: 1}},
	{name: "stalls-in-some-answers", means: "one answer in ten stands still for 800 ms", fails: "p99(max_icl) in mixed",
		flaw: flaw{what: "stall", much: 800 * time.Millisecond, often: 0.1}},
	{name: "invisible-first-token", sampled: true, means: "a zero-width space comes at once, the text after 1.5 s", unwritten: true, fails: "p95(ttft) in mixed",
		spoil: func(_ arrival, a *timedAnswer) { a.waits[0] += 1500 * time.Millisecond; a.before("\u200b") }},
	{name: "blank-first-token", means: "a line break comes at once, the text after 1.5 s", unwritten: true, fails: "p95(ttft) in mixed",
		spoil: func(_ arrival, a *timedAnswer) { a.waits[0] += 1500 * time.Millisecond; a.before("\n") }},
	{name: "byte-order-mark-first", means: "a byte order mark comes at once, the text after 1.5 s", unwritten: true, fails: "p95(ttft) in mixed",
		spoil: func(_ arrival, a *timedAnswer) { a.waits[0] += 1500 * time.Millisecond; a.before("\ufeff") }},
	{name: "silence-behind-invisible-tokens", means: "one answer in ten stands still for 900 ms, and characters without width come meanwhile", unwritten: true, fails: "p99(max_icl) in mixed",
		spoil: func(_ arrival, a *timedAnswer) {
			if a.draw.Float64() < 0.1 {
				for range 18 {
					a.tokens, a.waits = slices.Insert(a.tokens, 3, "\u200b"), slices.Insert(a.waits, 3, 50*time.Millisecond)
				}
			}
		}},
	{name: "silence-before-the-end", sampled: true, means: "the end comes 600 ms after the last token", fails: "p95(end_delay) in mixed",
		flaw: flaw{what: "end", much: 600 * time.Millisecond, often: 1}},
	{name: "silence-before-the-end-for-some", means: "the end of repeated answers comes 400 ms after their last token, one time in four", fails: "late_for_some(end_delay) in mixed", who: "question=asked-before",
		flaw: flaw{what: "end", much: muchLater, often: 0.25, whom: func(q arrival) bool { return q.question == "Tell me about the sea." }}},
}

// variantOf says how a request was sent.
func variantOf(system bool, temperature float64, proto int, key, user, model, tier string) string {
	some := "none"
	if system {
		some = "some"
	}
	return fmt.Sprintf("system=%s temperature=%g proto=%d key=%s user=%s model=%s tier=%s", some, temperature, proto, key, user, model, tier)
}

// lateKeys are the API keys for which a service can be late.
var lateKeys = map[string]string{"FIRST_KEY": "first", "SECOND_KEY": "second"}

// lateService answers chats as a sound service does, except for its defect.
type lateService struct {
	lateDefect
	started  time.Time
	n        atomic.Int64
	underWay atomic.Int64
	opened   atomic.Int32
}

// place of a request on its connection, which the server numbers.
type place struct {
	number   int32
	requests atomic.Int32
}

type placeKey struct{}

// serve begins to serve, over HTTP/1.1 and HTTP/2 in clear.
func (s *lateService) serve() *httptest.Server {
	srv := httptest.NewUnstartedServer(s)
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, placeKey{}, &place{number: s.opened.Add(1)})
	}
	s.started = time.Now()
	srv.Start()
	return srv
}

func (s *lateService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	switch r.URL.Path {
	case "/v1/models":
		fmt.Fprint(w, `{"data":[{"id":"planted"}]}`)
	case "/tokenize":
		var q struct {
			Prompt string `json:"prompt"`
		}
		_ = json.Unmarshal(body, &q)
		fmt.Fprintf(w, `{"count":%d}`, len(strings.Fields(q.Prompt)))
	case "/v1/chat/completions":
		s.chat(w, r, body)
	default:
		http.NotFound(w, r)
	}
}

func (s *lateService) chat(w http.ResponseWriter, r *http.Request, body []byte) {
	crowd := int(s.underWay.Add(1)) - 1
	defer s.underWay.Add(-1)
	var req struct {
		Model       string
		Messages    []struct{ Role, Content string }
		MaxTokens   int `json:"max_tokens"`
		Temperature float64
		User        string
		Tier        string `json:"service_tier"`
	}
	if err := json.Unmarshal(body, &req); err != nil || len(req.Messages) == 0 || req.MaxTokens < 1 {
		http.Error(w, "what?", http.StatusBadRequest)
		return
	}
	at, _ := r.Context().Value(placeKey{}).(*place)
	q := arrival{n: int(s.n.Add(1)), at: time.Since(s.started), clock: time.Now(), answer: req.MaxTokens, crowd: crowd, number: at.number, place: at.requests.Add(1),
		question: req.Messages[len(req.Messages)-1].Content}
	system := false
	for _, m := range req.Messages {
		q.prompt += len(strings.Fields(m.Content))
		if m.Role == "system" {
			system = true
		}
	}
	q.variant = variantOf(system, req.Temperature, r.ProtoMajor, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), req.User, req.Model, req.Tier)

	draw := rand.New(rand.NewPCG(uint64(q.n), 9))
	a := &timedAnswer{draw: draw}
	for i := range q.answer {
		a.tokens, a.waits = append(a.tokens, " "+vocabulary[draw.IntN(len(vocabulary))]), append(a.waits, 8*time.Millisecond)
		if i == 0 {
			a.waits[0] = firstWait + time.Duration(q.prompt)*20*time.Microsecond
		}
	}
	a.waits = append(a.waits, 0)
	if s.flaw.hits(q, draw) {
		s.flaw.delay(a.waits, draw)
	}
	if s.spoil != nil {
		s.spoil(q, a)
	}
	w.Header().Set("X-Launchgate-Replica", fmt.Sprintf("replica-%d", q.n%3))
	a.send(w, r, q)
}

func (a *timedAnswer) send(w http.ResponseWriter, r *http.Request, q arrival) {
	w.Header().Set("Content-Type", "text/event-stream")
	wait := func(d time.Duration) bool {
		if d <= 0 {
			return true
		}
		w.(http.Flusher).Flush()
		select {
		case <-time.After(d):
			return true
		case <-r.Context().Done():
			return false
		}
	}
	for i, token := range a.tokens {
		if !wait(a.waits[i]) {
			return
		}
		content, _ := json.Marshal(token)
		fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":%s}}]}\n\n", content)
	}
	if !wait(a.waits[len(a.waits)-1]) {
		return
	}
	fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}]}\n\n"+
		"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d}}\n\ndata: [DONE]\n\n", q.prompt, q.answer)
}

// mixedGate is the scenario mixed of the thorough gate with its objectives, and so
// long.
func mixedGate(t testing.TB, lasts time.Duration) scenarios.Gate {
	t.Helper()
	gate, _, err := scenarios.Ready("thorough")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(gate.Scenarios, func(s scenarios.Scenario) bool { return s.Name == "mixed" })
	gate.Scenarios = slices.Clone(gate.Scenarios[i : i+1])
	gate.Scenarios[0].Stages = slices.Clone(gate.Scenarios[0].Stages)
	if lasts > 0 {
		// A shorter form has more requests at a time, so that its groups are large enough.
		stage := &gate.Scenarios[0].Stages[0]
		stage.For, stage.Rate, stage.To = scenarios.Duration(lasts), 3, new(scenarios.Rate(17))
	}
	gate.Objectives = slices.DeleteFunc(slices.Clone(gate.Objectives), func(o scenarios.Objective) bool { return o.Scenario != "mixed" })
	return gate
}

// judgeLate plays the scenario mixed against a service and judges it.
func judgeLate(t *testing.T, dir string, d lateDefect, seed uint64) checklist.Verdict {
	t.Helper()
	s := &lateService{lateDefect: d}
	srv := s.serve()
	defer srv.Close()
	defer srv.CloseClientConnections()
	gate := mixedGate(t, 36*time.Second)
	gate.Target, gate.Seed = scenarios.Target{Endpoint: &scenarios.Endpoint{URL: srv.URL}}, seed
	if d.adds != nil {
		gate.Scenarios[0].Vary = append(slices.Clone(gate.Scenarios[0].Vary), *d.adds)
	}
	if err := Run(context.Background(), Options{Gate: gate, Keys: lateKeys, Dir: dir, Version: "test", Tell: func(Progress) {}}); err != nil {
		t.Fatal(err)
	}
	return verdictOf(t, gate, dir)
}

// found is the reason of the objective that fails for a defect, naming who it is late
// for; if none does, it is what failed or was not proven instead.
func (d lateDefect) found(v checklist.Verdict) (why string, others []string) {
	for _, f := range v.Objectives {
		switch {
		case f.Verdict == checklist.Fail && strings.HasPrefix(f.Source, d.fails+" ") && strings.Contains(f.Why.String(), d.who):
			why = f.Why.String()
		case f.Verdict != checklist.Pass:
			others = append(others, fmt.Sprintf("%s: %s: %s", f.Source, f.Verdict, f.Why))
		}
	}
	return why, others
}

// Every service that is late for some fails its objective, by name; the sound one
// passes all. A sample of them is played, and with -whole all.
func TestPlantedLatenessIsFound(t *testing.T) {
	if testing.Short() {
		t.Skip("plays eight scenarios of 36 s at the same time")
	}
	dir := t.TempDir()
	fresh := map[string]string{}
	var mu sync.Mutex
	slots := make(chan struct{}, 8)
	var playing sync.WaitGroup
	for i, d := range append([]lateDefect{{name: "sound"}}, lateCatalog...) {
		if *onlyDefect != "" && !slices.Contains(strings.Split(*onlyDefect, ","), d.name) || *onlyDefect == "" && !*wholeThorough && i > 0 && !d.sampled {
			continue
		}
		slots <- struct{}{}
		time.Sleep(1500 * time.Millisecond) // so that not all have the most load at once
		playing.Go(func() {
			defer func() { <-slots }()
			var v checklist.Verdict
			for attempt := range 3 {
				if v = judgeLate(t, filepath.Join(dir, fmt.Sprintf("%s-%d", d.name, attempt)), d, uint64(i+1)); v.Client.Valid {
					break
				}
			}
			if !v.Client.Valid {
				t.Logf("%s: not judged: the machine was too busy to measure on: %s", d.name, v.Client.Why)
				return
			}
			if d.fails == "" {
				for _, f := range v.Objectives {
					if f.Verdict == checklist.Fail || f.Verdict != checklist.Pass && strings.HasPrefix(f.Source, "late_for_some") {
						t.Errorf("the sound service: %s: %s: %s", f.Source, f.Verdict, f.Why)
					}
				}
				return
			}
			why, others := d.found(v)
			if why == "" {
				t.Errorf("%s: %s; %s does not fail for %q, but\n  %s", d.name, v.Verdict, d.fails, d.who, strings.Join(others, "\n  "))
				return
			}
			mu.Lock()
			defer mu.Unlock()
			fresh[d.name] = fmt.Sprintf("| `%s` | %s | `%s` | %s |\n", d.name, d.means, d.fails, why)
		})
	}
	playing.Wait()
	if *updateCatalog && !t.Failed() {
		writeLateness(t, fresh)
	}
}

// The same services are simulated, which takes no time: each fails its
// objective, and the reason names the group.
func TestPlantedLatenessIsFoundOnPaper(t *testing.T) {
	plain := paperLoadOf(t, mixedGate(t, 0), 1)
	for i, d := range lateCatalog {
		if d.unwritten || testing.Short() && i%5 > 0 { // the race detector takes ten times as long
			continue
		}
		load := plain
		if d.adds != nil {
			gate := mixedGate(t, 0)
			gate.Scenarios[0].Vary = append(slices.Clone(gate.Scenarios[0].Vary), *d.adds)
			load = paperLoadOf(t, gate, 1)
		}
		if why, others := d.found(load.judgedWith(t, d, uint64(i+1))); why == "" {
			t.Errorf("%s: %s does not fail for %q, but\n  %s", d.name, d.fails, d.who, strings.Join(others, "\n  "))
		}
	}
}
