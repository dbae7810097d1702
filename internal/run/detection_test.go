package run

import (
	"flag"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/loadgen"
	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/loadgen/prompt"
	"github.com/launchgate/launchgate/scenarios"
)

// What a gate finds is measured on services that exist on paper: the load is that
// of the gate, the time of every token is known, and one flaw is drawn by a seed. The
// judge does not know the difference, so a thousand runs of two minutes take minutes.

// arrival is the information that a service has about a request.
type arrival struct {
	n        int           // number among all requests
	at       time.Duration // since the load began
	clock    time.Time
	prompt   int   // tokens
	answer   int   // tokens
	crowd    int   // other requests under way
	number   int32 // of the connection
	place    int32 // on the connection
	variant  string
	question string
}

// flaw is a delay of a service: what is late, by how much, how often, when and
// for whom.
type flaw struct {
	what  string // first, tokens, stall, end, growth
	much  time.Duration
	often float64            // the share of the affected requests that are late
	when  func(arrival) bool // nil: always
	whom  func(arrival) bool // nil: for all
	named struct{ when, whom string }
}

// hits reports whether a request meets the flaw.
func (f flaw) hits(q arrival, draw *rand.Rand) bool {
	return f.much > 0 && (f.when == nil || f.when(q)) && (f.whom == nil || f.whom(q)) && (f.often >= 1 || draw.Float64() < f.often)
}

// delay makes a request late that meets the flaw. waits are the times before
// each token; the last is the time before the end.
func (f flaw) delay(waits []time.Duration, draw *rand.Rand) {
	last := len(waits) - 1
	switch f.what {
	case "first":
		waits[0] += f.much
	case "tokens":
		for i := 1; i < last; i++ {
			waits[i] += f.much
		}
	case "stall":
		if last > 1 {
			waits[1+draw.IntN(last-1)] += f.much
		}
	case "end":
		waits[last] += f.much
	case "growth":
		for i := 1; i < last; i++ {
			waits[i] += f.much * time.Duration(i) / 100 // much after a hundred tokens
		}
	}
}

// soundWaits are those of a service without a flaw: what a longer prompt and a
// larger crowd take, and the noise of a machine that does other things too.
func soundWaits(q arrival, draw *rand.Rand) []time.Duration {
	waits := make([]time.Duration, q.answer+1)
	noise := func(mean time.Duration) time.Duration {
		return time.Duration(float64(mean) * math.Exp(0.25*draw.NormFloat64()))
	}
	waits[0] = noise(15*time.Millisecond + time.Duration(q.prompt)*30*time.Microsecond + time.Duration(q.crowd)*time.Millisecond)
	for i := 1; i < q.answer; i++ {
		waits[i] = noise(4*time.Millisecond + time.Duration(q.crowd)*100*time.Microsecond)
	}
	waits[q.answer] = noise(200 * time.Microsecond)
	if draw.Float64() < 0.01 { // garbage collection, another process
		waits[draw.IntN(len(waits))] += time.Duration(draw.ExpFloat64() * float64(30*time.Millisecond))
	}
	return waits
}

