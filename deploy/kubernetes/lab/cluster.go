package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Addresses of the cluster. They are in network namespaces of the lab. Only one
// end of a cable is in this machine's own, which connects it with the nodes.
const (
	hostIP      = "10.77.0.1" // this machine's end; the API server listens here
	serviceCIDR = "10.96.0.0/16"
	servicesIP  = "10.96.0.1" // of the API server, for pods
	apiPort     = "6443"
	maxNodes    = 5
)

// cluster is a Kubernetes on this machine: its folder below the user's cache has
// everything of it.
//
//	bin/        what was built: Kubernetes in one program, its names are links to it
//	images/     tarballs that every node takes in at its first start
//	pki/        certificates, keys and tokens
//	etcd/       what the API server keeps
//	nodes/      the disks of the nodes
//	run/        numbers of the processes
//	log/        what they say
//	kubeconfig  for kubectl, and for launchgate
type cluster struct {
	dir   string
	nodes int
	say   func(format string, args ...any)
}

func (c *cluster) path(parts ...string) string {
	return filepath.Join(append([]string{c.dir}, parts...)...)
}

func (c *cluster) kubeconfig() string { return c.path("kubeconfig") }

// up brings the cluster up, and waits until every node is ready.
func (c *cluster) up(ctx context.Context) error {
	if err := able(); err != nil {
		return err
	}
	if err := c.build(ctx); err != nil {
		return err
	}
	for _, dir := range []string{"pki", "run", "log", "nodes"} {
		if err := os.MkdirAll(c.path(dir), 0o700); err != nil {
			return err
		}
	}
	if err := c.certify(); err != nil {
		return fmt.Errorf("certificates: %w", err)
	}
	if err := c.cable(ctx); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if err := c.control(ctx); err != nil {
		return err
	}
	for i := 1; i <= c.nodes; i++ {
		if err := c.startNode(ctx, i); err != nil {
			return err
		}
	}
	if err := c.nodesReady(ctx); err != nil {
		return err
	}
	c.say("ready: export KUBECONFIG=%s", c.kubeconfig())
	return nil
}

// down stops everything that the lab started. With wipe it also removes the
// data of the cluster. The built programs stay.
func (c *cluster) down(ctx context.Context, wipe bool) error {
	for i := 1; i <= maxNodes; i++ {
		if err := c.killNode(i); err != nil {
			return err
		}
	}
	for _, name := range []string{"kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"} {
		if err := c.stop(name); err != nil {
			return err
		}
	}
	c.uncable(ctx)
	for i := 1; i <= maxNodes; i++ {
		removeGroups(nodeName(i))
	}
	if !wipe {
		return nil
	}
	var err error
	for _, dir := range []string{"etcd", "nodes", "pki", "run", "kubeconfig"} {
		err = errors.Join(err, os.RemoveAll(c.path(dir)))
	}
	return err
}

// able is an error that lists everything that this machine lacks.
func able() error {
	var lacks []string
	if os.Getuid() != 0 {
		lacks = append(lacks, "root")
	}
	for program, pkg := range map[string]string{"containerd": "containerd", "runc": "runc", "iptables": "iptables", "nft": "nftables", "conntrack": "conntrack", "ip": "iproute2", "unshare": "util-linux", "nsenter": "util-linux"} {
		if _, err := exec.LookPath(program); err != nil {
			lacks = append(lacks, fmt.Sprintf("the program %s (Debian's package %s)", program, pkg))
		}
	}
	if _, err := os.Stat("/usr/lib/cni/bridge"); err != nil {
		lacks = append(lacks, "the CNI plugins in /usr/lib/cni (Debian's package containernetworking-plugins)")
	}
	if _, err := os.Stat("/sys/fs/cgroup/memory/cgroup.procs"); err != nil {
		lacks = append(lacks, "control groups of version 1 below /sys/fs/cgroup")
	}
	if len(lacks) > 0 {
		return fmt.Errorf("this machine cannot have the lab, it lacks: %s", strings.Join(lacks, "; "))
	}
	return nil
}

// start starts a program that outlives this one. Its log and its pid are on
// disk.
func (c *cluster) start(name string, argv ...string) error {
	log, err := os.Create(c.path("log", name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	// With the machine's web proxy the API server would ask that one for pods.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains([]string{"http_proxy", "https_proxy", "all_proxy"}, strings.ToLower(name))
	})
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer cmd.Process.Release()
	return os.WriteFile(c.pidFile(name), fmt.Appendf(nil, "%d %s\n", cmd.Process.Pid, startOf(cmd.Process.Pid)), 0o600)
}

func (c *cluster) pidFile(name string) string { return c.path("run", name) }

// pid is the pid of a process, or 0 if it does not run. A later process with
// the same pid does not count.
func (c *cluster) pid(name string) int {
	b, err := os.ReadFile(c.pidFile(name))
	var pid int
	var start string
	if _, scanned := fmt.Sscan(string(b), &pid, &start); err != nil || scanned != nil || startOf(pid) != start {
		return 0
	}
	return pid
}

func (c *cluster) running(name string) bool { return c.pid(name) != 0 }

// startOf is the start time of a process, which distinguishes it from others
// with the same pid. It is empty if there is no such process, or only a zombie.
func startOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}

