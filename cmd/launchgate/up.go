package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/deploy/kubernetes"
	"github.com/launchgate/launchgate/scenarios"
)

const (
	keepName   = "keep"
	standingAt = "runs/up"        // the folder of up's files, below the working directory
	downWithin = 20 * time.Second // until the keeper is killed
	startWith  = 10 * time.Second // for the keeper itself, besides the time of the replicas
)

func upCommand(out io.Writer) *cobra.Command {
	var dir string
	var cluster clusterFlags
	cmd := &cobra.Command{
		Use:   "up [GATE.yaml | NAME]",
		Short: "Start the bundled service in the background; down stops it",
		Long: `Up deploys what a gate's target.local describes, as run does. The service keeps
running when you close this terminal. Its API key has an allowance for the load of
that gate. Without a gate, up deploys three replicas behind the gateway with all its
functions, and the limits of deploy/gateway.yaml apply to everybody. If the service
already runs, up shows its state.

With --kubernetes, or a gate that has target.kubernetes, up applies the manifests of
deploy/kubernetes to a cluster instead, waits until every pod is ready, and says how the
service is reached.`,
		Example: `  launchgate up
  launchgate up --kubernetes --overlay lab
  launchgate down`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if dir, err = filepath.Abs(dir); err != nil {
				return err
			}
			var gate *scenarios.Gate // nil: none is given
			if len(args) == 1 {
				read, err := one(gateOf(args, scenarios.Given{Environment: os.LookupEnv}))
				if err != nil {
					return err
				}
				gate = &read
			}
			spec, onCluster, err := cluster.spec(cmd, args, gate)
			if err != nil {
				return err
			}
			if onCluster {
				return upOnCluster(cmd.Context(), out, dir, spec)
			}
			if s, err := kubernetes.FindStanding(dir); err == nil {
				return fmt.Errorf("%s holds a deployment in the namespace %s of a cluster: launchgate down removes it, or name another folder with --dir", dir, s.Spec.Namespace)
			}
			want, err := orderedBy(gate)
			if err != nil {
				return err
			}
			began := time.Now()
			s, err := deploy.FindStanding(dir)
			if errors.Is(err, deploy.ErrNotStanding) {
				if s, err = startKeeper(cmd.Context(), dir, want); err == nil {
					fmt.Fprintf(out, "started in %.1f s\n", time.Since(began).Seconds())
				}
			} else if err == nil && len(args) > 0 && !reflect.DeepEqual(s.Spec, want.Spec) {
				return fmt.Errorf("%s is up already, and is not what %s describes: launchgate down stops it, or name another folder with --dir", s.URL, args[0])
			}
			if err != nil {
				return err
			}
			return tellStanding(cmd.Context(), out, s)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", standingAt, "the `folder` for its logs, keys and ledger")
	cluster.add(cmd)
	return cmd
}

// orderedBy is the deployment that a gate asks for, or the default one for nil.
func orderedBy(gate *scenarios.Gate) (deploy.Order, error) {
	if gate == nil {
		return deploy.DefaultOrder(), nil
	}
	return deploy.OrderFor(*gate)
}

// startKeeper starts the process that keeps the deployment and waits until it
// is ready. The process has a session of its own, so that it outlives the
// terminal.
func startKeeper(ctx context.Context, dir string, want deploy.Order) (deploy.Standing, error) {
	var none deploy.Standing
	task, err := json.Marshal(want)
	if err != nil {
		return none, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "logs"), 0o755); err != nil {
		return none, err
	}
	log, err := os.Create(filepath.Join(dir, "logs", "keeper.log"))
	if err != nil {
		return none, err
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return none, err
	}
	cmd := exec.Command(self, keepName, dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(string(task)), log, log
	cmd.SysProcAttr = deploy.Apart()
	closeOnExec()
	if err := cmd.Start(); err != nil {
		return none, err
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // its log has the reason
	stop := func() { _ = cmd.Process.Signal(syscall.SIGTERM); <-ended }
	for deadline := time.Now().Add(time.Duration(want.Spec.ReadyTimeout) + startWith); ; {
		s, err := deploy.FindStanding(dir)
		if err == nil {
			return s, nil
		}
		if !errors.Is(err, deploy.ErrNotStanding) {
			stop()
			return none, err
		}
		select {
		case <-ended:
			return none, fmt.Errorf("it could not be started: %s", lastWords(log.Name()))
		case <-ctx.Done():
			stop()
			return none, context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			stop()
			return none, fmt.Errorf("it was not ready within %s; its logs are in %s", time.Duration(want.Spec.ReadyTimeout), filepath.Dir(log.Name()))
		}
	}
}

// lastWords is the error in the log of a keeper that gave up.
func lastWords(log string) string {
	b, err := os.ReadFile(log)
	if err != nil || len(b) == 0 {
		return "it said nothing"
	}
	return strings.TrimPrefix(strings.TrimSpace(string(b)), "launchgate: ")
}

func tellStanding(ctx context.Context, out io.Writer, s deploy.Standing) error {
	st, err := s.Ask(ctx)
	if err != nil {
		return fmt.Errorf("%s has been up since %s, but its gateway does not answer: %w", s.URL, s.Since.Format(time.RFC3339), err)
	}
	fmt.Fprintf(out, "up since %s: %s\n", s.Since.Format(time.RFC3339), s.URL)
	for _, r := range st.Replicas {
		how := "ready"
		if !r.Ready {
			how = "not ready"
		}
		fmt.Fprintf(out, "  %-10s %s, %d requests under way, out %d times\n", r.Name, how, r.InFlight, r.Outages)
	}
	target := "--target " + s.URL
	curl := "curl " + s.URL + "/v1/models"
	if s.KeyFile != "" {
		fmt.Fprintf(out, "  %-10s %s\n  %-10s %s\n  %-10s %s\n", "key", s.KeyFile, "CA", s.CA, "allowed", s.Allowed)
		target = fmt.Sprintf("LAUNCHGATE_KEY=$(cat %s) launchgate run %s --api-key-env LAUNCHGATE_KEY --ca-file %s", s.KeyFile, target, s.CA)
		curl = fmt.Sprintf(`curl --cacert %s -H "Authorization: Bearer $(cat %s)" %s/v1/models`, s.CA, s.KeyFile, s.URL)
	} else {
		target = "launchgate run " + target
	}
	fmt.Fprintf(out, "  %-10s %s\n", "monitoring", s.Watched)
	for _, m := range s.Metrics {
		fmt.Fprintf(out, "  %-10s http://%s/metrics (%s)\n", "metrics", m.Address, m.Name)
	}
	_, err = fmt.Fprintf(out, "\n%s\n%s GATE.yaml\nlaunchgate down\n", curl, target)
	return err
}

func downCommand(out io.Writer) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop everything that up started",
		Long: `Down lets requests in progress finish, and returns when no process of the deployment
runs any more. The logs, the ledger and the audit log stay in the folder. What up has
deployed to a cluster is removed from it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			at, err := filepath.Abs(dir)
			if err != nil {
				return err
			}
			if k, err := kubernetes.FindStanding(at); !errors.Is(err, deploy.ErrNotStanding) {
				if err == nil {
					err = k.Down(cmd.Context())
				}
				if err == nil {
					_, err = fmt.Fprintf(out, "what was in the namespace %s of the cluster is gone\n", k.Spec.Namespace)
				}
				return err
			}
			s, err := deploy.FindStanding(at)
			if errors.Is(err, deploy.ErrNotStanding) {
				return fmt.Errorf("nothing is up in %s; was it started in another folder? --dir names it", at)
			}
			if err != nil {
				return err
			}
			if err := s.Down(cmd.Context(), downWithin); err != nil {
				return err
			}
			_, err = fmt.Fprintf(out, "%s is down; its logs are in %s\n", s.URL, filepath.Join(at, "logs"))
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", standingAt, "the `folder` of the deployment, as given to up")
	return cmd
}

// keepCommand is the process that up leaves running.
func keepCommand() *cobra.Command {
	return &cobra.Command{
		Use:    keepName + " DIR",
		Short:  "Keep the deployment that standard input describes, until SIGTERM",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var want deploy.Order
			if err := json.NewDecoder(os.Stdin).Decode(&want); err != nil {
				return fmt.Errorf("standard input: %w", err)
			}
			server, err := serverProgram()
			if err != nil {
				return err
			}
			return deploy.Keep(cmd.Context(), args[0], want, server)
		},
	}
}
