package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/deploy/kubernetes"
	"github.com/launchgate/launchgate/internal/run"
	"github.com/launchgate/launchgate/internal/version"
	"github.com/launchgate/launchgate/loadgen/worker"
	"github.com/launchgate/launchgate/scenarios"
)

const workerName = "worker"

// workerSumVariable holds the SHA-256 sum of the token that a run has to show to a worker
// that waits for it.
const workerSumVariable = "LAUNCHGATE_WORKER_TOKEN_SHA256"

// workerCommand is one of several processes that share a load. run --workers starts it,
// on this machine or in the pods of a Job.
func workerCommand() *cobra.Command {
	var connect, wait string
	var patience time.Duration
	cmd := &cobra.Command{
		Use:   workerName + " (--connect | --wait) HOST:PORT",
		Short: "Send a part of a run's load",
		Long: `Worker connects to a run, or waits for one, and sends its share of the load until the
run closes the connection. To connect, it reads the run's token from the environment
variable ` + run.WorkerTokenVariable + `. To wait, it reads the SHA-256 sum of the token from
` + workerSumVariable + `.`,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			variable := run.WorkerTokenVariable
			if wait != "" {
				variable = workerSumVariable
			}
			secret := os.Getenv(variable)
			if secret == "" {
				return fmt.Errorf("the environment variable %s is empty; launchgate run --workers sets it", variable)
			}
			if wait != "" {
				return worker.Wait(cmd.Context(), wait, secret, version.Short(), patience)
			}
			return worker.Work(cmd.Context(), connect, secret, version.Short())
		},
	}
	cmd.Flags().StringVar(&connect, "connect", "", "`HOST:PORT` of the run")
	cmd.Flags().StringVar(&wait, "wait", "", "`HOST:PORT` to wait at for the run")
	cmd.Flags().DurationVar(&patience, "patience", 5*time.Minute, "how long to wait for the run")
	cmd.MarkFlagsOneRequired("connect", "wait")
	cmd.MarkFlagsMutuallyExclusive("connect", "wait")
	return cmd
}

// workersFlags say which processes send the load.
type workersFlags struct {
	n         int
	onCluster bool
	cluster   kubernetes.Workers
}

// The most workers on this machine, and on a cluster.
const (
	mostWorkers          = 64
	mostWorkersOnCluster = 256
)

func (w *workersFlags) String() string {
	if w.onCluster {
		return fmt.Sprintf("kubernetes:%d", w.n)
	}
	return strconv.Itoa(w.n)
}

// Set reads N or kubernetes:N.
func (w *workersFlags) Set(s string) error {
	number, onCluster := strings.CutPrefix(s, "kubernetes:")
	n, err := strconv.Atoi(number)
	if err != nil {
		return fmt.Errorf("found %q, expected a number of workers, or kubernetes:NUMBER", s)
	}
	if onCluster && (n < 1 || n > mostWorkersOnCluster) {
		return fmt.Errorf("found %d workers on a cluster, expected from 1 to %d", n, mostWorkersOnCluster)
	}
	if !onCluster && (n < 0 || n > mostWorkers) {
		return fmt.Errorf("found %d workers, expected from 0 to %d", n, mostWorkers)
	}
	w.n, w.onCluster = n, onCluster
	return nil
}

func (*workersFlags) Type() string { return "number" }

func (w *workersFlags) add(cmd *cobra.Command) {
	cmd.Flags().Var(w, "workers", "send the load from this `number` of worker processes; kubernetes:NUMBER are pods of a cluster; 0 sends it from launchgate itself")
	cmd.Flags().StringVar(&w.cluster.Context, "workers-context", "", "the `context` of the kubeconfig for --workers kubernetes:N (default that of target.kubernetes, or the current one)")
	cmd.Flags().StringVar(&w.cluster.Namespace, "workers-namespace", "", "the `namespace` for --workers kubernetes:N (default that of target.kubernetes)")
	cmd.Flags().StringVar(&w.cluster.Image, "workers-image", "", "the `image` with launchgate for --workers kubernetes:N (default launchgate/launchgate:dev, of make images)")
}

// elsewhere is how workers on a cluster are started for a gate; nil where they are
// processes of this machine.
func (w *workersFlags) elsewhere(g scenarios.Gate) (deploy.WorkerPlan, error) {
	if !w.onCluster {
		if w.cluster != (kubernetes.Workers{}) {
			return nil, errors.New("--workers-context, --workers-namespace and --workers-image are for workers on a cluster: give --workers kubernetes:N too")
		}
		return nil, nil
	}
	cluster := w.cluster
	switch k := g.Resolved().Target.Kubernetes; {
	case g.Target.Local != nil:
		return nil, errors.New("found --workers kubernetes:N and target.local; pods of a cluster do not reach a service on this machine, so take target.kubernetes or a URL that they reach")
	case k != nil:
		cluster.Context, cluster.Namespace = cmp.Or(cluster.Context, k.Context), cmp.Or(cluster.Namespace, k.Namespace)
	case cluster.Namespace == "":
		return nil, errors.New("found --workers kubernetes:N without a namespace for the workers; give --workers-namespace")
	}
	return cluster, nil
}
