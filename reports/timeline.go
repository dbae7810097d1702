package reports

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

// Timeline is everything that changed during the run, on the run's clock.
// Bin i covers [Start + i·Width, Start + (i+1)·Width).
type Timeline struct {
	Start, Width float64 // seconds
	Bins         int
	Panels       []Panel
	Stages       []StageSpan
	Faults       []FaultSpan
	Heat         []Heat
	Unseen       []words.Phrase // panels nothing was observed for, by their phrase ids
}

// Panel is a chart of series that share a unit.
type Panel struct {
	ID     string // phrase ids are panel.ID and panel.ID.about
	Unit   string
	Series []Series
}

// Series has one value for each bin; NaN where nothing was measured.
type Series struct {
	ID    string // phrase id is series.ID
	Shape string // line | step | bars | band (filled down to the series before it)
	Color string // name of a colour of the page
	Data  []float64
}

// Span is a named stretch of the run's clock, in seconds.
type Span struct {
	Label    string
	From, To float64
}

// StageSpan is a stage on the timeline; its label has both of its names.
type StageSpan struct {
	Span
	Scenario, Stage string
}

// FaultSpan is a fault on the timeline.
type FaultSpan struct {
	Span
	ID    string
	Open  bool // its end was not seen, and To is the end of the timeline
	Marks []Mark
	RTO   *Span // from in effect to recovered
}

// Mark is one moment of a fault's life.
type Mark struct {
	State string // phrase id is mark.State
	At    float64
}

const (
	firstWidth = time.Second
	maxBins    = 512
)

// clockwork bins a stream of requests whose length is not known before it
// ends: when the bins run out, every two become one of twice the width.
type clockwork struct {
	width    time.Duration
	bins     []bin
	timeouts map[string]time.Duration // of the probes of a scenario
}

// bin is what happened in one stretch of time. Requests count where they were
// due, their ends and failures where they were seen.
type bin struct {
	due, sent, finished, failed int64
	opened, closed              int64
	probes, probesFailed        int64
	ttft, icl, probe            sketch
}

func (b *bin) merge(o *bin) {
	b.due += o.due
	b.sent += o.sent
	b.finished += o.finished
	b.failed += o.failed
	b.opened += o.opened
	b.closed += o.closed
	b.probes += o.probes
	b.probesFailed += o.probesFailed
	b.ttft.merge(&o.ttft)
	b.icl.merge(&o.icl)
	b.probe.merge(&o.probe)
}

func newClockwork() *clockwork {
	return &clockwork{width: firstWidth, timeouts: map[string]time.Duration{}}
}

// at is the bin of a moment that happened; t is not negative.
func (c *clockwork) at(t time.Duration) *bin {
	for int64(t/c.width) >= maxBins {
		c.fold()
	}
	i := int(t / c.width)
	if i >= len(c.bins) {
		c.bins = append(c.bins, make([]bin, i+1-len(c.bins))...)
	}
	return &c.bins[i]
}

func (c *clockwork) fold() {
	for i := range c.bins {
		if i%2 == 1 {
			c.bins[i/2].merge(&c.bins[i])
		} else if i > 0 {
			c.bins[i/2] = c.bins[i]
		}
	}
	c.bins = c.bins[:(len(c.bins)+1)/2]
	c.width *= 2
}

func (c *clockwork) request(r *recording.Request) {
	seen := cmp.Or(r.End, r.LastToken, r.FirstToken, r.Sent, r.Due)
	if r.Kind == recording.KindProbe {
		if r.Error == recording.ErrorCancelled {
			return // the scenario ended while it was under way
		}
		b := c.at(cmp.Or(r.Sent, r.Due))
		b.probes++
		if r.Answered(c.timeouts[r.Scenario]) {
			b.probe.add(r.End - cmp.Or(r.Sent, r.Due))
		} else {
			b.probesFailed++
		}
		return
	}
	c.at(r.Due).due++
	if r.Sent > 0 {
		c.at(r.Sent).sent++
		c.at(r.Sent).opened++
		c.at(seen).closed++
	}
	if r.OK() {
		c.at(seen).finished++
	} else {
		c.at(seen).failed++
	}
	if ttft, ok := r.TTFT(); ok {
		c.at(r.Due).ttft.add(ttft)
	}
	r.EachGap(func(gap, at time.Duration) { c.at(at).icl.add(gap) })
}

