package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/launchgate/launchgate/deploy/kubernetes/image"
)

// kubernetesVersion is the version of the module in programs/go.mod. The
// programs report it as their version.
const kubernetesVersion = "v1.34.4"

// programs are the names under which the single Kubernetes program is linked.
var programs = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"}

// build builds Kubernetes and the images that every node loads. Go's cache
// makes it quick if nothing has changed. The first build takes twelve minutes
// of processor time.
func (c *cluster) build(ctx context.Context) error {
	source, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	for _, dir := range []string{"bin", "images"} {
		if err := os.MkdirAll(c.path(dir), 0o755); err != nil {
			return err
		}
	}
	began := time.Now()
	if _, err := os.Stat(c.path("bin", "kubernetes")); err != nil {
		c.say("building Kubernetes %s from its modules: about 12 minutes of a processor the first time, 1 GB of sources and 4 GB of Go's build cache", kubernetesVersion)
	}
	v := "k8s.io/component-base/version."
	flags := fmt.Sprintf("-s -w -X %[1]sgitVersion=%[2]s -X %[1]sgitMajor=1 -X %[1]sgitMinor=%[3]s -X %[1]sgitTreeState=clean -X %[1]sbuildDate=2026-01-01T00:00:00Z", v, kubernetesVersion, strings.Split(kubernetesVersion, ".")[1])
	if err := goBuild(ctx, filepath.Join(source, "deploy/kubernetes/lab/programs"), flags, c.path("bin", "kubernetes"), "."); err != nil {
		return fmt.Errorf("build of Kubernetes: %w", err)
	}
	for _, name := range programs {
		if err := os.Symlink("kubernetes", c.path("bin", name)); err != nil && !os.IsExist(err) {
			return err
		}
	}
	if err := c.pause(ctx, source); err != nil {
		return fmt.Errorf("the image pause: %w", err)
	}
	images := exec.CommandContext(ctx, "go", "run", "./deploy/kubernetes/images", "-to", c.path("images"))
	images.Dir = source
	if out, err := images.CombinedOutput(); err != nil {
		return fmt.Errorf("images of launchgate: %w: %s", err, out)
	}
	c.say("built after %.0f s", time.Since(began).Seconds())
	return nil
}

// pause makes the image of the container that holds the namespaces of a pod.
func (c *cluster) pause(ctx context.Context, source string) error {
	program := c.path("bin", "pause")
	if err := goBuild(ctx, source, "-s -w -buildid=", program, "./deploy/kubernetes/lab/pause"); err != nil {
		return err
	}
	spec, err := image.OfProgram(program, nil, nil)
	if err != nil {
		return err
	}
	img, err := image.Build(spec)
	if err != nil {
		return err
	}
	return image.Write(c.path("images", "pause.tar"), "launchgate/pause:1", img)
}

// goBuild builds a static program with low priority.
func goBuild(ctx context.Context, dir, flags, to, pkg string) error {
	cmd := exec.CommandContext(ctx, "nice", "-n", "19", "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", to, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}

// moduleRoot is the folder of launchgate's source.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	at := strings.TrimSpace(string(out))
	if err != nil || at == "" || at == os.DevNull {
		return "", fmt.Errorf("the lab is built from launchgate's source: run it in a folder of that (%v)", err)
	}
	return filepath.Dir(at), nil
}
