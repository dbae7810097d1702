package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/deploy/targets"
	"github.com/launchgate/launchgate/internal/run"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen"
	"github.com/launchgate/launchgate/reports"
	"github.com/launchgate/launchgate/scenarios"
)

// beat is how often a run says how far it is where there is no terminal.
const beat = 10 * time.Second

// screen tells a person how the run goes: lines that stay, and at a terminal
// under them one that is written over. Elsewhere a line says now and then how far it is.
type screen struct {
	*console
	out      io.Writer
	lang     reports.Language
	terminal bool

	mu   sync.Mutex
	live bool      // the cursor stands after a line that is to be written over
	last time.Time // when something was written
}

func newScreen(out io.Writer, lang reports.Language, c *console) *screen {
	return &screen{console: c, out: out, lang: lang, terminal: isTerminal(out) && os.Getenv("TERM") != "dumb", last: time.Now()}
}

// say prints a permanent line.
func (s *screen) say(p words.Phrase, args ...any) { s.stay(words.Say(p, args...)) }

func (s *screen) stay(said words.Sentence) {
	if s.quiet {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wipe()
	fmt.Fprintln(s.out, s.lang.Word(said))
	s.last = time.Now()
}

func (s *screen) tell(p run.Progress) {
	if s.quiet || p.Detail && !s.verbose {
		return
	}
	if p.Live == nil {
		s.stay(p.Line)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.terminal {
		if time.Since(s.last) >= beat {
			fmt.Fprintln(s.out, s.beatLine(*p.Live))
			s.last = time.Now()
		}
		return
	}
	s.wipe()
	fmt.Fprint(s.out, s.liveLine(*p.Live, columnsOf(s.out)))
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

// liveLine draws how far the run is. It is narrower than the terminal: a line that
// wraps cannot be written over.
func (s *screen) liveLine(l run.Live, columns int) string {
	const width = 10
	share := 1.0
	if l.Total > 0 {
		share = min(1, float64(l.Elapsed)/float64(l.Total))
	}
	full := int(share * width)
	line := fmt.Sprintf("%-10.10s %s%s %.0f/%.0f s  %s", l.Scenario, strings.Repeat("█", full), strings.Repeat("░", width-full),
		l.Elapsed.Seconds(), l.Total.Seconds(), s.lang.Word(s.state(l)))
	return reports.Cut(line, columns-1)
}

// state is what a line of progress says of the requests and the time that is left.
func (s *screen) state(l run.Live) words.Sentence {
	said := words.Say("%d/%d answered, %d errors", l.Done, l.Planned, l.Errors)
	if l.Left > 0 {
		said = words.Say("%s, about %s left", said, l.Left.Round(time.Second))
	}
	if !l.Fault.IsZero() {
		said = words.Say("%s, %s", said, l.Fault)
	}
	return said
}

// beatLine says the same where there is no terminal.
func (s *screen) beatLine(l run.Live) string {
	return s.lang.Word(words.Say("%s: %.0f of %.0f s, %s", l.Scenario, l.Elapsed.Seconds(), l.Total.Seconds(), s.state(l)))
}

// seated is a plan that knows what each replica will compute on.
type seated interface {
	Seat(ctx context.Context, build string) (deploy.Seating, error)
}

// printPlan prints what a run of the gate would do.
func printPlan(out io.Writer, lang reports.Language, gate scenarios.Gate, plans []*loadgen.Plan, focus []string) {
	say := func(p words.Phrase, args ...any) { fmt.Fprintln(out, lang.Word(words.Say(p, args...))) }
	if gate.Description != "" {
		say("%s: %s", gate.Name, firstLine(gate.Description))
	} else {
		fmt.Fprintln(out, gate.Name)
	}
	target := targets.PlanFor(gate)
	about := target.About()
	if !about.Place.IsZero() {
		say("target: %s", about.Place)
	} else if about.Replicas == 0 {
		say("target: %s", about.URL)
		for _, line := range about.Asked {
			fmt.Fprintln(out, "       ", lang.Word(line))
		}
	} else {
		model := words.Say("the built-in model")
		if about.Model != "" {
			model = words.Verbatim(about.Model)
		}
		if len(about.Models) > 0 {
			var served []string
			for _, m := range about.Models {
				served = append(served, fmt.Sprintf("%s (%s)", m.Name, m.Quantization))
			}
			model = words.Verbatim(strings.Join(served, ", "))
		}
		say("target: %s of the bundled service behind its gateway, serving %s", words.Count(int64(about.Replicas), "1 replica", "%d replicas"), model)
		if placed, ok := target.(seated); ok {
			build, _ := serverProgram()
			seating, err := placed.Seat(context.Background(), build)
			for _, line := range seating.Describe() {
				fmt.Fprintln(out, "       ", lang.Word(line))
			}
			if err != nil {
				say("        it cannot be started here: %s", err)
			}
		}
		if about.Allowance.IsZero() {
			say("        plain: only load balancing, without TLS")
		} else {
			say("        over TLS, with keys, limits and a ledger: %s", about.Allowance)
		}
		if !about.Watched.IsZero() {
			say("        not monitored: %s", about.Watched)
		} else {
			say("        monitored by Prometheus, with the alerts of deploy/monitoring")
		}
	}
	say("seed:   %d", gate.Seed)
	fmt.Fprintln(out)
	var total time.Duration
	var requests int
	for i, s := range gate.Scenarios {
		plan := plans[i]
		total += plan.Duration()
		requests += plan.Requests()
		say("%-16s %6s  %5d requests  %s", s.Name, plan.Duration(), plan.Requests(), firstLine(s.Description))
		for _, st := range plan.Stages {
			say("  stage %-14s %s", st.Name, st.Said())
		}
		for _, c := range s.Classes {
			fmt.Fprintln(out, lang.Word(words.Say("  class %-14s weight %g", c.Name, c.Weight))+way(c.Workload, s.Workload))
		}
		for _, f := range s.Vary {
			var names []string
			for _, v := range f.Values {
				names = append(names, v.Name)
			}
			say("  vary  %-14s %s", f.Name, strings.Join(names, ", "))
		}
		for _, f := range s.Faults {
			moment := moment(f)
			if f.Target != "" {
				moment = words.Say("%s, on %s", moment, f.Target)
			}
			if f.For != 0 {
				moment = words.Say("%s, for %s", moment, f.For)
			}
			if by := target.PlayedBy(f); !by.IsZero() {
				moment = words.Say("%s; %s", moment, by)
			}
			say("  fault %-18s %6s%s", f.Kind, time.Duration(f.At), moment)
		}
		if s.Probe != nil {
			say("  probe every %s", time.Duration(s.Probe.Every))
		}
	}
	fmt.Fprintln(out)
	say("%d requests in %s of load, then %d objectives:", requests, total, len(gate.Objectives))
	for _, o := range gate.Objectives {
		fmt.Fprintf(out, "  %s\n", o.Source)
	}
	if len(focus) > 0 {
		fmt.Fprintln(out)
		any := words.Verbatim(focus[0])
		for _, f := range focus[1:] {
			any = words.Say("%s or %s", any, f)
		}
		say("only what matches %s is played", any)
	}
}

// way is how a class sends requests, if that differs from its scenario: the
// model, the key and the connections. It uses the gate's own keys and values.
func way(class, scenario scenarios.Workload) string {
	var parts []string
	if class.Model != scenario.Model {
		parts = append(parts, "model: "+class.Model)
	}
	if class.APIKeyEnv != scenario.APIKeyEnv {
		parts = append(parts, "api_key_env: "+class.APIKeyEnv)
	}
	if class.Connection != scenario.Connection {
		var keys []string
		if class.Connection.From != "" {
			keys = append(keys, "from: "+class.Connection.From)
		}
		if class.Connection.HTTP != "" {
			keys = append(keys, "http: "+class.Connection.HTTP)
		}
		if class.Connection.New {
			keys = append(keys, "new: true")
		}
		parts = append(parts, "connection: {"+strings.Join(keys, ", ")+"}")
	}
	if len(parts) == 0 {
		return ""
	}
	return "  " + strings.Join(parts, ", ")
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

func gatePath(dir string) string   { return filepath.Join(dir, "gate.yaml") }
func reportPath(dir string) string { return filepath.Join(dir, "report.html") }
func baseName(path string) string  { return filepath.Base(path) }

// moment says from when a fault's time counts, and the range of a random time.
func moment(f scenarios.Fault) words.Sentence {
	from := words.Say(" in")
	if f.After != "" {
		from = words.Say(" after the fault before it")
	}
	if f.Latest != 0 {
		from = words.Say(" to %s%s", time.Duration(f.Latest), from)
	}
	if f.Repeat > 1 {
		return words.Say("%s, %d times, each as long after the one before", from, f.Repeat)
	}
	return from
}
