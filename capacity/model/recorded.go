package model

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// Recorded is a stage of a recording, as a model sees it.
type Recorded struct {
	Run      string // the folder
	Stage    string // scenario/stage
	Seconds  float64
	Requests []recording.Request // of its load, in the order of their due times
	start    float64
}

// rate is what was really drawn.
func (r Recorded) rate() float64 { return float64(len(r.Requests)) / r.Seconds }

// Service is what recordings were made of.
type Service struct {
	Model    string             `json:"model,omitempty"`
	URL      string             `json:"url,omitempty"`
	Replicas int                `json:"replicas"`
	Settings recording.Settings `json:"settings,omitzero"`
	Devices  []string           `json:"devices,omitempty"`
	Host     string             `json:"host,omitempty"` // the processor of the client's machine
}

// Served is the service of a recording. An endpoint does not tell how many replicas it
// has; then it is one, which is simulated as a whole.
func Served(rec *recording.Recording, gate scenarios.Gate) Service {
	t := rec.Environment.Target
	s := Service{Model: t.Model, URL: t.URL, Replicas: max(1, t.Replicas), Settings: t.Settings, Host: rec.Environment.Host.CPU}
	if gate.Cost != nil && t.Replicas == 0 && gate.Cost.Replicas > 0 {
		s.Replicas = gate.Cost.Replicas
	}
	if t.Kind == "local" {
		s.URL = "" // a free port, another one in each run
	}
	for _, seat := range t.Seats {
		s.Devices = append(s.Devices, seat.Device)
	}
	return s
}

const (
	leastStages   = 3  // stages of which one can be held out
	leastRequests = 30 // in a stage
	mostErrors    = 0.01
)

// Read takes the stages of a recording that a model can be fitted to. Left out are
// scenarios with faults, stages with users, and stages with errors, each with the reason.
func Read(gate scenarios.Gate, rec *recording.Recording) (stages []Recorded, left []string, err error) {
	if !rec.Complete {
		return nil, nil, fmt.Errorf("%s: the run was interrupted, expected a complete one", rec.Dir)
	}
	for _, o := range rec.Observations {
		if o.Name == recording.ObsImported && o.Value != 1 {
			return nil, nil, fmt.Errorf("%s: found a run of %s, which does not say when requests were due, expected a run of launchgate", rec.Dir, o.Subject)
		}
	}
	began := map[string]time.Duration{}
	for _, o := range rec.Observations {
		if o.Name == recording.ObsStageStarted {
			began[o.Subject] = o.At
		}
	}
	at := map[string]int{}
	for _, s := range gate.Scenarios {
		for _, st := range s.Stages {
			name := s.Name + "/" + st.Name
			start, seen := began[name]
			switch {
			case !seen:
				continue
			case len(s.Faults) > 0:
				left = append(left, name+": faults were injected")
			case st.Users > 0:
				left = append(left, name+": its load was a closed loop")
			case !*s.Workload.Stream:
				left = append(left, name+": its answers were not streamed")
			default:
				at[name] = len(stages)
				stages = append(stages, Recorded{Run: rec.Dir, Stage: name, Seconds: time.Duration(st.For).Seconds(), start: start.Seconds()})
			}
		}
	}
	for r, err := range rec.Requests {
		if err != nil {
			return nil, nil, err
		}
		if i, ok := at[r.Scenario+"/"+r.Stage]; ok && r.Kind == recording.KindLoad {
			r.Chunks = nil
			stages[i].Requests = append(stages[i].Requests, r)
		}
	}
	good := stages[:0]
	for _, st := range stages {
		failed, uncounted := 0, 0
		for _, r := range st.Requests {
			if !r.OK() {
				failed++
			} else if r.PromptTokens == 0 || r.OutputTokens == 0 {
				uncounted++
			}
		}
		slices.SortFunc(st.Requests, func(a, b recording.Request) int { return cmp.Compare(a.Due, b.Due) })
		switch n := len(st.Requests); {
		case n < leastRequests:
			left = append(left, fmt.Sprintf("%s: it has %d requests, and %d are needed", st.Stage, n, leastRequests))
		case float64(failed) > mostErrors*float64(n):
			left = append(left, fmt.Sprintf("%s: %d of %d requests failed, and a model knows no failures", st.Stage, failed, n))
		case uncounted > 0:
			left = append(left, fmt.Sprintf("%s: the service does not report the tokens of %d prompts or answers", st.Stage, uncounted))
		default:
			good = append(good, st)
		}
	}
	return good, left, nil
}