// paperRun is a run of a gate of one scenario by a service with a flaw.
func paperRun(gate scenarios.Gate, load []loadgen.Question, plan *loadgen.Plan, d lateDefect, seed uint64) *recording.Recording {
	const begin = 2 * time.Second
	s := gate.Scenarios[0]
	draw := rand.New(rand.NewPCG(seed, 7))
	rec := &recording.Recording{Complete: true, Environment: recording.Environment{StartedAt: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)}}
	observe := func(at time.Duration, name, subject string, value float64) {
		rec.Observations = append(rec.Observations, recording.Observation{At: at, Name: name, Subject: subject, Value: value})
	}
	end := begin + plan.Duration()
	observe(begin, recording.ObsScenarioStarted, s.Name, 0)
	observe(begin, recording.ObsStageStarted, s.Name+"/"+s.Stages[0].Name, float64(len(load)))
	for at := begin; at <= end; at += time.Second {
		observe(at, recording.ObsClientCPU, "", 0.2)
		observe(at, recording.ObsClientSched, "", 0.0001)
		observe(at, recording.ObsClientGCPause, "", 0.00005)
	}
	var rows []recording.Request
	type open struct {
		until    time.Duration
		number   int32
		requests int32
	}
	var kept []*open
	var opened int32
	var ends []time.Duration
	for n, q := range load {
		due := begin + plan.Due(n)
		sent := due + time.Duration(draw.ExpFloat64()*float64(100*time.Microsecond))
		r := recording.Request{Seq: int64(n), Kind: recording.KindLoad, Scenario: s.Name, Stage: s.Stages[0].Name, Class: q.Class, Variant: q.Variant, Streamed: true,
			Due: due, Sent: sent, Status: 200, FinishReason: "length", TokensFrom: "usage", FirstChunkTokens: 1}
		r.PromptBytes = int32(q.Prompt.Bytes())
		for _, m := range q.Prompt.Messages {
			r.PromptTokens += int32(len(strings.Fields(m.Content)) + 4)
		}
		r.OutputTokens, r.AskedTokens = int32(q.Prompt.MaxTokens), int32(q.Prompt.MaxTokens)
		ends = slices.DeleteFunc(ends, func(at time.Duration) bool { return at <= sent })
		var on *open
		if !q.Prompt.Connection.New {
			if i := slices.IndexFunc(kept, func(o *open) bool { return o.until <= sent }); i >= 0 {
				on = kept[i]
			}
		}
		if on == nil {
			opened++
			on = &open{number: opened}
			if !q.Prompt.Connection.New {
				kept = append(kept, on)
			}
		}
		on.requests++
		r.Connection, r.OnConnection = on.number, on.requests
		request := arrival{n: n, at: due - begin, clock: rec.Environment.StartedAt.Add(sent), prompt: int(r.PromptTokens), answer: q.Prompt.MaxTokens, crowd: len(ends), number: on.number, place: on.requests,
			variant: askedHow(q.Prompt), question: q.Prompt.Messages[len(q.Prompt.Messages)-1].Content}
		r.Replica = fmt.Sprintf("replica-%d", n%3)
		waits := soundWaits(request, draw)
		if d.flaw.hits(request, draw) {
			d.flaw.delay(waits, draw)
		}
		if d.spoil != nil {
			d.spoil(request, &timedAnswer{waits: waits, draw: draw})
		}
		at := sent
		for i, wait := range waits[:len(waits)-1] {
			at += wait
			if i == 0 {
				r.FirstByte, r.FirstToken, r.FirstOutput = at, at, at
			}
			r.Chunks = append(r.Chunks, at)
		}
		r.LastToken, r.LastVisible = at, at
		r.End = at + waits[len(waits)-1]
		on.until = r.End
		ends = append(ends, r.End)
		rows = append(rows, r)
	}
	observe(end, recording.ObsStageEnded, s.Name+"/"+s.Stages[0].Name, float64(len(load)))
	observe(end+time.Second, recording.ObsScenarioEnded, s.Name, 0)
	observe(end+time.Second+1, recording.ObsRunEnded, "", 0)
	rec.Requests = iter.Seq2[recording.Request, error](func(yield func(recording.Request, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	})
	return rec
}

// askedHow is how a request was sent, in the words of variantOf.
func askedHow(p client.Prompt) string {
	system, proto := false, 1
	for _, m := range p.Messages {
		system = system || m.Role == "system"
	}
	if p.Connection.HTTP == "2" {
		proto = 2
	}
	field := func(name string) string { return strings.Trim(p.Fields[name], `"`) }
	return variantOf(system, p.Temperature, proto, p.APIKey, field("user"), p.Model, field("service_tier"))
}

// paperLoad is the load of a gate of one scenario.
type paperLoad struct {
	gate      scenarios.Gate
	plan      *loadgen.Plan
	questions []loadgen.Question
}

func paperLoadOf(t testing.TB, gate scenarios.Gate, seed uint64) paperLoad {
	t.Helper()
	gate.Seed = seed
	gate = gate.Resolved()
	m, err := prompt.Gather(gate)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Keys(gate, lateKeys); err != nil {
		t.Fatal(err)
	}
	m.Nonce = seed
	l := paperLoad{gate: gate, plan: loadgen.NewPlan(gate.Scenarios[0], SeedFor(gate, gate.Scenarios[0].Name), m)}
	for n := range l.plan.Requests() {
		l.questions = append(l.questions, l.plan.Question(n))
	}
	return l
}

// judged is the verdict on a run by a service with a flaw.
func (l paperLoad) judged(t testing.TB, f flaw, seed uint64) checklist.Verdict {
	t.Helper()
	return l.judgedWith(t, lateDefect{flaw: f}, seed)
}

