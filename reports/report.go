// Package reports writes the reports of a run. Build turns a gate, a recording and
// its verdict into a Report: plain data that already holds everything a reader will
// see. HTML, JUnit, Markdown and Terminal only format it.
// Nothing here judges, reads the clock or depends on the order of a map: the
// same folder gives the same bytes, now or in a year.
package reports

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/checklist/release"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Report is everything that a report says about a run.
type Report struct {
	Language    Language // of its text; the zero value is English
	Gate        string
	Description string
	Verdict     checklist.Verdict
	Objectives  []Objective // the deciding ones first
	Next        []words.Sentence
	// Reproduce is the command that repeats the run, given in its folder.
	Reproduce   string
	Environment recording.Environment
	From, To    float64 // the measured part of the run, seconds on its clock
	Load        []LoadRow
	Requests    int64 // of load
	Errors      int64
	// UnderWay: the run has not ended and has no verdict yet.
	UnderWay bool
	// Interrupted says what stopped the run from outside, and when.
	Interrupted *Interruption
	Missing     []words.Sentence // what could not be read or was not observed
	Timeline    Timeline
	Faults      []Fault
	// Scan is what the checks of a security scan came to, where there was one, and
	// Scanned whether it was made to its end.
	Scan    []recording.ScanResult
	Scanned bool
	// Checklist is what the go-live checklist came to, where it was held against
	// this run.
	Checklist *release.Result

	Distributions []Distribution
	Stages        []StageRow
	ErrorCounts   []ErrorCount
	Failed        []Story
	SlowFirst     []Story // longest to the first token
	SlowEnd       []Story // longest to the end
}

// Interruption is a run that was stopped before its end.
type Interruption struct {
	At       float64
	By       words.Sentence
	NotBegun bool     // it could not be made at all; By says why
	Unplayed []string // stages of the gate that never started
}

// Fault is a fault with how each of its steps was seen.
type Fault struct {
	checklist.Fault
	Seen []recording.Injection
}

const (
	slowestKept      = 6
	failedKept       = 4  // of each scenario and kind of error
	maxFailedStories = 24 // at most, of all
	longestRun       = 366 * 24 * time.Hour
)

// Build reads the recording once. Its memory does not grow with the recording:
// it keeps bins, sketches, and the few requests that the report shows in
// detail.
func Build(gate scenarios.Gate, rec *recording.Recording, v checklist.Verdict) (Report, error) {
	pass := newPass(gate)
	for request, err := range rec.Requests {
		if err != nil {
			return Report{}, fmt.Errorf("build the report: %w", err)
		}
		pass.request(&request)
	}
	r := Report{
		Gate:        gate.Name,
		Description: gate.Description,
		Verdict:     v,
		Objectives:  objectives(gate, v),
		Reproduce:   reproduce(rec.Environment),
		Environment: rec.Environment,
		Requests:    pass.all.requests,
		Errors:      pass.all.errors,
		Interrupted: interruption(gate, rec),
		Scan:        rec.Scan,
		Scanned:     slices.ContainsFunc(rec.Observations, func(o recording.Observation) bool { return o.Name == recording.ObsScanEnded }),
		Faults:      faults(v, rec.Injections),
		ErrorCounts: pass.failures.counts(),
		Failed:      pass.failures.stories(),
		SlowFirst:   pass.slowFirst.stories(),
		SlowEnd:     pass.slowEnd.stories(),
	}
	r.Failed = r.Failed[:min(len(r.Failed), maxFailedStories)]
	pass.tellLatencies(&r)
	r.timeline(pass, rec)
	r.Load = loadRows(gate.Resolved(), r)
	r.Missing = missing(gate, rec, pass, r)
	r.Next = next(r)
	words.HarmlessIn(&r) // the reader has made the recording so; this is of the gate
	return r, nil
}

