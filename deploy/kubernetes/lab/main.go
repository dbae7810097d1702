// Lab is a real Kubernetes cluster of one to five nodes on one machine. It
// needs neither Docker nor an image registry. It is for tests, and to try
// launchgate on a cluster. It is built from the Kubernetes modules and kept
// below the user's cache. See docs/kubernetes.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const usage = `usage: lab COMMAND
  up [-nodes N]      build what is not built, start the cluster, wait until it is ready
  down [-wipe]       stop it; -wipe forgets what it has stored, too
  build              build only
  node stop|start N  lose a node as by a loss of power, or start it again
  kubeconfig         print where the file for kubectl and launchgate is`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	began := time.Now()
	c := &cluster{dir: filepath.Join(cache, "launchgate", "kubernetes-lab"), say: func(format string, args ...any) {
		fmt.Printf("%6.1f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}}
	flags := flag.NewFlagSet("lab "+args[0], flag.ContinueOnError)
	flags.IntVar(&c.nodes, "nodes", 1, "how many nodes, 1 to 5")
	wipe := flags.Bool("wipe", false, "forget what the cluster has stored")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if c.nodes < 1 || c.nodes > maxNodes {
		return fmt.Errorf("found %d nodes, expected 1 to %d", c.nodes, maxNodes)
	}
	switch args[0] {
	case "up":
		if c.running("kube-apiserver") {
			return fmt.Errorf("the lab is up already: use it with KUBECONFIG=%s, or stop it with make lab-down", c.kubeconfig())
		}
		if err := c.up(ctx); err != nil {
			return errors.Join(err, c.down(context.WithoutCancel(ctx), false))
		}
		return nil
	case "down":
		return c.down(ctx, *wipe)
	case "build":
		return c.build(ctx)
	case "node":
		return c.node(ctx, flags.Args())
	case "kubeconfig":
		fmt.Println(c.kubeconfig())
		return nil
	}
	return errors.New(usage)
}

// node stops or starts a node, by its number or its name.
func (c *cluster) node(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New(usage)
	}
	i, err := strconv.Atoi(args[1])
	for n := 1; err != nil && n <= maxNodes; n++ {
		if nodeName(n) == args[1] {
			i, err = n, nil
		}
	}
	if err != nil || i < 1 || i > maxNodes {
		return fmt.Errorf("no node is called %q; 1 to %d are, or %s to %s", args[1], maxNodes, nodeName(1), nodeName(maxNodes))
	}
	switch args[0] {
	case "stop":
		return c.killNode(i)
	case "start":
		return c.startNode(ctx, i)
	}
	return errors.New(usage)
}
