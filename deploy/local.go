package deploy

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/launchgate/launchgate/deploy/gpu"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

const (
	statusEvery = 100 * time.Millisecond // how often the gateway's status is read
	gaugesEvery = 500 * time.Millisecond // how often gauges are observed
)

// tellsOfItself are the observations that the deployment makes, at gaugesEvery
// and when they change.
var tellsOfItself = []string{"replicas_ready", "memory_bytes"}

// Local is the bundled service on loopback: replicas of reference-server serve
// and one gateway in front, each a supervised process with its own log file.
//
//	client ──▶ gateway ──▶ (node: (link) ──▶ replica-0, replica-1, …)
//	           │  ▲ /status, every 100 ms
//	      ledger  watch ──▶ events
//
// Nodes with networks of their own, and links, exist if a gate has faults of the
// network. The ledger exists unless the gate asks for a plain gateway.
type Local struct {
	LocalPlan
	front
	programs
	network
	releases
	seating Seating
	server  string            // the reference-server program
	issued  map[string]string // API keys, by the variables that workloads name them by
	scraped []Scraped         // metrics of all processes
	logDir  string
	onEvent func(Event)
	stop    context.CancelFunc
	running sync.WaitGroup
}

// StartLocal starts the processes and returns at once; WaitReady waits for
// them. Stop must be called, whatever happens.
func StartLocal(ctx context.Context, spec scenarios.Local, allow Allowance, o Setup, on Ground) (*Local, error) {
	if err := DeploysHere(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(o.Build); err != nil {
		return nil, words.Errorf("the bundled service cannot be deployed, because there is no reference-server program at %s; build it beside launchgate (make build)", o.Build)
	}
	if err := spec.CheckModels(); err != nil {
		return nil, err
	}
	if spec.Port != 0 {
		if err := portFree(spec.Port); err != nil {
			return nil, err
		}
	}
	seating := on.Seating
	if seating == nil {
		planned, err := seatAll(ctx, spec, o.Build, ListGPUs)
		if err != nil {
			return nil, err
		}
		seating = &planned
	}
	ports, err := freePorts(3*spec.Replicas + 3) // all in one call, so that they differ
	if err != nil {
		return nil, err
	}
	port, gatewayMetrics, watcher, rest := ports[0], ports[1], ports[2], ports[3:]
	if spec.Port != 0 {
		port = spec.Port
	}
	l := &Local{
		LocalPlan: LocalPlan{Spec: spec}, seating: *seating, issued: map[string]string{}, server: o.Build, logDir: o.LogDir, onEvent: o.OnEvent,
		front:   front{url: "http://" + Loopback(port), status: "http://" + Loopback(gatewayMetrics) + "/status"},
		network: network{nodes: on.Nodes, addrs: map[string]string{}, paths: map[string]string{}, links: map[string]*Link{}},
		scraped: []Scraped{{Gateway, Loopback(gatewayMetrics)}},
	}
	if err := os.MkdirAll(l.logDir, 0o755); err != nil {
		return nil, words.Errorf("log folder: %s", err)
	}
	gatewayArgs := []string{o.Build, "gateway", "--addr", Loopback(port), "--metrics-addr", Loopback(gatewayMetrics)}
	if !spec.Gateway.Plain {
		if l.admission, err = openAdmission(ctx, spec.Gateway, allow, o); err != nil {
			return nil, words.Errorf("the gateway: %s", err)
		}
		l.url = "https://" + Loopback(port)
		gatewayArgs = append(gatewayArgs, l.admission.args()...)
		if !spec.Gateway.Unreplicated {
			l.replicator = l.admission.replicator()
			l.replicator.before = l.admission.bringLedger
		}
	}
	for i := range spec.Replicas {
		name := scenarios.ReplicaName(i)
		node := l.nodeOf(i)
		http, metrics, link := at(node.Host(), rest[3*i]), at(node.Host(), rest[3*i+1]), at(node.Host(), rest[3*i+2])
		argv := []string{o.Build, "serve", "--grpc-addr", "", "--device-file", l.deviceFile(), "--addr", http, "--metrics-addr", metrics,
			"--threads", strconv.Itoa(threadsPerReplica(spec))}
		if l.admission == nil && node != nil { // a node's address can be reached from this host only
			argv = append(argv, "--answer-everybody")
		}
		argv = append(argv, l.seating.Seats[i].args()...)
		argv = append(argv, modelArgs(spec)...)
		if f := spec.GPUMemoryFraction; f > 0 {
			argv = append(argv, "--gpu-memory-fraction", strconv.FormatFloat(float64(f), 'g', -1, 64))
		}
		l.addrs[name], l.paths[name] = http, http
		l.scraped = append(l.scraped, Scraped{name, metrics})
		if on.Links {
			l.paths[name] = link
			if l.links[name], err = newLink(node, link, http); err != nil {
				l.stopLinks()
				return nil, words.Errorf("the link in front of %s: %s", name, err)
			}
		}
		gatewayArgs = append(gatewayArgs, "--replica", name+"=http://"+l.paths[name])
		l.replicas = append(l.replicas, &process{name: name, node: node, argv: argv, env: append(l.secretEnv(), gpu.Order)})
	}
	l.gateway = &process{name: Gateway, argv: gatewayArgs, env: l.secretEnv()}
	if l.admission != nil {
		l.gateway.before = l.admission.bringLedger
	}
	if l.monitor, err = newMonitor(spec.Monitoring, watcher, l.scraped, filepath.Join(l.logDir, "monitoring")); err != nil {
		l.stopLinks()
		return nil, err
	}
	return l, l.start()
}

// modelArgs are the flags of serve that say which models, and with how much memory.
func modelArgs(spec scenarios.Local) (argv []string) {
	if spec.Dummy() {
		argv = append(argv, "--load-format", scenarios.LoadDummy)
	}
	if spec.Model != "" {
		argv = append(argv, "--model", spec.Model)
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Models)) {
		m := spec.Models[name]
		argv = append(argv, "--model", name+"="+m.Path+","+m.Quantization)
	}
	if spec.KVCache != 0 {
		argv = append(argv, "--kv-cache-mib", strconv.FormatInt(int64(spec.KVCache>>20), 10))
	}
	if spec.MaxBatchSize != 0 {
		argv = append(argv, "--max-batch-size", strconv.Itoa(spec.MaxBatchSize))
	}
	if spec.MaxSequenceLength != 0 {
		argv = append(argv, "--max-sequence-length", strconv.Itoa(spec.MaxSequenceLength))
	}
	return argv
}

