package interchange

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

const (
	maxFile = 2 << 30 // bytes of a file that is read at once
	maxGaps = 1 << 20 // gaps between the chunks of an answer
	// agreement is how far a percentile of the requests may be from the one that the
	// tool states in the same file.
	agreement = 0.001
)

// Imported is what a file of another tool says.
type Imported struct {
	Tool     string
	Model    string
	Target   string
	Requests []recording.Request
	// DueKnown: the file says when each request was due. Otherwise Due is Sent.
	DueKnown bool
	// Start is the wall time of offset zero; zero: the file does not say.
	Start time.Time
	// Checks compare percentiles of the requests with those that the file states.
	Checks []Check

	// beside reads what the tool wrote beside the file at a path; nil: nothing.
	beside func(in *Imported, path string) error
}

// Check is a percentile that the tool states, and the same of the imported requests.
type Check struct {
	Name      string
	Tool, Own float64 // in seconds
}

// Off is how far the two are apart, as a share of the tool's.
func (c Check) Off() float64 {
	if c.Tool == c.Own {
		return 0
	}
	return math.Abs(c.Own-c.Tool) / math.Abs(c.Tool)
}

// event is one request of a file, with times in seconds of any one clock; NaN is a
// time that is not known.
type event struct {
	due, sent, first, last, end float64
	gaps                        []float64 // between chunks, after the first
	prompt, output              int64
	fromChunks                  bool // output is not as the server counted it
	several                     bool // tokens came at two times or more, or together
	warmup                      bool
	failed                      bool
	status                      int
	why                         string
}

// bySent orders requests by when they were sent; those that never were come first.
func bySent(a, b event) int { return cmp.Compare(a.sent, b.sent) }

// Read reads a file of a known tool, whose format it finds out by itself.
func Read(path string) (Imported, error) {
	f, err := os.Open(path)
	if err != nil {
		return Imported{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return Imported{}, err
	}
	if st.IsDir() {
		return Imported{}, fmt.Errorf("%s is a folder, expected a file with a request each: %s", path, formats)
	}
	if st.Size() > maxFile {
		return Imported{}, fmt.Errorf("%s has %d bytes, expected at most %d", path, st.Size(), int64(maxFile))
	}
	in, err := parse(f)
	if err != nil {
		return Imported{}, fmt.Errorf("%s: %w", path, err)
	}
	if in.beside != nil {
		if err := in.beside(&in, path); err != nil {
			return Imported{}, err
		}
	}
	for _, c := range in.Checks {
		if !(c.Off() <= agreement) {
			return in, fmt.Errorf("%s: the %s of its requests is %.6g s, but the file states %.6g s: they are not of the same run, or of a version of %s that this launchgate does not know", path, c.Name, c.Own, c.Tool, in.Tool)
		}
	}
	return in, nil
}

const (
	toolAIPerf        = "AIPerf"
	toolGuideLLM      = "GuideLLM"
	toolInferencePerf = "inference-perf"
	toolMLPerf        = "MLPerf Endpoints"
	toolVLLM          = "vllm bench"
)

const formats = "profile_export.jsonl of AIPerf, benchmarks.json of GuideLLM, per_request_lifecycle_metrics.json of inference-perf, events.jsonl of MLPerf Endpoints, or a result of vllm bench --save-detailed"

var errUnknown = errors.New("found no format that is known, expected " + formats)

func parse(r io.Reader) (Imported, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxFile))
	if err != nil {
		return Imported{}, err
	}
	b = bytes.TrimSpace(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")))
	switch {
	case len(b) == 0:
		return Imported{}, errors.New("the file is empty")
	case b[0] == '[':
		return readInferencePerf(b)
	case b[0] != '{':
		return Imported{}, errUnknown
	}
	return readObject(b)
}

func readObject(b []byte) (Imported, error) {
	var keys map[string]json.RawMessage
	first := json.NewDecoder(bytes.NewReader(b)) // of AIPerf's lines the first, else all
	if err := first.Decode(&keys); err != nil {
		return Imported{}, fmt.Errorf("it is not whole JSON: %w", err)
	}
	switch {
	case keys["metadata"] != nil && keys["metrics"] != nil:
		return readAIPerf(b)
	case keys["aiperf_version"] != nil:
		return Imported{}, errors.New("found the summary of AIPerf, which has no requests; import " + aiperfRequests + " beside it")
	case keys["event_type"] != nil && keys["timestamp_ns"] != nil:
		return readMLPerf(b)
	case keys["load_summary"] != nil && keys["successes"] != nil:
		return Imported{}, errors.New("found a summary of inference-perf, which has no requests; import per_request_lifecycle_metrics.json, which it writes with report.request_lifecycle.per_request")
	case keys["n_samples_issued"] != nil:
		return Imported{}, errors.New("found the summary of MLPerf Endpoints, which has no requests; import events.jsonl of the same run")
	case keys["ttfts"] != nil:
		return readVLLM(b)
	case keys["request_throughput"] != nil && keys["total_input_tokens"] != nil:
		return Imported{}, errors.New("found a result of vllm bench without its requests; let it write them with --save-detailed")
	case keys["benchmarks"] != nil:
		return readGuideLLM(b)
	}
	return Imported{}, errUnknown
}

