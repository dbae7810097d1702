package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/deploy"
)

func backupCommand(out, errOut io.Writer) *cobra.Command {
	var dir, to string
	cmd := &cobra.Command{
		Use:   "backup --to FILE",
		Short: "Copy the ledger of what up has started, while it is in use, and verify the copy",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return onLedger(cmd.Context(), dir, out, errOut, "backup", "--to", to)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", standingAt, "the `folder` that up was given")
	cmd.Flags().StringVar(&to, "to", "", "the new `file`; a backup never replaces one")
	_ = cmd.MarkFlagRequired("to")
	return cmd
}

func restoreCommand(out, errOut io.Writer) *cobra.Command {
	var dir, from string
	cmd := &cobra.Command{
		Use:   "restore [--from FILE]",
		Short: "Make a lost ledger again, from a backup or from its second place, and verify it",
		Long: `Restore makes the ledger that up will find, from a backup, or without --from from
the second place it was replicated to. It never overwrites a ledger, and refuses
while the service is up.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			at, err := filepath.Abs(dir)
			if err != nil {
				return err
			}
			if s, err := deploy.FindStanding(at); err == nil {
				return fmt.Errorf("%s is up and uses its ledger: launchgate down first", s.URL)
			} else if !errors.Is(err, deploy.ErrNotStanding) {
				return err
			}
			if from != "" {
				return onLedger(cmd.Context(), dir, out, errOut, "restore", "--from", from)
			}
			return onLedger(cmd.Context(), dir, out, errOut, "restore", "--replica", filepath.Join(at, deploy.SecondPlace))
		},
	}
	cmd.Flags().StringVar(&dir, "dir", standingAt, "the `folder` that up was given")
	cmd.Flags().StringVar(&from, "from", "", "a `backup`; without one, the second place")
	return cmd
}

// onLedger runs a command of the reference server, which knows ledgers.
func onLedger(ctx context.Context, dir string, out, errOut io.Writer, command string, args ...string) error {
	server, err := serverProgram()
	if err != nil {
		return err
	}
	at := filepath.Join(dir, deploy.LedgerFile)
	if _, err := os.Stat(filepath.Dir(at)); err != nil {
		return fmt.Errorf("no ledger was ever kept in %s; is it another folder? --dir names it", dir)
	}
	cmd := exec.CommandContext(ctx, server, append([]string{"ledger", command, "--ledger", at}, args...)...)
	cmd.Stdout, cmd.Stderr = out, errOut
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		return fmt.Errorf("the ledger was left as it is (%s %s)", filepath.Base(server), command) // it has said why
	} else if err != nil {
		return err
	}
	return nil
}