// threadsPerReplica divides the cores among the replicas if the gate gives no
// number of threads.
func threadsPerReplica(spec scenarios.Local) int {
	if spec.Threads > 0 {
		return spec.Threads
	}
	return max(1, runtime.NumCPU()/max(1, spec.Replicas))
}

func (l *Local) start() error {
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	for _, p := range l.all() {
		f, err := os.OpenFile(l.logFile(p.name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			l.Stop()
			return words.Errorf("log file: %s", err)
		}
		p.log, p.onEvent = f, l.onEvent
		l.running.Go(func() {
			defer f.Close()
			p.supervise(ctx)
		})
	}
	l.running.Go(func() { l.watch(ctx) })
	l.running.Go(func() { l.monitor.watch(ctx, l.onEvent) })
	return nil
}

func (l *Local) logFile(name string) string { return filepath.Join(l.logDir, name+".log") }

// About adds the URL and the monitoring to what the plan knew.
func (l *Local) About() About {
	a := l.LocalPlan.About()
	a.URL, a.Watched, a.Seating = l.url, l.monitor.watched(), &l.seating
	return a
}

// Replicas are those of the plan, with what each computes on.
func (l *Local) Replicas() []Replica {
	all := l.LocalPlan.Replicas()
	for i := range all {
		all[i].Device = l.seating.Seats[i].Device
	}
	return all
}

// Access names the key by a variable of this deployment, because two deployments
// may run at a time.
func (l *Local) Access() Access {
	if l.admission == nil {
		return Access{Endpoint: scenarios.Endpoint{URL: l.url}}
	}
	own := "LAUNCHGATE_KEY_" + l.url[strings.LastIndexByte(l.url, ':')+1:]
	keys := maps.Clone(l.issued)
	keys[own] = l.admission.key
	return Access{Endpoint: scenarios.Endpoint{URL: l.url, CAFile: l.admission.file("tls/ca.pem"), APIKeyEnv: own}, Keys: keys}
}

// Stop stops every process, gracefully if possible, and waits until nothing of
// the deployment runs.
func (l *Local) Stop() {
	l.stop()
	l.running.Wait()
	l.stopLinks()
	if l.admission != nil {
		l.admission.close()
	}
}

// WaitReady waits until the gateway routes to every replica. If that never
// happens, the error has the last lines of a log.
func (l *Local) WaitReady(ctx context.Context) error {
	timeout := time.Duration(l.Spec.ReadyTimeout)
	deadline := time.After(timeout)
	for {
		if l.Status().Ready() == l.Spec.Replicas && l.monitor.ready(ctx) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return l.neverReady(timeout)
		case <-time.After(statusEvery / 2):
		}
	}
}