// judgedWith is the verdict on a run by a planted service.
func (l paperLoad) judgedWith(t testing.TB, d lateDefect, seed uint64) checklist.Verdict {
	t.Helper()
	v, err := checklist.Judge(l.gate, paperRun(l.gate, l.questions, l.plan, d, seed))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var paperRuns = flag.Int("paper", 2, "how many runs on paper of each size of a flaw")

// drawn is a random flaw: what is late, by how much, how often, when and for
// whom.
func drawn(draw *rand.Rand) flaw {
	f := flaw{
		what:  []string{"first", "tokens", "stall", "end", "growth"}[draw.IntN(5)],
		much:  time.Duration(math.Exp(math.Log(20)+draw.Float64()*math.Log(200)) * float64(time.Millisecond)), // 20 ms to 4 s
		often: []float64{1, 1, 0.3, 0.1, 0.03, 0.01}[draw.IntN(6)],
	}
	if f.what == "tokens" {
		f.much /= 10 // of each token
	}
	whens := []struct {
		name string
		is   func(arrival) bool
	}{
		{"always", nil},
		{"in the second half", func(q arrival) bool { return q.at > time.Minute }},
		{"in one second of ten", func(q arrival) bool { return q.at%(10*time.Second) < time.Second }},
	}
	when := whens[[]int{0, 0, 0, 1, 2}[draw.IntN(5)]]
	f.when, f.named.when = when.is, when.name
	whom := lateWhom[draw.IntN(len(lateWhom))]
	f.whom, f.named.whom = whom.is, whom.name
	return f
}

// lateWhom are the groups of requests for which a service can be late.
var lateWhom = []struct {
	name string
	is   func(arrival) bool
}{
	{"everybody", nil},
	{"new connections", func(q arrival) bool { return q.place == 1 }},
	{"each fifth on a connection", func(q arrival) bool { return q.place%5 == 0 }},
	{"prompts of more than 160 tokens", func(q arrival) bool { return q.prompt > 160 }},
	{"answers of more than 40 tokens", func(q arrival) bool { return q.answer > 40 }},
	{"three or more others under way", func(q arrival) bool { return q.crowd >= 3 }},
	{"questions that are not ASCII", func(q arrival) bool { return strings.ContainsFunc(q.question, func(r rune) bool { return r > 127 }) }},
	{"a system prompt", func(q arrival) bool { return strings.Contains(q.variant, "system=some") }},
	{"one request in a hundred", func(q arrival) bool { return q.n%100 == 0 }},
}

// paperBench judges runs on paper, several at a time.
type paperBench struct {
	loads []paperLoad
	t     *testing.T
}

func newPaperBench(t *testing.T, loads int) paperBench {
	b := paperBench{t: t}
	for seed := range loads {
		b.loads = append(b.loads, paperLoadOf(t, mixedGate(t, 0), uint64(seed+1)))
	}
	return b
}

// found counts the runs, of n, in which the flaw is found, which means that an
// objective fails.
func (b paperBench) found(n int, of func(i int) flaw) int {
	var found atomic.Int64
	b.each(n, of, func(_ int, _ flaw, v checklist.Verdict) {
		if v.Verdict == checklist.Fail {
			found.Add(1)
		}
	})
	return int(found.Load())
}

func (b paperBench) each(n int, of func(i int) flaw, take func(i int, f flaw, v checklist.Verdict)) {
	var all sync.WaitGroup
	slots := make(chan struct{}, runtime.NumCPU())
	for i := range n {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			f := of(i)
			take(i, f, b.loads[i%len(b.loads)].judged(b.t, f, uint64(1000+i)))
		})
	}
	all.Wait()
}

// The scenario mixed of the thorough gate always finds large flaws, and never
// fails the service without a flaw. The test also measures what it finds by the
// size of a flaw.
func TestDetection(t *testing.T) {
	n := *paperRuns
	b := newPaperBench(t, min(n, 8))
	sound, flaws := max(5*n, 10), 8
	if testing.Short() { // the race detector takes ten times as long
		sound, flaws = 3, 3
	}
	if failed := b.found(sound, func(int) flaw { return flaw{} }); failed > sound/100 {
		t.Errorf("the sound service fails in %d of %d runs", failed, sound)
	}
	large := func(i int) flaw {
		whom := lateWhom[i%(len(lateWhom)-1)] // except the group of one request in a hundred
		return flaw{what: []string{"first", "stall", "end"}[i%3], much: 2 * time.Second, often: 0.3, whom: whom.is}
	}
	if found := b.found(flaws, large); found < flaws {
		t.Errorf("%d of %d large flaws are found", found, flaws)
	}
	if *updateCatalog {
		b.write(n, sound)
	}
}

