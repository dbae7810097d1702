package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/internal/run"
	"github.com/launchgate/launchgate/internal/version"
	"github.com/launchgate/launchgate/loadgen/worker"
)

const workerName = "worker"

// workerCommand is one of several processes that share a load. run --workers
// starts it. On another host its argument is the address of the run.
func workerCommand() *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use:   workerName + " --connect HOST:PORT",
		Short: "Send a part of a run's load",
		Long: `Worker connects to a run and sends its share of the load until the run closes the
connection. It reads the run's token from the environment variable ` + run.WorkerTokenVariable + `.`,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			token := os.Getenv(run.WorkerTokenVariable)
			if token == "" {
				return fmt.Errorf("the environment variable %s, which is to hold the run's token, is empty", run.WorkerTokenVariable)
			}
			return worker.Work(cmd.Context(), address, token, version.Short())
		},
	}
	cmd.Flags().StringVar(&address, "connect", "", "`HOST:PORT` of the run")
	_ = cmd.MarkFlagRequired("connect")
	return cmd
}