func (l *Local) neverReady(timeout time.Duration) error {
	st := l.Status()
	if len(st.Replicas) == 0 {
		return words.Errorf("the gateway did not answer at %s within %s; its log ends:\n%s", l.status, timeout, tail(l.logFile(Gateway), 5))
	}
	if st.Ready() == l.Spec.Replicas {
		return words.Errorf("after %s not every process is watched by Prometheus (monitoring: {disabled: true} does without); its log ends:\n%s", timeout, tail(l.logFile(Prometheus), 5))
	}
	said := words.Say("%d of %d replicas were ready after %s", st.Ready(), l.Spec.Replicas, timeout)
	for _, r := range st.Replicas {
		if !r.Ready {
			said = words.Say("%s\n%s is not ready; its log ends:\n%s", said, r.Name, tail(l.logFile(r.Name), 5))
		}
	}
	return words.Error(said)
}

// Serving reports whether a replica takes part: it is ready by its own /ready, and
// the gateway routes to it. The status of the gateway alone may be from before a
// death that it has not noticed yet.
func (l *Local) Serving(ctx context.Context, replica string) bool {
	st, err := l.ask(ctx)
	if err != nil {
		return false
	}
	for _, r := range st.Replicas {
		if r.Name == replica {
			return r.Ready && answersReady(ctx, "http://"+l.addrs[replica])
		}
	}
	return false
}

// Node is the network of the node that a replica is on. It is nil if the
// replica is in the host's network.
func (l *Local) Node(replica string) *Node {
	return l.nodeOf(slices.Index(Names(l.Replicas()), replica))
}

// OnNodeOf names the replicas on the simulated node of a replica, including it.
func (l *Local) OnNodeOf(replica string) []string {
	nodes := CountNodes(l.Spec)
	var same []string
	at := slices.Index(Names(l.Replicas()), replica)
	for i, name := range Names(l.Replicas()) {
		if i%nodes == at%nodes {
			same = append(same, name)
		}
	}
	return same
}

// deviceFile is where the replicas account for the memory of the device that
// they share. Each deployment has its own device: a fault of one must not strike
// another.
func (l *Local) deviceFile() string { return filepath.Join(l.logDir, "device.json") }

// Ballast is a command that takes a device's memory once it has read a line,
// all but leave bytes, says so in a line, and holds it until its standard input
// ends.
func (l *Local) Ballast(ctx context.Context, device string, leave int64) *exec.Cmd {
	return l.ballast(ctx, device, "--leave-bytes", strconv.FormatInt(leave, 10))
}

// AskFree is a command that says how many bytes of a device's memory are free.
func (l *Local) AskFree(ctx context.Context, device string) *exec.Cmd {
	return l.ballast(ctx, device, "--ask")
}

func (l *Local) ballast(ctx context.Context, device string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, l.server, append([]string{"ballast", "--device", device, "--device-file", l.deviceFile()}, args...)...)
	cmd.Env = append(os.Environ(), gpu.Order)
	return cmd
}

// Deepen writes a model that gives the same answers as the served one, but
// slower.
func (l *Local) Deepen(ctx context.Context, model, to string) error {
	out, err := exec.CommandContext(ctx, l.server, "deepen", "--to", to, model).CombinedOutput()
	if err != nil {
		return words.Errorf("a slow version cannot be made: %s: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// watch polls the status of the gateway and reports changes.
func (l *Local) watch(ctx context.Context) {
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	var gauges time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if st, err := l.ask(ctx); err == nil {
			l.tellChanges(st, l.onEvent)
		}
		if time.Since(gauges) >= gaugesEvery {
			gauges = time.Now()
			l.tellGauges()
		}
	}
}

func (l *Local) tellGauges() {
	now := time.Now()
	l.onEvent(Event{At: now, Name: "replicas_ready", Value: float64(l.Status().Ready())})
	for _, r := range l.Status().Replicas {
		l.onEvent(Event{At: now, Name: "streams_in_flight", Subject: r.Name, Value: float64(r.InFlight)})
	}
	l.tellMemory(now, l.onEvent)
}

func portFree(port int) error {
	lis, err := listen(port)
	if err != nil {
		return words.Errorf("port %d of target.local.port is taken (%s); stop the program that listens there, or leave port out to use a free one", port, err)
	}
	return lis.Close()
}
