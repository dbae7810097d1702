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
		Short: "Back up the ledger of the running deployment, and verify the copy",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return onLedger(cmd.Context(), dir, out, errOut, "backup", "--to", to)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", standingAt, "the `folder` of the deployment, as given to up")
	cmd.Flags().StringVar(&to, "to", "", "the `file` to write, which must not exist yet")
	_ = cmd.MarkFlagRequired("to")
	return cmd
}

func restoreCommand(out, errOut io.Writer) *cobra.Command {
	var dir, from string
	cmd := &cobra.Command{
		Use:   "restore [--from FILE]",
		Short: "Restore a lost ledger from a backup or from its replica, and verify it",
		Long: `Restore writes the ledger that the next up will use. It reads the backup named by
--from. Without --from it reads the replica in the ledger's second place. Restore
never overwrites a ledger, and refuses to run while the service is up.`,
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
	cmd.Flags().StringVar(&dir, "dir", standingAt, "the `folder` of the deployment, as given to up")
	cmd.Flags().StringVar(&from, "from", "", "the `backup` to read (default the replica in the second place)")
	return cmd
}

// onLedger runs a command of the reference server on a ledger.
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
		return fmt.Errorf("the ledger was left as it is (%s %s)", filepath.Base(server), command) // the command has printed the reason
	} else if err != nil {
		return err
	}
	return nil
}
