package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/chaos"
	"github.com/launchgate/launchgate/deploy/host"
	"github.com/launchgate/launchgate/deploy/targets"
)

// watchdogName is the command that run starts as a second process.
const watchdogName = "fault-watchdog"

func watchdogCommand() *cobra.Command {
	return &cobra.Command{
		Use:    watchdogName + " JOURNAL",
		Short:  "Wait for the end of standard input, then undo the faults of a journal",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE:   func(_ *cobra.Command, args []string) error { return chaos.Watchdog(args[0], os.Stdin, targets.Undo) },
	}
}

// burnCommand is what cpu-stress starts.
func burnCommand() *cobra.Command {
	return &cobra.Command{
		Use:    host.BurnCommand + " CORES",
		Short:  "Burn processor cores until standard input ends",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			cores, err := strconv.ParseFloat(args[0], 64)
			if err != nil {
				return err
			}
			return host.Burn(cores, os.Stdin)
		},
	}
}

// hogCommand is what kv-exhaustion starts.
func hogCommand() *cobra.Command {
	return &cobra.Command{
		Use:    host.HogCommand + " ADDRESS METRICS",
		Short:  "Fill the KV cache of a replica until standard input ends",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE:   func(_ *cobra.Command, args []string) error { return host.Hog(args[0], args[1], os.Stdin) },
	}
}

func recoverCommand(out io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:   "recover",
		Short: "Undo faults that runs left behind when they died",
		Long: `Recover undoes the faults that a run left behind when it died, such as stopped
processes and control groups. Normally a watchdog does this within seconds. Use
recover if the watchdog was killed too, or the machine lost power. You can run it
as often as you like. It does not touch runs that are still going on.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			all, err := chaos.Recover(targets.Undo)
			if err != nil {
				return err
			}
			return tellRecovered(out, all)
		},
	}
}

func tellRecovered(out io.Writer, all []chaos.Recovered) error {
	var failed error
	printed := false
	for _, r := range all {
		switch {
		case r.Alive != 0:
			printed = true
			fmt.Fprintf(out, "%s still runs (pid %d) and reverts its faults itself; stop it first, if it hangs\n", r.Run, r.Alive)
		case r.Err != nil:
			failed = errors.Join(failed, fmt.Errorf("%s: %w", r.Run, r.Err))
		case len(r.Undone) > 0:
			printed = true
			fmt.Fprintf(out, "%s: undone: %s\n", r.Run, strings.Join(r.Undone, ", "))
		}
	}
	if failed == nil && !printed {
		fmt.Fprintln(out, "no fault is left to undo")
	}
	return failed
}