// timeline draws the panels between two moments of the run.
func (c *clockwork) timeline(from, to time.Duration, rec *recording.Recording) Timeline {
	if to > from {
		c.at(to - 1) // folds where observations outlast the requests
	}
	first := int(from / c.width)
	last := max(int((to-1)/c.width), first)
	if last >= len(c.bins) {
		c.bins = append(c.bins, make([]bin, last+1-len(c.bins))...)
	}
	t := Timeline{Start: (time.Duration(first) * c.width).Seconds(), Width: c.width.Seconds(), Bins: last + 1 - first}
	w := &window{clockwork: c, first: first, last: last, from: from, to: to, observed: byName(rec.Observations)}
	for _, p := range []Panel{w.load(), w.ttft(), w.icl(), w.probe(), w.replicas(), w.streams(), w.kv(), w.memory(), w.power(), w.client()} {
		p.Series = slices.DeleteFunc(p.Series, func(s Series) bool { return !s.measured() })
		if len(p.Series) == 0 {
			t.Unseen = append(t.Unseen, "panel."+words.Phrase(p.ID))
			continue
		}
		t.Panels = append(t.Panels, p)
	}
	t.Heat = w.heats(t)
	return t
}

func (s Series) measured() bool {
	return slices.ContainsFunc(s.Data, func(v float64) bool { return !math.IsNaN(v) })
}

// window is the part of the clock that is drawn.
type window struct {
	*clockwork
	first, last int
	from, to    time.Duration
	observed    map[string]map[string][]recording.Observation // by name and subject
}

func (w *window) load() Panel {
	return Panel{ID: "load", Unit: "per_second", Series: []Series{
		{ID: "errors", Shape: "bars", Color: "bad", Data: w.rate(func(b *bin) int64 { return b.failed })},
		{ID: "offered", Shape: "step", Color: "muted", Data: w.rate(func(b *bin) int64 { return b.due })},
		{ID: "sent", Shape: "step", Color: "blue", Data: w.rate(func(b *bin) int64 { return b.sent })},
		{ID: "finished", Shape: "line", Color: "teal", Data: w.rate(func(b *bin) int64 { return b.finished })},
	}}
}

func (w *window) ttft() Panel {
	return Panel{ID: "ttft", Unit: "s", Series: []Series{
		{ID: "p50", Shape: "line", Color: "blue", Data: w.quantile(0.5, func(b *bin) *sketch { return &b.ttft })},
		{ID: "p95", Shape: "band", Color: "violet", Data: w.quantile(0.95, func(b *bin) *sketch { return &b.ttft })},
	}}
}

func (w *window) icl() Panel {
	return Panel{ID: "icl", Unit: "s", Series: []Series{
		{ID: "p50", Shape: "line", Color: "blue", Data: w.quantile(0.5, func(b *bin) *sketch { return &b.icl })},
		{ID: "p95", Shape: "band", Color: "violet", Data: w.quantile(0.95, func(b *bin) *sketch { return &b.icl })},
	}}
}

func (w *window) probe() Panel {
	// Both are drawn: where none failed, the line says that probes were answered,
	// and where there is neither, there were none.
	failed, answered := make([]float64, w.last-w.first+1), make([]float64, w.last-w.first+1)
	for i := range failed {
		b := &w.bins[w.first+i]
		failed[i], answered[i] = math.NaN(), math.NaN()
		if b.probes > 0 {
			failed[i] = float64(b.probesFailed) / float64(b.probes)
			answered[i] = 1 - failed[i]
		}
	}
	return Panel{ID: "probe", Unit: "ratio", Series: []Series{
		{ID: "probes_failed", Shape: "bars", Color: "bad", Data: failed},
		{ID: "probes_answered", Shape: "step", Color: "teal", Data: answered},
	}}
}

