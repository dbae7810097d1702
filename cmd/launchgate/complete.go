package main

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// completions is what a shell offers for the arguments of a command.
type completions = func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective)

// offer has the shell complete the arguments and flags of the commands: gates, run
// folders, faults and checks by name.
func offer(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "run", "scan", "capacity", "up":
			cmd.ValidArgsFunction = upTo(1, gatesOffered)
		case "judge", "report", "recover":
			cmd.ValidArgsFunction = upTo(1, runsOffered)
		case "compare":
			cmd.ValidArgsFunction = upTo(2, runsOffered)
		case "checklist", "calibrate":
			cmd.ValidArgsFunction = runsOffered
		case "man":
			cmd.ValidArgsFunction = foldersOffered
		}
		for flag, from := range map[string]completions{
			"focus": scenariosOffered,
			"only":  known(scenarios.ScanChecks), "skip": known(scenarios.ScanChecks),
			"fail-on": known(scenarios.Severities), "lang": known([]string{"en", "zh"}),
			"profile": func(*cobra.Command, []string, string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
				for _, p := range scenarios.Profiles() {
					names = append(names, cobra.CompletionWithDesc(p.Name, string(p.Means)))
				}
				return names, cobra.ShellCompDirectiveNoFileComp
			},
			"show": gatesByName, "api-key-env": variablesOffered, "out": foldersOffered, "dir": foldersOffered,
		} {
			if cmd.Flags().Lookup(flag) != nil {
				_ = cmd.RegisterFlagCompletionFunc(flag, from) // fails only for a flag that has one
			}
		}
	}
}

// upTo offers no more than n arguments.
func upTo(n int, from completions) completions {
	return func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) >= n {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return from(cmd, args, begun)
	}
}

func known(words []string) completions {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

func foldersOffered(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// gatesByName are the ready gates.
func gatesByName(*cobra.Command, []string, string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	for _, g := range scenarios.Gates() {
		names = append(names, cobra.CompletionWithDesc(g.Name, firstLine(g.Description)))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// gatesOffered are the ready gates, and the YAML files below what is begun.
func gatesOffered(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	names, _ := gatesByName(cmd, args, begun)
	dir, _ := filepath.Split(begun)
	entries, _ := os.ReadDir(cmp.Or(dir, "."))
	for _, e := range entries {
		switch {
		case strings.HasPrefix(e.Name(), "."):
		case e.IsDir():
			names = append(names, dir+e.Name()+"/")
		case filepath.Ext(e.Name()) == ".yaml" || filepath.Ext(e.Name()) == ".yml":
			names = append(names, dir+e.Name())
		}
	}
	return startingWith(names, begun), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// runsOffered are the run folders in the folder that is begun, or else in ./runs, the
// newest first.
func runsOffered(_ *cobra.Command, args []string, begun string) (runs []cobra.Completion, _ cobra.ShellCompDirective) {
	dir := "runs"
	if in, _ := filepath.Split(begun); in != "" {
		dir = in
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range slices.Backward(entries) {
		path := filepath.Join(dir, e.Name())
		if _, err := os.Stat(filepath.Join(path, recording.EnvironmentFile)); err == nil {
			runs = append(runs, path)
		}
	}
	if runs = startingWith(runs, begun); len(runs) == 0 {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	return runs, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// variablesOffered are the names of environment variables that look like a key's.
func variablesOffered(*cobra.Command, []string, string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.Contains(name, "KEY") || strings.Contains(name, "TOKEN") {
			names = append(names, name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// scenariosOffered are the names of the ready gates' scenarios.
func scenariosOffered(*cobra.Command, []string, string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	for _, g := range scenarios.Gates() {
		for _, s := range g.Scenarios {
			if !slices.Contains(names, s.Name) {
				names = append(names, s.Name)
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func startingWith(names []string, begun string) (kept []string) {
	for _, name := range names {
		if strings.HasPrefix(name, begun) {
			kept = append(kept, name)
		}
	}
	return kept
}
