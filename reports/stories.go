package reports

import (
	"cmp"
	"html/template"
	"slices"
	"strconv"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

// Story is what happened to one request, in times since it was due.
// Times after Due are seconds since Due, nil where the step was not reached.
type Story struct {
	Scenario, Stage string
	Seq             int64
	Due             float64 // on the run's clock
	Sent            *float64
	FirstByte       *float64
	FirstToken      *float64
	LastToken       *float64
	End             *float64
	Chunks          int
	// Stall is the longest wait between two chunks.
	Stall        *Span
	OutputTokens int32
	Replica      string
	Retries      int32
	Status       int32
	Finish       string
	Error        string
	Text         words.Sentence
	InFault      []string // ids of the faults whose span it met
}

// Last is when the story ends.
func (s Story) Last() float64 {
	for _, p := range []*float64{s.End, s.LastToken, s.FirstToken, s.FirstByte, s.Sent} {
		if p != nil {
			return *p
		}
	}
	return 0
}

func tell(r *recording.Request) Story {
	since := func(t time.Duration) *float64 {
		if t <= 0 {
			return nil
		}
		s := (t - r.Due).Seconds()
		return &s
	}
	s := Story{
		Scenario: r.Scenario, Stage: r.Stage, Seq: r.Seq, Due: r.Due.Seconds(),
		Sent: since(r.Sent), FirstByte: since(r.FirstByte), FirstToken: since(r.FirstToken),
		LastToken: since(r.LastToken), End: since(r.End),
		Chunks: len(r.Chunks), OutputTokens: r.OutputTokens, Replica: r.Replica, Retries: r.Retries,
		Status: r.Status, Finish: r.FinishReason, Error: r.Failure(), Text: r.FailureText(),
	}
	for i := 1; i < len(r.Chunks); i++ {
		if gap := (r.Chunks[i] - r.Chunks[i-1]).Seconds(); s.Stall == nil || gap > s.Stall.To-s.Stall.From {
			s.Stall = &Span{From: (r.Chunks[i-1] - r.Due).Seconds(), To: (r.Chunks[i] - r.Due).Seconds()}
		}
	}
	return s
}

func shorten(s string, most int) string {
	runes := []rune(s)
	if len(runes) <= most {
		return s
	}
	return string(runes[:most]) + "…"
}

// slowest keeps the few requests with the largest measure, largest first. Ties
// keep the earlier one, so that the order of the file decides and not chance.
type slowest struct {
	keep int
	top  []ranked
}

type ranked struct {
	by    time.Duration
	story Story
}

func (s *slowest) offer(by time.Duration, r *recording.Request) {
	if len(s.top) == s.keep && by <= s.top[s.keep-1].by {
		return
	}
	i, _ := slices.BinarySearchFunc(s.top, by, func(have ranked, by time.Duration) int {
		if have.by >= by {
			return -1
		}
		return 1
	})
	s.top = slices.Insert(s.top, i, ranked{by, tell(r)})
	if len(s.top) > s.keep {
		s.top = s.top[:s.keep]
	}
}

func (s *slowest) stories() []Story {
	var stories []Story
	for _, r := range s.top {
		stories = append(stories, r.story)
	}
	return stories
}

// ErrorCount is how often requests of a scenario failed in one way.
type ErrorCount struct {
	Scenario, Error string
	Count           int64
	Replicas        []ReplicaCount // most first
}

// ReplicaCount is how many of them a replica answered.
type ReplicaCount struct {
	Replica string
	Count   int64
}

// failures counts every failed request and keeps the first few of each kind.
type failures struct {
	keep  int
	kinds map[failureKind]*failure
}

type failureKind struct{ scenario, err string }

type failure struct {
	count    int64
	replicas map[string]int64
	first    []Story
}

const maxReplicaNames = 256 // a service that names a replica per request must not grow the report

func newFailures(keep int) *failures {
	return &failures{keep: keep, kinds: map[failureKind]*failure{}}
}

func (f *failures) add(r *recording.Request) {
	kind := failureKind{r.Scenario, r.Failure()}
	seen := f.kinds[kind]
	if seen == nil {
		seen = &failure{replicas: map[string]int64{}}
		f.kinds[kind] = seen
	}
	seen.count++
	if _, known := seen.replicas[r.Replica]; r.Replica != "" && (known || len(seen.replicas) < maxReplicaNames) {
		seen.replicas[r.Replica]++
	}
	if len(seen.first) < f.keep {
		seen.first = append(seen.first, tell(r))
	}
}

func (f *failures) counts() []ErrorCount {
	var counts []ErrorCount
	for kind, seen := range f.kinds {
		c := ErrorCount{Scenario: kind.scenario, Error: kind.err, Count: seen.count}
		for _, name := range sortedKeys(seen.replicas) {
			c.Replicas = append(c.Replicas, ReplicaCount{name, seen.replicas[name]})
		}
		slices.SortStableFunc(c.Replicas, func(a, b ReplicaCount) int { return cmp.Compare(b.Count, a.Count) })
		counts = append(counts, c)
	}
	slices.SortFunc(counts, func(a, b ErrorCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Scenario, b.Scenario), cmp.Compare(a.Error, b.Error))
	})
	return counts
}

func (f *failures) stories() []Story {
	var stories []Story
	for _, seen := range f.kinds {
		stories = append(stories, seen.first...)
	}
	slices.SortFunc(stories, func(a, b Story) int {
		return cmp.Or(cmp.Compare(a.Due, b.Due), cmp.Compare(a.Scenario, b.Scenario), cmp.Compare(a.Seq, b.Seq))
	})
	return stories
}

// storyRow is a story with its drawing and its words.
type storyRow struct {
	Story Story
	Chart template.HTML
	Text  string
}

func storyRows(r Report, stories []Story) []storyRow {
	scale := 0.0
	for _, s := range stories {
		scale = max(scale, s.Last())
	}
	var rows []storyRow
	for _, s := range stories {
		rows = append(rows, storyRow{Story: s, Chart: storySVG(s, max(scale, 1e-6)), Text: storyText(r, s)})
	}
	return rows
}

// storyText describes the request step by step. A step that did not happen is named
// too.
func storyText(r Report, s Story) string {
	l := r.Language
	said := []string{l.say("story.due", clock(s.Due))}
	tell := func(id words.Phrase, args ...any) { said = append(said, l.say(id, args...)) }
	if s.Sent == nil {
		tell("story.never_sent")
	} else {
		tell("story.sent", seconds(*s.Sent))
		if s.FirstByte != nil {
			tell("story.headers", seconds(*s.FirstByte))
		}
		if s.FirstToken != nil {
			tell("story.first", seconds(*s.FirstToken))
		} else {
			tell("story.no_token")
		}
		if s.Stall != nil {
			tell("story.chunks", count(int64(s.Chunks)), seconds(s.Stall.To-s.Stall.From), seconds(s.Stall.From))
		}
		if s.OutputTokens > 0 {
			tell("story.tokens", count(int64(s.OutputTokens)))
		}
		if s.End != nil {
			tell("story.end", seconds(*s.End))
		} else {
			tell("story.no_end")
		}
	}
	if s.Status != 0 {
		tell("story.status", strconv.Itoa(int(s.Status)))
	}
	if s.Finish != "" {
		tell("story.finish", s.Finish)
	}
	if s.Replica != "" {
		tell("story.replica", s.Replica)
	}
	if s.Retries > 0 {
		tell("story.retries", count(int64(s.Retries)))
	}
	if len(s.InFault) > 0 {
		tell("story.fault", r.faultLabels(s.InFault))
	}
	return l.join("text.sentences", said)
}