var unknown = math.NaN()

// number is a JSON number that may be null or missing.
type number struct {
	value float64
	is    bool
}

func (n *number) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	n.is = true
	return json.Unmarshal(b, &n.value)
}

func (n number) or(other float64) float64 {
	if n.is {
		return n.value
	}
	return other
}

// imported makes requests of events. Times are taken from the earliest, so that a
// clock that began in 1970 loses nothing.
func imported(tool string, events []event) (Imported, error) {
	in := Imported{Tool: tool, DueKnown: true}
	if len(events) == 0 {
		return in, errors.New("it has no request")
	}
	base := math.Inf(1)
	for _, e := range events {
		for _, t := range []float64{e.due, e.sent} {
			if !math.IsNaN(t) {
				base = min(base, t)
			}
		}
		in.DueKnown = in.DueKnown && !math.IsNaN(e.due)
	}
	if math.IsInf(base, 0) {
		return in, errors.New("it does not say when any request was sent")
	}
	bad := 0
	at := func(t float64) time.Duration {
		if math.IsNaN(t) {
			return 0
		}
		offset := (t - base) + 1 // nothing happens at zero
		if offset < 0 || offset > longest.Seconds() {
			bad++
			return 0
		}
		return time.Duration(math.Round(offset * 1e9))
	}
	if base > 1e9 && base < 1e11 { // seconds since 1970
		in.Start = time.UnixMicro(int64((base - 1) * 1e6)).UTC()
	}
	slices.SortStableFunc(events, bySent)
	for _, e := range events {
		q := recording.Request{Seq: int64(len(in.Requests)), Kind: recording.KindLoad, Sent: at(e.sent), End: at(e.end), TokensFrom: "usage"}
		if e.fromChunks {
			q.TokensFrom = "chunks"
		}
		if e.warmup {
			q.Kind = recording.KindWarmup
		}
		q.Due = q.Sent
		if in.DueKnown {
			if q.Due = at(e.due); q.Sent > 0 { // 0: it was never sent
				q.Due = min(q.Due, q.Sent)
			}
		}
		q.PromptTokens, q.OutputTokens = tokens(e.prompt), tokens(e.output)
		if e.failed || q.Sent <= 0 || q.End < q.Sent {
			q.Status = int32(e.status)
			if e.why == "" {
				e.why = "the file says that it failed"
			}
			q.Fail(failure(e.status, e.why), words.Verbatim(e.why))
		} else {
			q.Status = 200
			if q.FirstToken = at(e.first); q.FirstToken > 0 {
				q.Streamed = true
				q.FirstToken = max(q.FirstToken, q.Sent)
				q.FirstByte, q.FirstOutput, q.FirstChunkTokens = q.FirstToken, q.FirstToken, min(q.OutputTokens, 1)
				q.LastToken = min(max(at(e.last), q.FirstToken), q.End)
				q.LastVisible = q.LastToken
				q.Chunks = chunks(q.FirstToken, e.gaps)
			}
		}
		in.Requests = append(in.Requests, q)
	}
	if bad > 0 {
		return in, fmt.Errorf("%d times are before the first request or more than a year after it", bad)
	}
	return in, nil
}

const longest = 366 * 24 * time.Hour

func tokens(n int64) int32 { return int32(min(max(n, 0), math.MaxInt32)) }

func chunks(first time.Duration, gaps []float64) []time.Duration {
	if len(gaps) == 0 || len(gaps) > maxGaps {
		return nil
	}
	all := []time.Duration{first}
	for _, g := range gaps {
		if math.IsNaN(g) || g < 0 || g > longest.Seconds() {
			return nil
		}
		all = append(all, all[len(all)-1]+time.Duration(math.Round(g*1e9)))
	}
	return all
}

// failure is the class of a failure by its status and its text.
func failure(status int, why string) string {
	low := strings.ToLower(why)
	switch {
	case status == 429:
		return recording.ErrorLimited
	case status == 503:
		return recording.ErrorShed
	case strings.Contains(low, "cancel"):
		return recording.ErrorCancelled
	case status >= 400:
		return recording.ErrorStatus
	case strings.Contains(low, "timeout") || strings.Contains(low, "timed out"):
		return recording.ErrorTimeout
	case strings.Contains(low, "connect"):
		return recording.ErrorConnect
	}
	return recording.ErrorInBand
}