func (w *window) replicas() Panel {
	return Panel{ID: "replicas", Unit: "count", Series: []Series{
		{ID: "ready", Shape: "step", Color: "teal", Data: w.observation(recording.ObsReplicasReady, sum)},
	}}
}

func (w *window) streams() Panel {
	return Panel{ID: "streams", Unit: "count", Series: []Series{
		{ID: "open", Shape: "step", Color: "muted", Data: w.open()},
		{ID: "in_flight", Shape: "step", Color: "blue", Data: w.observation(recording.ObsInFlight, sum)},
		{ID: "queue", Shape: "step", Color: "violet", Data: w.observation(recording.ObsQueue, sum)},
	}}
}

func (w *window) kv() Panel {
	return Panel{ID: "kv", Unit: "ratio", Series: []Series{
		{ID: "kv_max", Shape: "step", Color: "blue", Data: w.observation(recording.ObsKVUsed, highest)},
	}}
}

func (w *window) memory() Panel {
	return Panel{ID: "memory", Unit: "bytes", Series: []Series{
		{ID: "memory", Shape: "step", Color: "blue", Data: w.observation(recording.ObsMemory, sum)},
		{ID: "device_memory", Shape: "step", Color: "violet", Data: w.observation(recording.ObsDeviceMemory, sum)},
	}}
}

func (w *window) power() Panel {
	return Panel{ID: "power", Unit: "watts", Series: []Series{
		{ID: "power", Shape: "step", Color: "teal", Data: w.observation(recording.ObsPower, sum)},
	}}
}

func (w *window) client() Panel {
	return Panel{ID: "client", Unit: "ratio", Series: []Series{
		{ID: "client_cpu", Shape: "step", Color: "blue", Data: w.observation(recording.ObsClientCPU, highest)},
	}}
}

// rate is a count per second in each bin. The first and last bin are divided
// by the part of them that lies in the window.
func (w *window) rate(count func(*bin) int64) []float64 {
	data := make([]float64, w.last-w.first+1)
	for i := range data {
		begin := max(time.Duration(w.first+i)*w.width, w.from)
		end := min(time.Duration(w.first+i+1)*w.width, w.to)
		// A sliver would make one request look like a burst.
		data[i] = float64(count(&w.bins[w.first+i])) / max(end-begin, w.width/4).Seconds()
	}
	return data
}

func (w *window) quantile(q float64, of func(*bin) *sketch) []float64 {
	data := make([]float64, w.last-w.first+1)
	for i := range data {
		data[i] = math.NaN()
		if d, ok := of(&w.bins[w.first+i]).quantile(q); ok {
			data[i] = d.Seconds()
		}
	}
	return data
}

// open is how many requests the client was waiting for at the end of each bin.
func (w *window) open() []float64 {
	var now int64
	for i := range w.first {
		now += w.bins[i].opened - w.bins[i].closed
	}
	data := make([]float64, w.last-w.first+1)
	for i := range data {
		now += w.bins[w.first+i].opened - w.bins[w.first+i].closed
		data[i] = float64(now)
	}
	return data
}

func sum(values []float64) float64 {
	var total float64
	for _, v := range values {
		total += v
	}
	return total
}

func highest(values []float64) float64 { return slices.Max(values) }

// observation is a value that was looked at from time to time, joined over its
// subjects. A value holds until the next look; where looks stopped coming for
// much longer than usual it is unknown, and the line has a gap.
func (w *window) observation(name string, join func([]float64) float64) []float64 {
	data := make([]float64, w.last-w.first+1)
	subjects := w.observed[name]
	hold := patience(subjects, w.width)
	for i := range data {
		end := time.Duration(w.first+i+1) * w.width
		var known []float64
		for _, subject := range sortedKeys(subjects) {
			if v, ok := lastSeen(subjects[subject], end, hold); ok {
				known = append(known, v)
			}
		}
		data[i] = math.NaN()
		if len(known) > 0 {
			data[i] = join(known)
		}
	}
	return data
}