var (
	sizes  = []time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 150 * time.Millisecond, 200 * time.Millisecond, 300 * time.Millisecond, 500 * time.Millisecond, time.Second, 4 * time.Second}
	shares = []float64{0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 1}
)

// write draws the curves of docs/detection.md.
func (b paperBench) write(n, sound int) {
	var out strings.Builder
	percent := func(found, of int) string {
		return fmt.Sprintf("%d %%", int(math.Round(100*float64(found)/float64(of))))
	}
	head := func(first string) {
		fmt.Fprintf(&out, "\n| %s |", first)
		for _, size := range sizes {
			fmt.Fprintf(&out, " %s |", size)
		}
		out.WriteString("\n|---|" + strings.Repeat("--:|", len(sizes)) + "\n")
	}
	row := func(name string, of func(size time.Duration) flaw) {
		fmt.Fprintf(&out, "| %s |", name)
		for _, size := range sizes {
			fmt.Fprintf(&out, " %s |", percent(b.found(n, func(int) flaw { return of(size) }), n))
		}
		out.WriteString("\n")
	}
	fmt.Fprintf(&out, "\nThe share of %d runs in which the gate fails. Of %d runs of the sound service it failed in %d.\n",
		n, sound, b.found(sound, func(int) flaw { return flaw{} }))
	out.WriteString("\n**The first token is late for some**, each time, by:\n")
	head("for")
	for _, whom := range lateWhom {
		row(whom.name, func(size time.Duration) flaw { return flaw{what: "first", much: size, often: 1, whom: whom.is} })
	}
	out.WriteString("\n**The first token is late on new connections**, now and then, by:\n")
	head("in a share of")
	for _, share := range shares {
		row(fmt.Sprintf("%g %%", share*100), func(size time.Duration) flaw {
			return flaw{what: "first", much: size, often: share, whom: lateWhom[1].is}
		})
	}
	out.WriteString("\n**An answer stands still**, whoever asked, for:\n")
	head("in a share of")
	for _, share := range shares {
		row(fmt.Sprintf("%g %%", share*100), func(size time.Duration) flaw { return flaw{what: "stall", much: size, often: share} })
	}
	b.random(&out, 40*n)
	replaceBlock(b.t, "curve", out.String())
}

