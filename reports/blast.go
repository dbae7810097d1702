package reports

import (
	"github.com/launchgate/launchgate/checklist"
)

// blastRow is a line of a fault's reach: all who met it, those that a replica
// answered, or those of a class.
type blastRow struct {
	Name  string
	Cells []string // requests, failed, slowed, retried
}

// blastRows leave out a split that splits nothing.
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