// patience is how long a look at a value stands for it: three times the usual
// time between looks at one subject.
func patience(subjects map[string][]recording.Observation, width time.Duration) time.Duration {
	var between []time.Duration
	for _, seen := range subjects {
		for i := 1; i < len(seen); i++ {
			between = append(between, seen[i].At-seen[i-1].At)
		}
	}
	if len(between) == 0 {
		return width
	}
	slices.Sort(between)
	return max(3*between[len(between)/2], width)
}

func lastSeen(seen []recording.Observation, end, hold time.Duration) (float64, bool) {
	i, _ := slices.BinarySearchFunc(seen, end, func(o recording.Observation, t time.Duration) int { return cmp.Compare(o.At, t) })
	if i == 0 || end-seen[i-1].At > hold || math.IsNaN(seen[i-1].Value) || math.IsInf(seen[i-1].Value, 0) {
		return 0, false
	}
	return seen[i-1].Value, true
}

func byName(observations []recording.Observation) map[string]map[string][]recording.Observation {
	names := map[string]map[string][]recording.Observation{}
	for _, o := range observations {
		if names[o.Name] == nil {
			names[o.Name] = map[string][]recording.Observation{}
		}
		names[o.Name][o.Subject] = append(names[o.Name][o.Subject], o)
	}
	for _, subjects := range names {
		for _, seen := range subjects {
			slices.SortStableFunc(seen, func(a, b recording.Observation) int { return cmp.Compare(a.At, b.At) })
		}
	}
	return names
}

// holes are the stretches in which a series that was measured elsewhere was
// not measured.
func holes(s Series, t Timeline) []Span {
	var found []Span
	begin := -1
	for i := 0; i <= len(s.Data); i++ {
		missing := i < len(s.Data) && math.IsNaN(s.Data[i])
		if missing && begin < 0 {
			begin = i
		}
		if !missing && begin >= 0 {
			found = append(found, Span{From: t.Start + float64(begin)*t.Width, To: t.Start + float64(i)*t.Width})
			begin = -1
		}
	}
	return found
}

// stageSpans pairs the starts and ends of stages; one that never ended ends
// with the timeline.
func stageSpans(observations []recording.Observation, to time.Duration) []StageSpan {
	var spans []StageSpan
	open := map[string]int{}
	for _, o := range observations {
		switch o.Name {
		case recording.ObsStageStarted:
			open[o.Subject] = len(spans)
			scenario, stage, _ := strings.Cut(o.Subject, "/")
			spans = append(spans, StageSpan{Span{Label: o.Subject, From: o.At.Seconds(), To: to.Seconds()}, scenario, stage})
		case recording.ObsStageEnded:
			if i, ok := open[o.Subject]; ok {
				spans[i].To = o.At.Seconds()
			}
		}
	}
	return spans
}

// faultSpan shades a fault from the moment it was asked for until the service
// was seen whole again, whichever of its marks came last.
func faultSpan(f checklist.Fault, to time.Duration) (FaultSpan, bool) {
	s := FaultSpan{ID: f.ID, Span: Span{Label: faultName(f)}}
	for _, m := range []struct {
		state string
		at    *float64
	}{
		{"injected", f.InjectedAt}, {"in_effect", f.InEffectAt}, {"reverted", f.RevertedAt},
		{"gone", f.GoneAt}, {"recovered", f.RecoveredAt},
	} {
		if m.at != nil {
			s.Marks = append(s.Marks, Mark{State: m.state, At: *m.at})
		}
	}
	if len(s.Marks) == 0 {
		return s, false
	}
	slices.SortStableFunc(s.Marks, func(a, b Mark) int { return cmp.Compare(a.At, b.At) })
	s.From, s.To = s.Marks[0].At, s.Marks[len(s.Marks)-1].At
	if f.GoneAt == nil && f.RecoveredAt == nil {
		s.Open, s.To = true, max(to.Seconds(), s.To)
	}
	if f.InEffectAt != nil && f.RecoveredAt != nil {
		s.RTO = &Span{From: *f.InEffectAt, To: *f.RecoveredAt}
	}
	return s, true
}

func faultName(f checklist.Fault) string {
	if f.Target == "" {
		return f.Kind
	}
	return f.Kind + " · " + f.Target
}
