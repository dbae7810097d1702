package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

var (
	//go:embed node/boot.sh
	bootScript []byte
	//go:embed node/init.sh
	initScript []byte
	//go:embed node/containerd.toml
	containerdConfig []byte
	//go:embed node/kubelet.yaml
	kubeletConfig []byte
	//go:embed node/cni.conflist
	cniConfig string
)

// controllers are the cgroup controllers. A node gets a group of each.
var controllers = []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd"}

// startNode starts a node: containerd, kubelet and kube-proxy. It has its own
// namespaces and control groups and uses this machine's /usr.
func (c *cluster) startNode(ctx context.Context, i int) error {
	n := nodeName(i)
	if c.running(n) {
		return fmt.Errorf("node %s runs already", n)
	}
	root := c.path("nodes", n, "root")
	if err := c.furnish(root, i); err != nil {
		return fmt.Errorf("node %s: %w", n, err)
	}
	removeGroups(n)
	if err := makeGroups(n); err != nil {
		return fmt.Errorf("node %s: %w", n, err)
	}
	boot := c.path("nodes", n, "boot.sh")
	if err := os.WriteFile(boot, bootScript, 0o700); err != nil {
		return err
	}
	// The shell joins the groups, so that all its child processes are in them.
	join := fmt.Sprintf(`for g in %s; do echo $$ > /sys/fs/cgroup/$g/%s/cgroup.procs; done; exec nsenter --net=/run/netns/%s unshare --mount --uts --ipc --pid --cgroup --fork --kill-child bash %s %s %s %s`,
		strings.Join(controllers, " "), n, n, boot, n, root, c.dir)
	return c.start(n, "bash", "-c", join)
}

// furnish makes the folders and files of a node's root file system.
func (c *cluster) furnish(root string, i int) error {
	n := nodeName(i)
	for _, dir := range []string{"usr", "var/lib/kubelet", "var/lib/containerd", "var/lib/cni", "var/log/pods", "var/log/containers", "var/log/node", "run", "tmp", "dev", "proc", "sys", "root", "lab", "old", "etc/cni/net.d", "etc/containerd", "etc/kubernetes"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{"bin", "sbin", "lib", "lib64", "lib32"} {
		if to, err := os.Readlink("/" + dir); err == nil {
			if err := os.Symlink(to, filepath.Join(root, dir)); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
	}
	for at, to := range map[string]string{"var/run": "/run", "var/tmp": "/tmp"} {
		if err := os.Symlink(to, filepath.Join(root, at)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	for _, file := range []string{"passwd", "group", "nsswitch.conf", "alternatives", "ld.so.cache", "ld.so.conf", "protocols", "services", "ssl"} {
		if out, err := exec.Command("cp", "-a", "--update", "/etc/"+file, filepath.Join(root, "etc")).CombinedOutput(); err != nil {
			return fmt.Errorf("copy /etc/%s: %s", file, out)
		}
	}
	ca, err := os.ReadFile(c.path("pki", "ca.crt"))
	if err != nil {
		return err
	}
	kubelet, err := os.ReadFile(c.path("pki", n+".kubeconfig"))
	if err != nil {
		return err
	}
	proxy, err := os.ReadFile(c.path("pki", "proxy.kubeconfig"))
	if err != nil {
		return err
	}
	for file, b := range map[string][]byte{
		"etc/hostname": []byte(n + "\n"), "etc/hosts": fmt.Appendf(nil, "127.0.0.1 localhost\n%s %s\n", nodeIP(i), n), "etc/resolv.conf": nil,
		"etc/machine-id": fmt.Appendf(nil, "%032x\n", i), "etc/kubernetes/ca.crt": ca, "etc/kubernetes/kubelet.kubeconfig": kubelet, "etc/kubernetes/proxy.kubeconfig": proxy,
		"etc/kubernetes/kubelet.yaml": kubeletConfig, "etc/containerd/config.toml": containerdConfig,
		"etc/cni/net.d/10-pods.conflist": []byte(strings.ReplaceAll(cniConfig, "POD_CIDR", podCIDR(i))), "init.sh": initScript,
	} {
		if err := os.WriteFile(filepath.Join(root, file), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// killNode ends a node as a loss of power does. It kills the first process of
// the pid namespace, and the kernel ends the others with it.
func (c *cluster) killNode(i int) error {
	n := nodeName(i)
	pid := c.pid(n)
	if pid == 0 {
		return nil
	}
	// The first process of the node is the child of the one that made its namespaces.
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return err
	}
	for _, child := range strings.Fields(string(children)) {
		var first int
		if _, err := fmt.Sscan(child, &first); err == nil {
			if err := syscall.Kill(first, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("kill node %s: %w", n, err)
			}
		}
	}
	for began := time.Now(); c.running(n); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			return fmt.Errorf("node %s (process %d) does not end", n, pid)
		}
	}
	return os.Remove(c.pidFile(n))
}

// makeGroups makes the control groups of a node.
func makeGroups(n string) error {
	for _, controller := range controllers {
		dir := filepath.Join("/sys/fs/cgroup", controller, n)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if controller != "cpuset" {
			continue
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // a group with empty ones takes no process
			b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup/cpuset", file))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, file), b, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeGroups removes the control groups that a stopped node left. Otherwise
// the kubelet would spend seconds on each.
func removeGroups(n string) {
	for _, controller := range controllers {
		dir := filepath.Join("/sys/fs/cgroup", controller, n)
		var all []string
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, path)
			}
			return nil
		})
		for j := len(all) - 1; j >= 0; j-- {
			_ = os.Remove(all[j]) // a group with a process stays
		}
	}
}