// random reports how many random flaws are found, by size and by the share of
// requests that they reach, and draws the curve.
func (b paperBench) random(out *strings.Builder, n int) {
	reaches := []struct {
		name string
		from float64
	}{{"0.1 to 1 % of the requests", 0.001}, {"1 to 10 %", 0.01}, {"more than 10 %", 0.1}}
	bounds := []time.Duration{20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, 1600 * time.Millisecond, 4 * time.Second}
	type cell struct{ found, of int }
	cells := make([][]cell, len(reaches))
	for i := range cells {
		cells[i] = make([]cell, len(bounds)-1)
	}
	var mu sync.Mutex
	b.each(n, func(i int) flaw { return drawn(rand.New(rand.NewPCG(uint64(i), 3))) }, func(i int, f flaw, v checklist.Verdict) {
		reach := b.loads[i%len(b.loads)].reach(f)
		size := f.much
		if f.what == "tokens" {
			size *= 10
		}
		mu.Lock()
		defer mu.Unlock()
		for r := len(reaches) - 1; r >= 0; r-- {
			if reach < reaches[r].from {
				continue
			}
			for s := range len(bounds) - 1 {
				if size >= bounds[s] && size < bounds[s+1] {
					cells[r][s].of++
					if v.Verdict == checklist.Fail {
						cells[r][s].found++
					}
				}
			}
			return
		}
	})
	fmt.Fprintf(out, "\n**%d flaws at random**: what is late (the first token, each token by a tenth of the size, one gap, the end, the gaps more and more), by how much, how often, when (always, in the second half, in one second of ten) and for whom (the rows of the first table). The sizes are from the one above a column to the next; a flaw reaches so many of the requests:\n\n| reaches |", n)
	for s := range len(bounds) - 1 {
		fmt.Fprintf(out, " %s to %s |", bounds[s], bounds[s+1])
	}
	out.WriteString("\n|---|" + strings.Repeat("--:|", len(bounds)-1) + "\n")
	const width, height = 640, 300
	var svg strings.Builder
	fmt.Fprintf(&svg, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12"><rect width="100%%" height="100%%" fill="#fff"/>`, width, height)
	x := func(s int) float64 { return 60 + float64(s)*75 }
	y := func(share float64) float64 { return 250 - 210*share }
	for _, share := range []float64{0, 0.25, 0.5, 0.75, 1} {
		fmt.Fprintf(&svg, `<line x1="50" x2="540" y1="%.0f" y2="%.0f" stroke="#ddd"/><text x="44" y="%.0f" text-anchor="end">%.0f %%</text>`, y(share), y(share), y(share)+4, 100*share)
	}
	for s := range len(bounds) - 1 {
		fmt.Fprintf(&svg, `<text x="%.0f" y="268" text-anchor="middle">%s</text>`, x(s), bounds[s])
	}
	svg.WriteString(`<text x="295" y="290" text-anchor="middle">size of the flaw, from</text><text x="50" y="22">share of flaws that are found</text>`)
	for r, reach := range reaches {
		fmt.Fprintf(out, "| %s |", reach.name)
		colour := []string{"#b91c1c", "#b45309", "#15803d"}[r]
		var line []string
		for s, c := range cells[r] {
			if c.of == 0 {
				out.WriteString(" |")
				continue
			}
			fmt.Fprintf(out, " %d of %d |", c.found, c.of)
			line = append(line, fmt.Sprintf("%.0f,%.1f", x(s), y(float64(c.found)/float64(c.of))))
			fmt.Fprintf(&svg, `<circle cx="%.0f" cy="%.1f" r="3" fill="%s"/>`, x(s), y(float64(c.found)/float64(c.of)), colour)
		}
		out.WriteString("\n")
		fmt.Fprintf(&svg, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/><text x="546" y="%d" fill="%s">%s</text>`, strings.Join(line, " "), colour, 60+18*r, colour, strings.TrimSuffix(reach.name, " of the requests"))
	}
	svg.WriteString("</svg>\n")
	if err := os.WriteFile("../../docs/detection.svg", []byte(svg.String()), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// reach is the share of the requests that meet a flaw.
func (l paperLoad) reach(f flaw) float64 {
	draw, hits := rand.New(rand.NewPCG(1, 1)), 0
	f.much = time.Nanosecond
	seen := func(q arrival) bool {
		if f.hits(q, draw) {
			hits++
		}
		return false
	}
	paperRun(l.gate, l.questions, l.plan, lateDefect{flaw: flaw{much: 1, often: 1, whom: seen}}, 1)
	return float64(hits) / float64(len(l.questions))
}

const detectionPage = "../../docs/detection.md"

// replaceBlock replaces the text between two comments of the page.
func replaceBlock(t *testing.T, name, text string) {
	t.Helper()
	page, err := os.ReadFile(detectionPage)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(page), "<!-- "+name+" -->\n")
	_, after, ends := strings.Cut(rest, "<!-- end of "+name+" -->")
	if !begins || !ends {
		t.Fatalf("%s has no block %s", detectionPage, name)
	}
	if err := os.WriteFile(detectionPage, []byte(before+"<!-- "+name+" -->\n"+text+"\n<!-- end of "+name+" -->"+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// writeLateness writes the rows of the planted services; a service without a new row
// keeps its old one.
func writeLateness(t *testing.T, fresh map[string]string) {
	page, err := os.ReadFile(detectionPage)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(page)) {
		if name, _, is := strings.Cut(strings.TrimPrefix(line, "| `"), "` | "); is && strings.HasPrefix(line, "| `") && fresh[name] == "" {
			fresh[name] = line
		}
	}
	var rows strings.Builder
	for _, d := range lateCatalog {
		rows.WriteString(fresh[d.name])
	}
	replaceBlock(t, "planted", "\n| defect | what is wrong | objective that fails | as found |\n|---|---|---|---|\n"+rows.String())
}

// The page lists every planted service.
func TestLatenessIsDocumented(t *testing.T) {
	page, err := os.ReadFile(detectionPage)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range lateCatalog {
		if !strings.Contains(string(page), "| `"+d.name+"` | "+d.means+" | `"+d.fails+"` |") {
			t.Errorf("docs/detection.md does not tell of %s as it is; go test ./internal/run -run PlantedLateness -whole -update", d.name)
		}
	}
}