// pass is one reading of the requests.
type pass struct {
	clock              *clockwork
	all                latencies
	scenarios          []string // in the gate's order, then as met
	stages             map[string][]stageKey
	byScenario         map[string]*latencies
	byStage            map[stageKey]*latencies
	slowFirst, slowEnd slowest
	failures           *failures
	first, last        time.Duration
	impossible         int64 // requests whose times cannot be
}

func newPass(gate scenarios.Gate) *pass {
	p := &pass{
		clock:      newClockwork(),
		stages:     map[string][]stageKey{},
		byScenario: map[string]*latencies{},
		byStage:    map[stageKey]*latencies{},
		slowFirst:  slowest{keep: slowestKept},
		slowEnd:    slowest{keep: slowestKept},
		failures:   newFailures(failedKept),
	}
	for _, s := range gate.Resolved().Scenarios {
		p.scenario(s.Name)
		if s.Probe != nil {
			p.clock.timeouts[s.Name] = time.Duration(s.Probe.Timeout)
		}
		for _, stage := range s.Stages {
			p.stage(s.Name, stage.Name, "").users = stage.Users
			for _, class := range s.Classes {
				p.stage(s.Name, stage.Name, class.Name)
			}
		}
	}
	return p
}

func (p *pass) scenario(name string) *latencies {
	if p.byScenario[name] == nil {
		p.scenarios = append(p.scenarios, name)
		p.byScenario[name] = &latencies{}
	}
	return p.byScenario[name]
}

// stageKey names the requests of a stage, or with a class those of it that are
// of the class.
type stageKey struct{ scenario, stage, class string }

func (p *pass) stage(scenario, name, class string) *latencies {
	key := stageKey{scenario, name, class}
	if p.byStage[key] == nil {
		p.stages[scenario] = append(p.stages[scenario], key)
		p.byStage[key] = &latencies{}
	}
	return p.byStage[key]
}

func (p *pass) request(r *recording.Request) {
	if r.Kind != recording.KindLoad && r.Kind != recording.KindProbe {
		return
	}
	if !possible(r) {
		p.impossible++
		return
	}
	p.clock.request(r)
	if r.Kind != recording.KindLoad {
		return
	}
	if p.first == 0 || r.Due < p.first {
		p.first = r.Due
	}
	p.last = max(p.last, r.Due, r.End)
	p.all.requests++
	p.scenario(r.Scenario).request(r)
	p.stage(r.Scenario, r.Stage, "").request(r)
	if r.Class != "" {
		p.stage(r.Scenario, r.Stage, r.Class).request(r)
	}
	if !r.OK() {
		p.all.errors++
		p.failures.add(r)
		return
	}
	if ttft, ok := r.TTFT(); ok {
		p.slowFirst.offer(ttft, r)
	}
	if latency, ok := r.Latency(); ok {
		p.slowEnd.offer(latency, r)
	}
}

func possible(r *recording.Request) bool {
	in := func(t time.Duration) bool { return t >= 0 && t < longestRun }
	for _, t := range r.Chunks {
		if !in(t) {
			return false
		}
	}
	return in(r.Due) && in(r.Sent) && in(r.FirstByte) && in(r.FirstToken) && in(r.LastToken) && in(r.End)
}

func (p *pass) tellLatencies(r *Report) {
	for _, name := range p.scenarios {
		r.Distributions = append(r.Distributions, p.byScenario[name].distributions(name)...)
		for _, key := range p.stages[name] {
			l := p.byStage[key]
			r.Stages = append(r.Stages, StageRow{
				Scenario: name, Stage: key.stage, Class: key.class, Users: l.users, Requests: l.requests, Errors: l.errors,
				TTFT: stageQuantiles(&l.ttft), ICL: stageQuantiles(&l.icl),
			})
		}
	}
}

