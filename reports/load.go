package reports

import (
	"path/filepath"
	"time"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// LoadRow is the load that a stage planned, and what was sent.
type LoadRow struct {
	Scenario string
	Stage    scenarios.Stage // as the gate has it, resolved
	Highest  float64         // requests a second; 0: of users and traces nobody knows before
	Played   float64         // seconds; 0: it never started
	Requests int64
	Errors   int64
}

// loadRows are the stages of the gate, with how they were played.
func loadRows(gate scenarios.Gate, r Report) []LoadRow {
	var rows []LoadRow
	for _, s := range gate.Scenarios {
		for _, stage := range s.Stages {
			row := LoadRow{Scenario: s.Name, Stage: stage, Highest: highestRate(stage)}
			for _, span := range r.Timeline.Stages {
				if span.Scenario == s.Name && span.Stage == stage.Name {
					row.Played = span.To - span.From
				}
			}
			for _, played := range r.Stages {
				if played.Scenario == s.Name && played.Stage == stage.Name && played.Class == "" {
					row.Requests, row.Errors = played.Requests, played.Errors
				}
			}
			rows = append(rows, row)
		}
	}
	return rows
}

func highestRate(s scenarios.Stage) float64 {
	if s.Users > 0 || s.Trace != nil {
		return 0
	}
	highest := float64(s.Rate)
	if s.To != nil {
		highest = max(highest, float64(*s.To))
	}
	return highest
}

// peak is the highest rate that the gate asks for, and the most users at a time.
func peak(rows []LoadRow) (rate float64, users int) {
	for _, row := range rows {
		rate, users = max(rate, row.Highest), max(users, row.Stage.Users)
	}
	return rate, users
}

// asked says what load a stage is: its rate and shape, its trace or its users.
func asked(s scenarios.Stage) words.Sentence {
	rate := perSecond(float64(s.Rate))
	switch {
	case s.Users > 0 && s.Think > 0:
		return words.Say("load.users.thinking", s.Users, seconds(time.Duration(s.Think).Seconds()))
	case s.Users > 0:
		return words.Say("load.users", s.Users)
	case s.Trace != nil:
		return words.Say("load.trace", filepath.Base(s.Trace.File), digits(s.Trace.Speed))
	}
	if s.To != nil {
		rate = words.Say("shape."+words.Phrase(s.Shape), rate, perSecond(float64(*s.To)))
	}
	return words.Say("arrivals."+words.Phrase(s.Arrivals), rate)
}

func perSecond(v float64) words.Sentence { return value(v, scenarios.UnitPerSecond) }

// loadPage compares every stage with the highest rate of the gate.
type loadPage struct {
	About string
	Rows  []loadLine
}

type loadLine struct {
	Name                          string
	Lasts, Asked, OfPeak, Offered string
	Requests, Errors              string
}

func loadView(r Report) any {
	l := r.Language
	rate, users := peak(r.Load)
	p := loadPage{About: l.say("load.about", perSecond(rate))}
	if rate == 0 {
		p.About = l.say("load.about.users", users)
	}
	for _, row := range r.Load {
		line := loadLine{Name: row.Scenario + " / " + row.Stage.Name, Asked: l.Word(asked(row.Stage)), Requests: count(row.Requests), Errors: count(row.Errors), OfPeak: "–", Offered: "–", Lasts: l.say("load.unplayed")}
		if row.Highest > 0 {
			line.OfPeak = l.Word(percent(row.Highest / rate))
		}
		if row.Played > 0 {
			line.Lasts, line.Offered = l.Word(seconds(row.Played)), l.Word(perSecond(float64(row.Requests)/row.Played))
		}
		p.Rows = append(p.Rows, line)
	}
	return p
}

func hasLoad(r Report) bool { return len(r.Load) > 0 }