// computed are the tokens of a prompt that are computed: without those from a cache.
func computed(r *recording.Request) int { return int(max(1, r.PromptTokens-r.CachedTokens)) }

// asks are the requests of stages that followed one another, as they were sent.
func asks(stages []Recorded) (all []Ask) {
	for _, st := range stages {
		for _, r := range st.Requests {
			all = append(all, Ask{Due: r.Due.Seconds(), Prompt: computed(&r), Output: int(max(1, r.OutputTokens))})
		}
	}
	return all
}

// rows are simulated answers as a recording has them, so that they are judged and
// summed up like real ones.
func rows(asks []Ask, answers []Answer) []recording.Request {
	all := make([]recording.Request, len(asks))
	for i, a := range answers {
		due := seconds(asks[i].Due) + 1
		all[i] = recording.Request{
			Kind: recording.KindLoad, Streamed: true, Due: due, Sent: due, FirstByte: seconds(a.First) + 1, FirstToken: seconds(a.First) + 1,
			FirstOutput: seconds(a.First) + 1, LastToken: seconds(a.Last) + 1, LastVisible: seconds(a.Last) + 1, End: seconds(a.End) + 1, Status: 200,
			PromptTokens: int32(asks[i].Prompt), OutputTokens: int32(asks[i].Output), FirstChunkTokens: 1, FinishReason: "length", TokensFrom: "usage",
		}
	}
	return all
}

func seconds(s float64) time.Duration { return time.Duration(math.Round(s * 1e9)) }

// Names of the measures of a stage.
const (
	TTFT50  = "ttft_p50"
	TTFT95  = "ttft_p95"
	TPOT50  = "tpot_p50"
	TPOT95  = "tpot_p95"
	Tokens  = "tokens_per_second"
	Goodput = "goodput"
)

// Measures are all of them, in the order in which they are shown.
var Measures = []string{TTFT50, TTFT95, TPOT50, TPOT95, Tokens, Goodput}

// Measured are measures by their names. Times are in seconds; one that does not exist is
// missing.
type Measured map[string]float64

// measure sums up the requests of a stage that lasts from a moment for some seconds.
// Tokens count at the time at which their answer ended.
func measure(requests []recording.Request, from, seconds float64, good func(*recording.Request) bool) Measured {
	var ttft, tpot []float64
	tokens, met := 0.0, 0.0
	for i := range requests {
		r := &requests[i]
		due := r.Due.Seconds()
		if end := r.End.Seconds(); r.OK() && end >= from && end < from+seconds {
			tokens += float64(r.OutputTokens)
		}
		if due < from || due >= from+seconds {
			continue
		}
		if v, ok := r.TTFT(); ok {
			ttft = append(ttft, v.Seconds())
		}
		if v, ok := r.TPOT(); ok {
			tpot = append(tpot, v.Seconds())
		}
		if good != nil && good(r) {
			met++
		}
	}
	m := Measured{Tokens: tokens / seconds}
	if good != nil {
		m[Goodput] = met / seconds
	}
	slices.Sort(ttft)
	slices.Sort(tpot)
	if len(ttft) > 0 {
		m[TTFT50], m[TTFT95] = quantile(ttft, 0.5), quantile(ttft, 0.95)
	}
	if len(tpot) > 0 {
		m[TPOT50], m[TPOT95] = quantile(tpot, 0.5), quantile(tpot, 0.95)
	}
	return m
}
