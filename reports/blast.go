package reports

import (
	"slices"

	"github.com/launchgate/launchgate/checklist"
)

// alertRow is an alert that fired.
type alertRow struct {
	checklist.Alert
	Kind, Target string // of the fault that it came after
}

func alertRows(r Report) []alertRow {
	var rows []alertRow
	for _, a := range r.Verdict.Alerts {
		row := alertRow{Alert: a}
		for _, f := range r.Faults {
			if f.ID == a.Fault {
				row.Kind, row.Target = f.Kind, f.Target
			}
		}
		rows = append(rows, row)
	}
	return rows
}

type reachChart struct {
	Timeline Timeline
	Panel    Panel
}

// reach is how many of the requests that met a fault failed, were slowed and were
// retried, in every second of the fault. A series without any is left out.
func reach(f Fault) reachChart {
	b := f.Blast
	t := Timeline{Start: *f.InjectedAt, Width: float64(b.StepSeconds), Bins: int(b.Seconds/float64(b.StepSeconds)) + 1}
	failed, slowed, retried := make([]float64, t.Bins), make([]float64, t.Bins), make([]float64, t.Bins)
	for _, s := range b.Steps {
		i := min(max(int(s.From/b.StepSeconds), 0), t.Bins-1) // who was under way counts in the first
		failed[i] += float64(s.Failed) / t.Width
		retried[i] += float64(s.Retried) / t.Width
		if s.Slowed != nil {
			slowed[i] += float64(*s.Slowed) / t.Width
		}
	}
	p := Panel{ID: "reach", Unit: "per_second", Series: []Series{
		{ID: "errors", Shape: "bars", Color: "bad", Data: failed},
		{ID: "slowed", Shape: "step", Color: "violet", Data: slowed},
		{ID: "retried", Shape: "step", Color: "blue", Data: retried},
	}}
	p.Series = slices.DeleteFunc(p.Series, func(s Series) bool { return slices.Max(s.Data) == 0 })
	return reachChart{t, p}
}

// blastRow is a line of a fault's blast radius: all requests that met it, those that
// one replica answered, or those of one class.
type blastRow struct {
	Name  string
	Cells []string // requests, failed, slowed, retried
}

// blastRows leave out a split into a single part.
func blastRows(l Language, b checklist.Blast) []blastRow {
	row := func(name string, p checklist.BlastPart, rates bool) blastRow {
		cell := func(n int64) string {
			if rates && n > 0 && b.Seconds > 0 {
				return l.say("fault.blast.rate", count(n), digits(float64(n)/b.Seconds))
			}
			return count(n)
		}
		slowed := l.say("objective.unmeasured")
		if p.Slowed != nil {
			slowed = cell(*p.Slowed)
		}
		return blastRow{name, []string{cell(p.Requests), cell(p.Failed), slowed, cell(p.Retried)}}
	}
	rows := []blastRow{row(l.say("fault.blast.all"), b.BlastPart, true)}
	for _, split := range [][]checklist.BlastPart{b.Replicas, b.Classes} {
		if len(split) < 2 {
			continue
		}
		for _, p := range split {
			name := p.Name
			if name == "" {
				name = l.say("fault.blast.nobody")
			}
			rows = append(rows, row(name, p, false))
		}
	}
	return rows
}
