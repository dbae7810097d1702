package release

import (
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Run is a judged run.
type Run struct {
	Name    string // its folder
	At      time.Time
	Verdict checklist.Verdict
}

// kept looks for the newest run with objectives about a metric. All of these objectives
// count, so that an easy one does not hide a hard one.
func kept(now time.Time, runs []Run, check Check) (State, words.Sentence) {
	parts := promisePattern.FindStringSubmatch(check.Promise)
	var newest *Run
	var about []checklist.Finding
	for i, run := range runs {
		if newest != nil && !run.At.After(newest.At) {
			continue
		}
		if fs := findings(run.Verdict, parts[1], parts[2]); len(fs) > 0 {
			newest, about = &runs[i], fs
		}
	}
	if newest == nil {
		return Open, words.Say("no run has an objective about %s", check.Promise)
	}
	if newest.Verdict.Verdict == checklist.Invalid {
		return Open, words.Say("%s is invalid, so it proves nothing", newest.Name)
	}
	for _, outcome := range []checklist.Outcome{checklist.Fail, checklist.Invalid, checklist.Unproven} {
		for _, f := range about {
			if f.Verdict == outcome {
				state := Open
				if outcome == checklist.Fail {
					state = Failed
				}
				return state, words.Say("%s in %s: %s", f.Source, newest.Name, f.Why)
			}
		}
	}
	if state, why := aged(now, newest.At, check.Within); state != Done {
		return state, words.Say("%s: %s", newest.Name, why)
	}
	if len(about) == 1 {
		return Done, words.Say("%s in %s: %s", about[0].Source, newest.Name, about[0].Why)
	}
	return Done, words.Say("all %d objectives about it in %s hold", len(about), newest.Name)
}

func findings(v checklist.Verdict, metric, arg string) (about []checklist.Finding) {
	for _, f := range v.Objectives {
		o, err := scenarios.ParseObjective(f.Source)
		if err == nil && o.Metric == metric && (arg == "" || o.Arg == arg) {
			about = append(about, f)
		}
	}
	return about
}
