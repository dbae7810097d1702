package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"time"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/deploy/kubernetes"
	"github.com/launchgate/launchgate/scenarios"
)

// clusterFlags have up deploy to a cluster.
type clusterFlags struct {
	kubernetes bool
	asked      scenarios.Kubernetes
}

func (f *clusterFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.kubernetes, "kubernetes", false, "deploy to a Kubernetes cluster and not to this machine")
	cmd.Flags().StringVar(&f.asked.Context, "context", "", "with --kubernetes: the `context` of the kubeconfig (default: the current one)")
	cmd.Flags().StringVar(&f.asked.Namespace, "namespace", "", "with --kubernetes: the `namespace` (default "+scenarios.DefaultNamespace+")")
	cmd.Flags().StringVar(&f.asked.Overlay, "overlay", "", "with --kubernetes: the `overlay` of the manifests, or a folder with a kustomization.yaml (default "+scenarios.DefaultOverlay+")")
	cmd.Flags().IntVar(&f.asked.Replicas, "replicas", 0, "with --kubernetes: how `many` replicas (default: as the manifests say)")
}

// spec is the deployment to a cluster: that of the gate, which is nil if the arguments
// name none, and what the flags say instead. It reports whether that is to be done at all.
func (f *clusterFlags) spec(cmd *cobra.Command, args []string, given *scenarios.Gate) (scenarios.Kubernetes, bool, error) {
	gate := scenarios.Gate{Target: scenarios.Target{Kubernetes: &scenarios.Kubernetes{}}}
	if given != nil {
		gate = *given
		if gate.Target.Kubernetes == nil && f.kubernetes {
			return scenarios.Kubernetes{}, false, fmt.Errorf("found --kubernetes and %s, which has no target.kubernetes; leave one of them out", args[0])
		}
	}
	on := f.kubernetes || given != nil && gate.Target.Kubernetes != nil
	if !on {
		for _, name := range []string{"context", "namespace", "overlay", "replicas"} {
			if cmd.Flags().Changed(name) {
				return scenarios.Kubernetes{}, false, fmt.Errorf("found --%s without --kubernetes, expected both: it says something of a cluster", name)
			}
		}
		return scenarios.Kubernetes{}, false, nil
	}
	spec := *gate.Target.Kubernetes
	spec.Context = cmp.Or(f.asked.Context, spec.Context)
	spec.Namespace = cmp.Or(f.asked.Namespace, spec.Namespace)
	spec.Overlay = cmp.Or(f.asked.Overlay, spec.Overlay)
	if cmd.Flags().Changed("replicas") {
		spec.Replicas = f.asked.Replicas
	}
	gate.Target.Kubernetes = &spec
	spec = *gate.Resolved().Target.Kubernetes
	return spec, true, scenarios.CheckKubernetes(spec)
}

func upOnCluster(ctx context.Context, out io.Writer, dir string, want scenarios.Kubernetes) error {
	if local, err := deploy.FindStanding(dir); err == nil {
		return fmt.Errorf("%s is up in %s, on this machine: launchgate down stops it, or name another folder with --dir", local.URL, dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	s, err := kubernetes.FindStanding(dir)
	switch {
	case errors.Is(err, deploy.ErrNotStanding):
		fmt.Fprintf(out, "applying the manifests of %s to the namespace %s\n", want.Overlay, want.Namespace)
		began := time.Now()
		if s, err = kubernetes.Up(ctx, dir, want); err != nil {
			return err
		}
		fmt.Fprintf(out, "started in %.1f s\n", time.Since(began).Seconds())
	case err != nil:
		return err
	case !s.Ready:
		return fmt.Errorf("a launchgate up was ended before the deployment in the namespace %s was ready: launchgate down --dir %s removes it", s.Spec.Namespace, dir)
	case !reflect.DeepEqual(s.Spec, want):
		return fmt.Errorf("a deployment is up in the namespace %s already, by the manifests of %s, and is not what is asked for: launchgate down removes it, or name another folder with --dir", s.Spec.Namespace, s.Spec.Overlay)
	}
	ready, all, err := s.Pods(ctx)
	if err != nil {
		return err
	}
	kubectl := "kubectl -n " + s.Spec.Namespace
	if s.Spec.Context != "" {
		kubectl = "kubectl --context " + s.Spec.Context + " -n " + s.Spec.Namespace
	}
	name, port := s.Spec.ServiceName(), kubernetes.ServicePort
	fmt.Fprintf(out, `up since %s: %d of %d pods are ready in the namespace %s
  %-14s http://%s.%s.svc:%d (for pods and namespaces with the label launchgate.dev/client=true)
  %-14s %s port-forward service/%s %d:%d

curl http://127.0.0.1:%d/v1/models
launchgate run --target http://127.0.0.1:%d GATE.yaml
launchgate down
`, s.Since.Format(time.RFC3339), ready, all, s.Spec.Namespace, "in the cluster", name, s.Spec.Namespace, port, "from here", kubectl, name, port, port, port, port)
	return nil
}
