package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/chaos"
	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/version"
	"github.com/launchgate/launchgate/reports"
	"github.com/launchgate/launchgate/scenarios"
)

const exitInterrupted = checklist.ExitInterrupted

// launchgate is the program: it runs one command line and returns the exit
// code.
func launchgate(ctx context.Context, args []string, out, errOut io.Writer) int {
	code := checklist.ExitPass
	root := newRoot(out, errOut, &code)
	root.SetArgs(args)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(errOut, "launchgate: %v\n", err)
		if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
			return exitInterrupted
		}
		return checklist.ExitCouldNotRun
	}
	return code
}

// newRoot makes the command tree. A command that judged sets code to its exit
// code. A command that could not do its work returns an error.
func newRoot(out, errOut io.Writer, code *int) *cobra.Command {
	root := &cobra.Command{
		Use:   "launchgate",
		Short: "May this inference service launch?",
		Long: `launchgate decides whether an AI inference service is ready to launch. It deploys
the service (or uses one that already runs), sends it streaming load, and breaks it
on purpose. It then gives one verdict against latency, error and recovery targets,
with an HTML report.

  launchgate run                 test the bundled service with the quick gate
  launchgate init                write a commented gate to start from
  launchgate run my-gate.yaml    play your own gate
  launchgate run --target http://127.0.0.1:8000 --model NAME my-gate.yaml
                                 test a service that already runs
  launchgate scan                look for security flaws of a service
  launchgate up                  keep the bundled service running until launchgate down
  launchgate capacity            find the highest rate at which the objectives hold
  launchgate checklist runs/*    show what is still missing before going live

Exit codes of a run: 0 pass, 1 fail, 2 unproven, 3 invalid, 4 could not run,
130 interrupted. The help of each command lists that command's codes.`,
		Version:       version.Short(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(out)
	root.SetErr(errOut)
	root.CompletionOptions.HiddenDefaultCmd = true
	var c console
	c.flags(root)
	root.AddCommand(runCommand(out, errOut, code, &c), scanCommand(out, errOut, code, &c), capacityCommand(out, errOut, code, &c), compareCommand(out, code), judgeCommand(out, code, &c), reportCommand(out), checklistCommand(out, code), listCommand(out), initCommand(out), versionCommand(out), manCommand(out), doctorCommand(out),
		upCommand(out), downCommand(out), releaseCommand(out, code), backupCommand(out, errOut), restoreCommand(out, errOut), keepCommand(), recoverCommand(out), watchdogCommand(), burnCommand(), hogCommand(), workerCommand(), liveCommand(os.Stdin, out))
	root.AddCommand(calibrateCommand(out), predictCommand(out, code, &c), planCommand(out, &c))
	root.AddCommand(exportCommand(out), importCommand(out, code), serveCommand(out))
	tellExits(root)
	offer(root)
	return root
}

func judgeCommand(out io.Writer, code *int, c *console) *cobra.Command {
	var lang reports.Language
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "judge DIR",
		Short: "Judge a recorded run again, offline",
		Long: `Judge reads a run folder, judges it by the gate in that folder, and rewrites
verdict.json, report.html, junit.xml and summary.md. The same folder gives the same
files, byte for byte. Judge sends nothing over the network.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			v, err := judgeDir(args[0], lang)
			if err != nil {
				return err
			}
			*code = v.ExitCode
			return c.tell(out, v, args[0], asJSON)
		},
	}
	languageFlag(cmd, &lang)
	jsonFlag(cmd, &asJSON, "the verdict, which verdict.json also has,")
	return cmd
}

// tell prints a verdict: as JSON, in one line, or with what led to it.
func (c *console) tell(out io.Writer, v judged, dir string, asJSON bool) error {
	switch {
	case asJSON:
		return reports.Verdict(out, v.Verdict)
	case c.quiet:
		return reports.TerminalLine(out, v.report, dir, coloured(out))
	}
	return reports.Terminal(out, v.report, dir, coloured(out))
}

func reportCommand(out io.Writer) *cobra.Command {
	var lang reports.Language
	cmd := &cobra.Command{
		Use:   "report DIR",
		Short: "Rewrite the report of a recorded run, even of one that crashed",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if _, err := judgeDir(args[0], lang); err != nil {
				return err
			}
			_, err := fmt.Fprintln(out, reportPath(args[0]))
			return err
		},
	}
	languageFlag(cmd, &lang)
	return cmd
}

// topics are what list lists, each with the names in it.
var topics = []struct {
	name  string
	names func() []string
	list  func(out io.Writer, only []string)
	all   func() any // as JSON
}{
	{"gates", gateNames, listGates, func() any { return scenarios.Gates() }},
	{"faults", func() []string { return scenarios.FaultKinds }, listFaults, func() any { return chaos.Kinds }},
	{"objectives", metricNames, listObjectives, func() any { return scenarios.Metrics() }},
	{"profiles", profileNames, listProfiles, func() any { return profiles() }},
}

func listCommand(out io.Writer) *cobra.Command {
	var show string
	var asJSON bool
	var known []string
	for _, t := range topics {
		known = append(known, t.name)
	}
	cmd := &cobra.Command{
		Use:   "list [gates|faults|objectives|profiles] [NAME...]",
		Short: "List the ready-made gates, the faults, the metrics for objectives, and the profiles",
		Example: `  launchgate list gates
  launchgate list gates --show quick > my-gate.yaml
  launchgate list faults pod-kill
  launchgate list objectives --json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			i := slices.Index(known, args[0])
			if i < 0 {
				return fmt.Errorf("found %q, expected one of %s, or nothing for all of them%s", args[0], strings.Join(known, ", "), scenarios.DidYouMean(args[0], known))
			}
			for _, name := range args[1:] {
				if names := topics[i].names(); !slices.Contains(names, name) {
					return fmt.Errorf("found no %s in the %s, expected one of %s%s", name, args[0], strings.Join(names, ", "), scenarios.DidYouMean(name, names))
				}
			}
			return nil
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return known, cobra.ShellCompDirectiveNoFileComp
			}
			if i := slices.Index(known, args[0]); i >= 0 {
				return topics[i].names(), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if show != "" {
				return showGate(out, args, show)
			}
			all := map[string]any{}
			for _, t := range topics {
				if len(args) > 0 && t.name != args[0] {
					continue
				}
				if !asJSON {
					t.list(out, args[min(1, len(args)):])
					continue
				}
				all[t.name] = t.all()
			}
			if asJSON {
				return printJSON(out, all)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&show, "show", "", "print the text of the ready-made gate of this `name`, to read or to start from")
	jsonFlag(cmd, &asJSON, "the list")
	return cmd
}

// showGate prints the source of a ready gate, with its comments.
func showGate(out io.Writer, args []string, name string) error {
	if len(args) > 0 && args[0] != "gates" {
		return fmt.Errorf("found --show with %s, expected it with gates: launchgate list gates --show %s", args[0], name)
	}
	src, ok := scenarios.ReadySource(name)
	if !ok {
		return fmt.Errorf("found no ready gate %s, expected one of %s%s", name, strings.Join(gateNames(), ", "), scenarios.DidYouMean(name, gateNames()))
	}
	_, err := out.Write(src)
	return err
}

func gateNames() (names []string) {
	for _, g := range scenarios.Gates() {
		names = append(names, g.Name)
	}
	return names
}

func metricNames() (names []string) {
	for _, m := range scenarios.Metrics() {
		names = append(names, m.Name)
	}
	return names
}

func profileNames() (names []string) {
	for _, p := range scenarios.Profiles() {
		names = append(names, p.Name)
	}
	return names
}

// profiles are the profiles with their objectives, for JSON.
func profiles() (all []map[string]any) {
	for _, p := range scenarios.Profiles() {
		var objectives []string
		for _, o := range p.Objectives("") {
			objectives = append(objectives, o.Source)
		}
		all = append(all, map[string]any{"name": p.Name, "means": p.Means, "objectives": objectives})
	}
	return all
}

// listed reports whether a list that is narrowed to some names has this one.
func listed(only []string, name string) bool { return len(only) == 0 || slices.Contains(only, name) }

func listGates(out io.Writer, only []string) {
	fmt.Fprintln(out, "Gates, for launchgate run NAME:")
	for _, g := range scenarios.Gates() {
		if listed(only, g.Name) {
			fmt.Fprintf(out, "  %-12s %s\n", g.Name, firstLine(g.Description))
		}
	}
	fmt.Fprintln(out)
}

func listFaults(out io.Writer, only []string) {
	fmt.Fprintln(out, "Faults, for a scenario's faults:")
	for _, k := range chaos.Kinds {
		if listed(only, k.Name) {
			fmt.Fprintf(out, "  %s\n    does       %s\n    needs      %s\n    seen when  %s\n    simulates  %s\n    example    %s\n", k.Name, k.Does, k.Needs, k.Seen, k.Simulates, k.Example)
		}
	}
	fmt.Fprintln(out)
}

func listObjectives(out io.Writer, only []string) {
	fmt.Fprintln(out, "Objectives, one promise a line:")
	for _, m := range scenarios.Metrics() {
		if !listed(only, m.Name) {
			continue
		}
		fmt.Fprintf(out, "  %-43s %s\n", m.Example, m.Means)
		fmt.Fprintf(out, "  %-43s bound: %s\n", "", m.Bound)
		if m.Needs != scenarios.NeedsNothing {
			fmt.Fprintf(out, "  %-43s needs: %s\n", "", m.Needs)
		}
	}
	fmt.Fprintln(out)
}

func initCommand(out io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:   "init [FILE]",
		Short: "Write a commented gate to start from (gate.yaml)",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path := ownGate
			if len(args) == 1 {
				path = args[0]
			}
			return initGate(out, path)
		},
	}
}

