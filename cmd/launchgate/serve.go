package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/serve"
	"github.com/launchgate/launchgate/scenarios"
)

const (
	leastKey = 16 // characters
	// endWithin is how long a run that is interrupted may take to revert its faults
	// and to write its report.
	endWithin = 3 * time.Minute
	lastSaid  = 2000 // characters of what a run said that are kept
)

func serveCommand(out io.Writer) *cobra.Command {
	var listen, runs, gates, keyEnv string
	var queue, keep int
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Play gates when another system asks, and tell it their verdicts",
		Long: `Serve is a small API for systems that deploy in steps, such as Argo Rollouts and
Flagger. POST /runs {"gate": "NAME"} answers at once with an id, GET /runs/ID tells the
verdict, and the page at / lists the runs with the trend of each objective. One run is
played at a time. docs/ci.md has examples.

Gates are the ready ones and the files in the folder of --gates, by their names. The
key that callers need is in an environment variable. Ctrl-C interrupts the run that is
under way, which still gets a report; what is queued is played by the next serve.`,
		Example: `  LAUNCHGATE_KEY=$(openssl rand -hex 24) launchgate serve --gates gates
  curl -H "Authorization: Bearer $LAUNCHGATE_KEY" -d '{"gate": "quick"}' http://127.0.0.1:7080/runs`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key := os.Getenv(keyEnv)
			if len(key) < leastKey {
				return fmt.Errorf("found a key of %d characters in the environment variable %s, expected at least %d: set it, for example to the output of openssl rand -hex 24", len(key), keyEnv, leastKey)
			}
			if queue < 0 || queue > 1000 {
				return fmt.Errorf("found --queue %d, expected from 0 to 1000", queue)
			}
			if keep < 0 {
				return fmt.Errorf("found --keep %d, expected 0 (all) or the number of ended runs to keep", keep)
			}
			if _, err := gateFiles(gates); err != nil {
				return err
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			s, err := serve.New(serve.Options{Dir: runs, Queue: queue, Keep: keep,
				Gates: func() []string { return servedGates(gates) },
				Play: func(ctx context.Context, gate, dir string) (int, string) {
					return playApart(ctx, self, keyEnv, gates, gate, dir)
				},
			})
			if err != nil {
				return err
			}
			return listenAndServe(cmd.Context(), listen, s, key, out)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:7080", "`HOST:PORT` to serve on")
	cmd.Flags().StringVar(&runs, "runs", "runs", "the `folder` of the run folders")
	cmd.Flags().StringVar(&gates, "gates", "", "a `folder` with gates, NAME.yaml each")
	cmd.Flags().StringVar(&keyEnv, "key-env", "LAUNCHGATE_KEY", "the environment `VARIABLE` that holds the key of the API")
	cmd.Flags().IntVar(&queue, "queue", 8, "how many runs may `wait`")
	cmd.Flags().IntVar(&keep, "keep", 0, "keep so many ended `runs` and remove the folders of older ones; 0 keeps all")
	return cmd
}

func listenAndServe(ctx context.Context, listen string, s *serve.Server, key string, out io.Writer) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("--listen %s: %w; expected a free HOST:PORT such as 127.0.0.1:7080", listen, err)
	}
	fmt.Fprintf(out, "http://%s/\n", l.Addr())
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var work sync.WaitGroup
	work.Go(func() { s.Work(ctx) })
	callers, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()
	server := &http.Server{Handler: s.Handler(key), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return callers }}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		stop()
		work.Wait() // the run under way reverts its faults
		return err
	case <-ctx.Done():
	}
	work.Wait() // so that clients which wait for the run receive its verdict
	time.AfterFunc(time.Second, hangUp)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(server.Shutdown(end), ignoreClosed(<-served))
}

// gateFiles are the gates in a folder by name.
func gateFiles(folder string) (map[string]string, error) {
	files := map[string]string{}
	if folder == "" {
		return files, nil
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("--gates: %w", err)
	}
	for _, e := range entries {
		if name := e.Name(); !e.IsDir() && !strings.HasPrefix(name, ".") && (filepath.Ext(name) == ".yaml" || filepath.Ext(name) == ".yml") {
			files[strings.TrimSuffix(name, filepath.Ext(name))] = filepath.Join(folder, name)
		}
	}
	return files, nil
}

func servedGates(folder string) []string {
	var names []string
	files, err := gateFiles(folder)
	if err == nil { // it was there at the start
		for name := range files {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, g := range scenarios.Gates() {
		if files[g.Name] == "" {
			names = append(names, g.Name)
		}
	}
	return names
}

// playApart plays a gate in a process of its own, without the key of the API.
func playApart(ctx context.Context, self, keyEnv, folder, gate, dir string) (int, string) {
	files, err := gateFiles(folder)
	if err != nil {
		return checklist.ExitCouldNotRun, err.Error()
	}
	if file := files[gate]; file != "" {
		gate = file
	}
	cmd := exec.CommandContext(ctx, self, "run", "--out", dir, gate)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = endWithin
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, keyEnv+"=") || strings.HasPrefix(v, "GITHUB_")
	})
	apart(cmd) // Ctrl-C is for the server, which then interrupts the run once
	var said tail
	cmd.Stdout, cmd.Stderr = &said, &said
	err = cmd.Run()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() < 0 {
		return checklist.ExitCouldNotRun, fmt.Sprintf("launchgate run did not end by itself: %v", err)
	}
	return cmd.ProcessState.ExitCode(), strings.TrimSpace(said.String())
}

// tail keeps the end of what is written.
type tail struct{ bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	t.Buffer.Write(p)
	if over := t.Len() - lastSaid; over > 0 {
		t.Next(over)
	}
	return len(p), nil
}