// stop ends a process. It does not wait long: the API server would wait a
// minute for watchers that are gone.
func (c *cluster) stop(name string) error {
	pid := c.pid(name)
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	for range 40 {
		if !c.running(name) {
			return os.Remove(c.pidFile(name))
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	return os.Remove(c.pidFile(name))
}

// control starts etcd, the API server, the controllers and the scheduler.
func (c *cluster) control(ctx context.Context) error {
	pki := func(name string) string { return c.path("pki", name) }
	if err := c.start("etcd", c.path("bin", "etcd"), "--data-dir", c.path("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls", etcdURL, "--advertise-client-urls", etcdURL,
		"--listen-peer-urls", etcdPeerURL, "--initial-advertise-peer-urls", etcdPeerURL, "--initial-cluster", "default="+etcdPeerURL); err != nil {
		return err
	}
	if err := c.start("kube-apiserver", c.path("bin", "kube-apiserver"), "--etcd-servers="+etcdURL,
		"--bind-address="+hostIP, "--advertise-address="+hostIP, "--secure-port="+apiPort,
		"--tls-cert-file="+pki("apiserver.crt"), "--tls-private-key-file="+pki("apiserver.key"),
		"--client-ca-file="+pki("ca.crt"), "--token-auth-file="+pki("tokens.csv"),
		"--kubelet-client-certificate="+pki("kubelet-client.crt"), "--kubelet-client-key="+pki("kubelet-client.key"), "--kubelet-preferred-address-types=InternalIP",
		"--service-account-key-file="+pki("accounts.pub"), "--service-account-signing-key-file="+pki("accounts.key"), "--service-account-issuer=https://kubernetes.default.svc",
		"--service-cluster-ip-range="+serviceCIDR, "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		// A pod leaves a lost node after 5 s. The default is 5 minutes.
		"--default-not-ready-toleration-seconds=5", "--default-unreachable-toleration-seconds=5"); err != nil {
		return err
	}
	if err := c.wait(ctx, "the API server", 2*time.Minute, "kube-apiserver", func() error {
		_, err := c.kubectl(ctx, "get", "--raw", "/readyz")
		return err
	}); err != nil {
		return err
	}
	if err := c.start("kube-controller-manager", c.path("bin", "kube-controller-manager"), "--kubeconfig="+pki("controllers.kubeconfig"),
		"--authentication-kubeconfig="+pki("controllers.kubeconfig"), "--authorization-kubeconfig="+pki("controllers.kubeconfig"), "--bind-address=127.0.0.1",
		"--leader-elect=false", "--use-service-account-credentials=true", "--root-ca-file="+pki("ca.crt"), "--service-account-private-key-file="+pki("accounts.key"),
		"--allocate-node-cidrs=false", "--node-monitor-period=1s", "--node-monitor-grace-period=8s"); err != nil {
		return err
	}
	return c.start("kube-scheduler", c.path("bin", "kube-scheduler"), "--kubeconfig="+pki("scheduler.kubeconfig"),
		"--authentication-kubeconfig="+pki("scheduler.kubeconfig"), "--authorization-kubeconfig="+pki("scheduler.kubeconfig"), "--bind-address=127.0.0.1", "--leader-elect=false")
}

const (
	etcdURL     = "http://127.0.0.1:12379"
	etcdPeerURL = "http://127.0.0.1:12380"
)

// nodesReady waits until the kubelet of every node reports that the node is
// ready.
func (c *cluster) nodesReady(ctx context.Context) error {
	return c.wait(ctx, fmt.Sprintf("%d nodes", c.nodes), 2*time.Minute, "node-1", func() error {
		out, err := c.kubectl(ctx, "get", "nodes", "-o", "json")
		if err != nil {
			return err
		}
		var nodes struct {
			Items []struct {
				Status struct {
					Conditions []struct{ Type, Status, Message string }
				}
			}
		}
		if err := json.Unmarshal(out, &nodes); err != nil {
			return err
		}
		ready := 0
		for _, n := range nodes.Items {
			for _, condition := range n.Status.Conditions {
				if condition.Type == "Ready" && condition.Status == "True" {
					ready++
				}
			}
		}
		if ready < c.nodes {
			return fmt.Errorf("%d of %d are ready", ready, c.nodes)
		}
		return nil
	})
}

// wait waits until a condition holds. Its error ends with the last lines of a
// process's log.
func (c *cluster) wait(ctx context.Context, what string, within time.Duration, log string, there func() error) error {
	began := time.Now()
	for {
		err := there()
		if err == nil {
			c.say("%s ready after %.1f s", what, time.Since(began).Seconds())
			return nil
		}
		if time.Since(began) > within || ctx.Err() != nil {
			return fmt.Errorf("%s not ready after %s: %w; %s ends:\n%s", what, time.Since(began).Round(time.Second), err, c.path("log", log+".log"), c.tail(log))
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (c *cluster) tail(log string) string {
	b, err := os.ReadFile(c.path("log", log+".log"))
	if errors.Is(err, fs.ErrNotExist) {
		return "(there is none)"
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// kubectl runs kubectl against the cluster.
func (c *cluster) kubectl(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.path("bin", "kubectl"), append([]string{"--kubeconfig", c.kubeconfig(), "--request-timeout=10s"}, args...)...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, fmt.Errorf("kubectl %s: %s", args[0], strings.TrimSpace(string(exit.Stderr)))
	}
	return out, err
}