// service are the latencies of the successful requests, from when they were sent, in
// seconds.
func service(requests []recording.Request) (ttft, tpot, latency stats) {
	var a, b, c []float64
	for i := range requests {
		q := &requests[i]
		if q.Kind != recording.KindLoad {
			continue
		}
		if d, ok := q.ServiceTTFT(); ok {
			a = append(a, d.Seconds())
		}
		if d, ok := q.TPOT(); ok {
			b = append(b, d.Seconds())
		}
		if d, ok := q.ServiceLatency(); ok {
			c = append(c, d.Seconds())
		}
	}
	return describe(a), describe(b), describe(c)
}

// Into says what an imported run is judged by.
type Into struct {
	Dir        string
	Gate       *scenarios.Gate // nil: one of Objectives alone
	Scenario   string          // of the gate, that the load belongs to; empty: its first
	Objectives []scenarios.Objective
	Version    string
	Command    []string
}

// Write makes the run folder of an imported run. What the file does not say is told
// by an observation, so that the judge does not take it for measured.
func (in Imported) Write(o Into) (err error) {
	gate := scenarios.Gate{Name: "imported", Target: scenarios.Target{Endpoint: &scenarios.Endpoint{URL: "http://imported.invalid"}}, Scenarios: []scenarios.Scenario{{Name: "imported", Stages: []scenarios.Stage{{Name: "main"}}}}}
	if o.Gate != nil {
		gate = *o.Gate
	}
	gate.Objectives = append(slices.Clone(gate.Objectives), o.Objectives...)
	gate.Scenarios = slices.Clone(gate.Scenarios)
	i := 0
	if o.Scenario != "" {
		if i = slices.IndexFunc(gate.Scenarios, func(s scenarios.Scenario) bool { return s.Name == o.Scenario }); i < 0 {
			return fmt.Errorf("found no scenario %q in the gate %s", o.Scenario, gate.Name)
		}
	}
	if len(gate.Scenarios) == 0 || len(gate.Scenarios[i].Stages) == 0 {
		return fmt.Errorf("found no scenario with a stage in the gate %s, expected one that the load belongs to", gate.Name)
	}
	s := &gate.Scenarios[i]
	var offered int64
	var from, to time.Duration
	for _, q := range in.Requests {
		if q.Kind != recording.KindLoad {
			continue
		}
		offered++
		if from == 0 || q.Due < from {
			from = q.Due
		}
		to = max(to, q.Due, q.End)
	}
	if offered == 0 {
		return errors.New("the file has no request but warm-up")
	}
	lasted := (to - from).Truncate(time.Second) + time.Second
	s.Stages = []scenarios.Stage{{Name: s.Stages[0].Name, For: scenarios.Duration(lasted), Rate: scenarios.Rate(math.Round(float64(offered)/lasted.Seconds()*1e3)/1e3 + 0.001), Arrivals: s.Stages[0].Arrivals}}
	s.Classes, s.Vary = nil, nil
	gate.Warmup = scenarios.Warmup{}
	if err := scenarios.Validate(gate.Resolved()); err != nil {
		return err
	}
	text, err := scenarios.Marshal(gate.Resolved())
	if err != nil {
		return err
	}
	w, err := recording.Create(o.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	started := in.Start
	if started.IsZero() {
		started = time.Now().UTC().Truncate(time.Second)
	}
	if err := errors.Join(w.Gate(text), w.Environment(recording.Environment{Version: o.Version, StartedAt: started, Command: o.Command,
		Target: recording.Target{Kind: "endpoint", URL: in.Target, Model: in.Model}})); err != nil {
		return err
	}
	stage := s.Name + "/" + s.Stages[0].Name
	due := 0.0
	if in.DueKnown {
		due = 1
	}
	w.Observe(recording.Observation{At: 1, Name: recording.ObsImported, Subject: in.Tool, Value: due})
	w.Observe(recording.Observation{At: max(from-1, 1), Name: recording.ObsScenarioStarted, Subject: s.Name})
	w.Observe(recording.Observation{At: max(from-1, 1), Name: recording.ObsStageStarted, Subject: stage, Value: float64(offered)})
	for _, q := range in.Requests {
		q.Scenario, q.Stage = s.Name, s.Stages[0].Name
		w.Request(q)
	}
	w.Observe(recording.Observation{At: from + lasted, Name: recording.ObsStageEnded, Subject: stage, Value: float64(offered)})
	w.Observe(recording.Observation{At: from + lasted, Name: recording.ObsScenarioEnded, Subject: s.Name})
	w.Observe(recording.Observation{At: from + lasted, Name: recording.ObsRunEnded})
	return nil
}
