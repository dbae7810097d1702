package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/launchgate/launchgate/chaos"
	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/run"
	"github.com/launchgate/launchgate/loadgen"
	"github.com/launchgate/launchgate/scenarios"
)

// screen tells a person how the run goes: lines that stay, and at a terminal
// under them one that is written over.
type screen struct {
	out      io.Writer
	terminal bool

	mu   sync.Mutex
	live bool // the cursor stands after a line that is to be written over
}

func newScreen(out io.Writer) *screen {
	return &screen{out: out, terminal: isTerminal(out)}
}

func (s *screen) tell(p run.Progress) {
	if p.Live != nil && !s.terminal {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wipe()
	if p.Live == nil {
		fmt.Fprintln(s.out, p.Line)
		return
	}
	fmt.Fprint(s.out, liveLine(*p.Live))
	s.live = true
}

func (s *screen) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wipe()
}

func (s *screen) wipe() {
	if s.live {
		fmt.Fprint(s.out, "\r\x1b[2K")
		s.live = false
	}
}

// liveLine draws how far a scenario is, in under 80 columns.
func liveLine(l run.Live) string {
	const width = 20
	share := 1.0
	if l.Total > 0 {
		share = min(1, float64(l.Elapsed)/float64(l.Total))
	}
	full := int(share * width)
	line := fmt.Sprintf("%-10.10s %s%s %3.0f/%.0f s  %d/%d answered  %d errors", l.Scenario,
		strings.Repeat("█", full), strings.Repeat("░", width-full),
		l.Elapsed.Seconds(), l.Total.Seconds(), l.Done, l.Planned, l.Errors)
	if l.Fault != "" {
		line += "  " + l.Fault
	}
	return line
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// printPlan tells what a run of the gate would do.
func printPlan(out io.Writer, gate scenarios.Gate, plans []*loadgen.Plan, focus []string) {
	title := gate.Name
	if gate.Description != "" {
		title += ": " + firstLine(gate.Description)
	}
	fmt.Fprintln(out, title)
	if l := gate.Target.Local; l != nil {
		model := l.Model
		if model == "" {
			model = "the model it carries"
		}
		fmt.Fprintf(out, "target: %d replicas of the bundled service behind its gateway, serving %s\n", l.Replicas, model)
		if l.Gateway.Plain {
			fmt.Fprintln(out, "        plain: it only balances, in clear")
		} else {
			fmt.Fprintf(out, "        over TLS, with keys, limits and a ledger: %s\n", deploy.AllowanceFor(gate).Told())
		}
		if why := deploy.Unwatched(l.Monitoring); why != "" {
			fmt.Fprintf(out, "        not watched: %s\n", why)
		} else {
			fmt.Fprintln(out, "        watched by Prometheus, with the alerts of deploy/monitoring")
		}
	} else {
		fmt.Fprintf(out, "target: %s\n", gate.Target.Endpoint.URL)
	}
	fmt.Fprintf(out, "seed:   %d\n\n", gate.Seed)
	var total time.Duration
	var requests int
	for i, s := range gate.Scenarios {
		plan := plans[i]
		total += plan.Duration()
		requests += plan.Requests()
		fmt.Fprintf(out, "%-16s %6s  %5d requests  %s\n", s.Name, plan.Duration(), plan.Requests(), firstLine(s.Description))
		for _, st := range plan.Stages {
			fmt.Fprintf(out, "  stage %-14s %s\n", st.Name, st)
		}
		for _, c := range s.Classes {
			fmt.Fprintf(out, "  class %-14s weight %v\n", c.Name, c.Weight)
		}
		for _, f := range s.Faults {
			fmt.Fprintf(out, "  fault %-17s %6s%s%s%s%s\n", f.Kind, time.Duration(f.At), moment(f), phrase(", on ", f.Target), phrase(", for ", lasts(f.For)), phrase("; ", chaos.PlayedBy(gate.Target, f)))
		}
		if s.Probe != nil {
			fmt.Fprintf(out, "  probe every %s\n", time.Duration(s.Probe.Every))
		}
	}
	fmt.Fprintf(out, "\n%d requests in %s of load, then %d objectives:\n", requests, total, len(gate.Objectives))
	for _, o := range gate.Objectives {
		fmt.Fprintf(out, "  %s\n", o.Source)
	}
	if len(focus) > 0 {
		fmt.Fprintf(out, "\nplayed is only what matches %s\n", strings.Join(focus, " or "))
	}
}

// phrase is a word with what comes before it, or nothing.
func phrase(before, word string) string {
	if word == "" {
		return ""
	}
	return before + word
}

func lasts(d scenarios.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

func gatePath(dir string) string   { return filepath.Join(dir, "gate.yaml") }
func reportPath(dir string) string { return filepath.Join(dir, "report.html") }
func baseName(path string) string  { return filepath.Base(path) }

// moment is from when a fault's time counts, and until when it may be drawn.
func moment(f scenarios.Fault) string {
	from := " in"
	if f.After != "" {
		from = " after the fault before it"
	}
	if f.Latest != 0 {
		return fmt.Sprintf(" to %s%s", time.Duration(f.Latest), from)
	}
	return from
}