// timeline covers the scenarios: from the first one's start, or the first
// request due, to the last thing that happened to a request or a scenario.
func (r *Report) timeline(p *pass, rec *recording.Recording) {
	from, to := p.first, p.last
	for _, o := range rec.Observations {
		if o.At <= 0 || o.At >= longestRun {
			continue
		}
		switch o.Name {
		case recording.ObsScenarioStarted:
			if from == 0 || o.At < from {
				from = o.At
			}
		case recording.ObsScenarioEnded, recording.ObsInterrupted:
			to = max(to, o.At)
		}
	}
	r.From, r.To = from.Seconds(), to.Seconds()
	if p.all.requests == 0 || to <= from {
		return
	}
	r.Timeline = p.clock.timeline(from, to, rec)
	r.Timeline.Stages = stageSpans(rec.Observations, to)
	for _, f := range r.Verdict.Faults {
		if span, ok := faultSpan(f, to); ok {
			r.Timeline.Faults = append(r.Timeline.Faults, span)
		}
	}
	for _, stories := range [][]Story{r.Failed, r.SlowFirst, r.SlowEnd} {
		for i := range stories {
			stories[i].InFault = r.Timeline.faultsDuring(stories[i].Due, stories[i].Due+stories[i].Last())
		}
	}
}

func (t Timeline) faultsDuring(from, to float64) []string {
	var met []string
	for _, f := range t.Faults {
		if f.From <= to && from <= f.To {
			met = append(met, f.ID)
		}
	}
	return met
}

func faults(v checklist.Verdict, injections []recording.Injection) []Fault {
	var shown []Fault
	for _, f := range v.Faults {
		fault := Fault{Fault: f}
		for _, i := range injections {
			if i.ID == f.ID {
				fault.Seen = append(fault.Seen, i)
			}
		}
		shown = append(shown, fault)
	}
	return shown
}

func interruption(gate scenarios.Gate, rec *recording.Recording) *Interruption {
	if rec.Complete {
		return nil
	}
	var found Interruption
	started := map[string]bool{}
	for _, o := range rec.Observations {
		found.At = max(found.At, o.At.Seconds())
		switch o.Name {
		case recording.ObsStageStarted:
			started[o.Subject] = true
		case recording.ObsCouldNotRun:
			found.NotBegun, found.By = true, o.Text
		case recording.ObsInterrupted:
			if found.By.IsZero() {
				found.By = o.Text
			}
		}
	}
	for _, s := range gate.Scenarios {
		for _, stage := range s.Stages {
			if name := s.Name + "/" + stage.Name; !started[name] {
				found.Unplayed = append(found.Unplayed, name)
			}
		}
	}
	return &found
}

// missing lists the data that is missing, so that no reader takes an incomplete
// chart for a complete one.
func missing(gate scenarios.Gate, rec *recording.Recording, p *pass, r Report) []words.Sentence {
	var notes []words.Sentence
	notes = append(notes, rec.Warnings...)
	if p.impossible > 0 {
		notes = append(notes, words.Say("missing.impossible", count(p.impossible)))
	}
	for _, name := range p.scenarios {
		if p.byScenario[name].requests == 0 {
			notes = append(notes, words.Say("missing.scenario", name))
		}
	}
	if gate.Chunks != scenarios.ChunksAll && gate.Chunks != "" {
		notes = append(notes, words.Say("missing.chunks", gate.Chunks))
	}
	for _, panel := range r.Timeline.Unseen {
		notes = append(notes, words.Say("missing.panel", words.Say(panel)))
	}
	for _, panel := range r.Timeline.Panels {
		for _, s := range panel.Series {
			if !observedSeries[s.ID] {
				continue
			}
			for _, hole := range holes(s, r.Timeline) {
				if hole.From == r.Timeline.Start && hole.To-hole.From < 2*r.Timeline.Width+1e-9 {
					continue // before the first look
				}
				notes = append(notes, words.Say("missing.hole", words.Say("series."+words.Phrase(s.ID)), clock(hole.From), clock(hole.To)))
			}
		}
	}
	return notes
}

// observedSeries are polled from outside, so a gap in them means that a poll failed.
// A gap in a latency only means that there was no request.
var observedSeries = map[string]bool{
	"ready": true, "in_flight": true, "queue": true, "kv_max": true, "memory": true, "device_memory": true, "power": true, "client_cpu": true,
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