// initGate writes the starter gate and the schema it links for completion in
// editors. It never overwrites.
func initGate(out io.Writer, path string) error {
	schema := strings.TrimSuffix(path, ".yaml") + ".schema.json"
	for _, f := range []struct {
		path string
		text []byte
	}{{path, scenarios.Starter(baseName(schema))}, {schema, scenarios.Schema()}} {
		file, err := os.OpenFile(f.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("%s is already there and is not overwritten: give another name (launchgate init NAME.yaml)", f.path)
		}
		if err != nil {
			return err
		}
		_, err = file.Write(f.text)
		if err = errors.Join(err, file.Close()); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out, "wrote %s and %s (for completion in editors)\nnext: launchgate run --dry-run %s\n", path, schema, path)
	return err
}

// judged is a verdict with its report.
type judged struct {
	checklist.Verdict
	report reports.Report
}

// judgeDir reads a run folder, judges it, and writes the verdict and the
// reports into it.
func judgeDir(dir string, lang reports.Language) (judged, error) {
	gate, rec, err := openRun(dir)
	if err != nil {
		return judged{}, err
	}
	v, err := checklist.Judge(gate, rec)
	if err != nil {
		return judged{}, err
	}
	report, err := reports.WriteAll(dir, gate, rec, v, lang)
	return judged{v, report}, err
}

func openRun(dir string) (scenarios.Gate, *recording.Recording, error) {
	rec, err := recording.Open(dir)
	if err != nil {
		return scenarios.Gate{}, nil, err
	}
	gate, err := scenarios.Load(gatePath(dir))
	return gate, rec, err
}

func listProfiles(out io.Writer, only []string) {
	fmt.Fprintln(out, "Profiles: ready sets of objectives, in a gate as profiles: [NAME in SCENARIO] or for launchgate capacity --profile NAME")
	for _, p := range scenarios.Profiles() {
		if !listed(only, p.Name) {
			continue
		}
		fmt.Fprintf(out, "\n  %s\n    %s\n", p.Name, p.Means)
		for _, o := range p.Objectives("") {
			fmt.Fprintf(out, "    %s\n", o.Source)
		}
	}
}
