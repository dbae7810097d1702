package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

const (
	statusEvery = 100 * time.Millisecond // how often the gateway is asked what it routes to
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
// Nodes with networks of their own, and links, are there where a gate has faults
// of the network, the ledger unless it asks for a plain gateway.
type Local struct {
	LocalPlan
	server     string // the reference-server program
	gateway    *process
	replicas   []*process
	nodes      []*Node           // the networks of the simulated nodes; none: all is on loopback
	addrs      map[string]string // of the API of each replica
	paths      map[string]string // where the gateway reaches it: a link, where there is one
	links      map[string]*Link  // in front of it; empty without links
	url        string            // the gateway
	issued     map[string]string // API keys, by the variables that workloads name them by
	status     string            // its /status
	scraped    []Scraped         // metrics of all processes
	door       *door             // nil: the gateway only balances
	replicator *process          // of the ledger, where there is one
	monitor    *monitor
	logDir     string
	onEvent    func(Event)
	stop       context.CancelFunc
	running    sync.WaitGroup

	releasing sync.Mutex                  // one at a time
	takeBack  func(context.Context) error // the last release; nil: it is taken back

	mu   sync.Mutex
	last Status
}

// Status is what the gateway says of its replicas.
type Status struct {
	Replicas []ReplicaStatus `json:"replicas"`
}

// ReplicaStatus is one replica as the gateway sees it.
type ReplicaStatus struct {
	Name     string `json:"name"`
	URL      string `json:"url"`
	Ready    bool   `json:"ready"`
	InFlight int    `json:"in_flight"`
	// How often it was taken out, and when last.
	Outages int       `json:"outages"`
	OutAt   time.Time `json:"out_at"`
	// How it did since the gateway began: answers to their ends, and those of
	// them that were errors. The median is of how long the last of the others
	// took, in seconds, since it became ready; Timed is how many.
	Answered int     `json:"answered"`
	Failed   int     `json:"failed"`
	Median   float64 `json:"median"`
	Timed    int     `json:"timed"`
}

// Ready counts the replicas the gateway would route to.
func (s Status) Ready() (n int) {
	for _, r := range s.Replicas {
		if r.Ready {
			n++
		}
	}
	return n
}

// StartLocal starts the processes and returns at once; WaitReady waits for
// them. Stop must be called, whatever happens.
func StartLocal(ctx context.Context, spec scenarios.Local, allow Allowance, o Setup, on Ground) (*Local, error) {
	if _, err := os.Stat(o.Server); err != nil {
		return nil, words.Errorf("the bundled service cannot be deployed: no reference-server program at %s: build it beside launchgate (make build)", o.Server)
	}
	if err := modelsThere(spec); err != nil {
		return nil, err
	}
	if spec.Port != 0 {
		if err := portFree(spec.Port); err != nil {
			return nil, err
		}
	}
	ports, err := freePorts(3*spec.Replicas + 3) // all at once, so that none is there twice
	if err != nil {
		return nil, err
	}
	front, gatewayMetrics, watcher, rest := ports[0], ports[1], ports[2], ports[3:]
	if spec.Port != 0 {
		front = spec.Port
	}
	l := &Local{
		LocalPlan: LocalPlan{Spec: spec}, issued: map[string]string{}, server: o.Server, logDir: o.LogDir, onEvent: o.OnEvent,
		url:     "http://" + Loopback(front),
		status:  "http://" + Loopback(gatewayMetrics) + "/status",
		scraped: []Scraped{{Gateway, Loopback(gatewayMetrics)}},
		nodes:   on.Nodes, addrs: map[string]string{}, paths: map[string]string{}, links: map[string]*Link{},
	}
	if err := os.MkdirAll(l.logDir, 0o755); err != nil {
		return nil, words.Errorf("log folder: %s", err)
	}
	gatewayArgs := []string{o.Server, "gateway", "--addr", Loopback(front), "--metrics-addr", Loopback(gatewayMetrics)}
	if !spec.Gateway.Plain {
		if l.door, err = openDoor(ctx, spec.Gateway, allow, o); err != nil {
			return nil, words.Errorf("the gateway: %s", err)
		}
		l.url = "https://" + Loopback(front)
		gatewayArgs = append(gatewayArgs, l.door.args()...)
		if !spec.Gateway.Unreplicated {
			l.replicator = l.door.replicator()
			l.replicator.before = l.door.bringLedger
		}
	}
	for i := range spec.Replicas {
		name := replicaName(i)
		node := l.nodeOf(i)
		http, metrics, link := at(node.Host(), rest[3*i]), at(node.Host(), rest[3*i+1]), at(node.Host(), rest[3*i+2])
		argv := []string{o.Server, "serve", "--grpc-addr", "", "--device-file", l.deviceFile(), "--addr", http, "--metrics-addr", metrics,
			"--threads", strconv.Itoa(threadsPerReplica(spec))}
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
		l.replicas = append(l.replicas, &process{name: name, node: node, argv: argv, env: l.secretEnv()})
	}
	l.gateway = &process{name: Gateway, argv: gatewayArgs, env: l.secretEnv()}
	if l.door != nil {
		l.gateway.before = l.door.bringLedger
	}
	if l.monitor, err = newMonitor(spec.Monitoring, watcher, l.scraped, filepath.Join(l.logDir, "monitoring")); err != nil {
		l.stopLinks()
		return nil, err
	}
	return l, l.start()
}

// modelsThere makes sure that what is to be served is there: replicas that cannot
// load it would be started again until the patience ends.
func modelsThere(spec scenarios.Local) error {
	paths := []string{spec.Model}
	for _, m := range spec.Models {
		paths = append(paths, m.Path)
	}
	for _, path := range paths {
		if _, err := os.Stat(path); path != "" && err != nil {
			return words.Errorf("the model of target.local cannot be served: %s; give a GGUF file or a Hugging Face folder, or none for the model the server carries", err)
		}
	}
	return nil
}

// threadsPerReplica shares the cores out among the replicas, where the gate
// does not say.
func threadsPerReplica(spec scenarios.Local) int {
	if spec.Threads > 0 {
		return spec.Threads
	}
	return max(1, runtime.NumCPU()/max(1, spec.Replicas))
}

func (l *Local) start() error {
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	for _, p := range l.processes() {
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

func (l *Local) processes() []*process {
	all := append(slices.Clone(l.replicas), l.gateway)
	if l.replicator != nil {
		all = append(all, l.replicator)
	}
	if l.monitor.process != nil {
		all = append(all, l.monitor.process)
	}
	return all
}

func (l *Local) logFile(name string) string { return filepath.Join(l.logDir, name+".log") }

// URL is the gateway's address.
func (l *Local) URL() string { return l.url }

// About is what its plan knew, and where it is and who watches it.
func (l *Local) About() About {
	a := l.LocalPlan.About()
	a.URL, a.Watched = l.url, l.monitor.told()
	return a
}

// Access goes by a variable of the deployment's own, because two may stand at a
// time.
func (l *Local) Access() Access {
	if l.door == nil {
		return Access{Endpoint: scenarios.Endpoint{URL: l.url}}
	}
	own := "LAUNCHGATE_KEY_" + l.url[strings.LastIndexByte(l.url, ':')+1:]
	keys := maps.Clone(l.issued)
	keys[own] = l.door.key
	return Access{Endpoint: scenarios.Endpoint{URL: l.url, CAFile: l.door.file("tls/ca.pem"), APIKeyEnv: own}, Keys: keys}
}

// Stop stops every process, gracefully where it can be had, and waits until
// nothing of the deployment runs.
func (l *Local) Stop() {
	l.stop()
	l.running.Wait()
	l.stopLinks()
	if l.door != nil {
		l.door.close()
	}
}

func (l *Local) stopLinks() {
	for _, link := range l.links {
		if link != nil {
			link.stop()
		}
	}
}

// WaitReady waits until the gateway routes to every replica. The error of a
// service that never gets there carries the last lines of its log.
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

// Status is what the gateway said last.
func (l *Local) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// InFlight is how many streams run through each replica now, as the gateway
// counts them.
func (l *Local) InFlight(ctx context.Context) (map[string]int, error) {
	st, err := l.ask(ctx)
	if err != nil {
		return nil, err
	}
	streams := make(map[string]int, len(st.Replicas))
	for _, r := range st.Replicas {
		streams[r.Name] = r.InFlight
	}
	return streams, nil
}

// Serving reports whether a replica takes part: it says itself that it is
// ready, and the gateway routes to it. The gateway's word alone could be older
// than a death it has not noticed.
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

func answersReady(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/ready", nil)
	if err != nil {
		return false
	}
	resp, err := statusClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Killed is a replica that was sent SIGKILL.
type Killed struct {
	PID    int
	Exited <-chan struct{} // closed once the process is gone
	how    func() (time.Time, words.Sentence)
}

// NewKilled describes the death of a process; how is asked after exited was
// closed.
func NewKilled(pid int, exited <-chan struct{}, how func() (time.Time, words.Sentence)) Killed {
	return Killed{PID: pid, Exited: exited, how: how}
}

// How tells when and how the process ended; only after Exited is closed.
func (k Killed) How() (time.Time, words.Sentence) { return k.how() }

// Dying reports whether the process is seen to be ending, which is before it
// has exited: the kernel frees its memory first.
func (k Killed) Dying() bool { return dying(k.PID) }

// Names of processes beside the replicas.
const (
	Gateway    = "gateway"
	Replicator = "ledger-replicator"
)

// Kill sends SIGKILL to a process: a replica's, streams and all, or the
// Gateway's. The supervisor starts it again.
func (l *Local) Kill(name string) (Killed, error) { return l.end(name, syscall.SIGKILL, "SIGKILL") }

// Terminate sends SIGTERM to a process, which lets it end what is under way.
func (l *Local) Terminate(name string) (Killed, error) {
	return l.end(name, syscall.SIGTERM, "SIGTERM")
}

func (l *Local) end(name string, signal syscall.Signal, called string) (Killed, error) {
	p, err := l.process(name)
	if err != nil {
		return Killed{}, err
	}
	life := p.current()
	if life == nil {
		return Killed{}, words.Errorf("%s is not running, so it cannot be sent %s", name, called)
	}
	if err := syscall.Kill(life.pid, signal); err != nil {
		return Killed{}, words.Errorf("send %s to %s (pid %d): %s", called, name, life.pid, err)
	}
	return NewKilled(life.pid, life.exited, func() (time.Time, words.Sentence) { return life.at, life.how }), nil
}

// Hold keeps processes that end from being started again until release is
// called, which may be more than once.
func (l *Local) Hold(names ...string) (release func(), err error) {
	var held []*process
	for _, name := range names {
		p, err := l.process(name)
		if err != nil {
			return nil, err
		}
		held = append(held, p)
	}
	for _, p := range held {
		p.hold()
	}
	return sync.OnceFunc(func() {
		for _, p := range held {
			p.release()
		}
	}), nil
}

// CountNodes is how many simulated nodes a deployment has: one for each replica,
// where the gate does not say.
func CountNodes(spec scenarios.Local) int {
	if spec.Nodes > 0 {
		return spec.Nodes
	}
	return spec.Replicas
}

// nodeOf is the network of the node that a replica is on, by its number; nil
// where that is the host's.
func (l *Local) nodeOf(i int) *Node {
	if len(l.nodes) == 0 || i < 0 {
		return nil
	}
	return l.nodes[i%len(l.nodes)]
}

// Node is the network of the node that a replica is on; nil where that is the
// host's.
func (l *Local) Node(replica string) *Node {
	return l.nodeOf(slices.Index(Names(l.Replicas()), replica))
}

// OnNodeOf names the replicas that share a simulated node with one, and it.
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

// PID is the process of a replica or the Gateway, 0 while it has none.
func (l *Local) PID(name string) int {
	if p, err := l.process(name); err == nil {
		if life := p.current(); life != nil {
			return life.pid
		}
	}
	return 0
}

// deviceFile is where the replicas account for the memory of the device that
// they share. Each deployment has its own device: a fault of one must not strike
// another.
func (l *Local) deviceFile() string { return filepath.Join(l.logDir, "device.json") }

// Ballast is a command that takes the device's memory once it has read a line,
// all but leave bytes, says so in a line, and holds it until its standard input
// ends.
func (l *Local) Ballast(ctx context.Context, leave int64) *exec.Cmd {
	return exec.CommandContext(ctx, l.server, "ballast", "--device-file", l.deviceFile(), "--leave-bytes", strconv.FormatInt(leave, 10))
}

// AskFree is a command that says how many bytes of the device's memory are
// free.
func (l *Local) AskFree(ctx context.Context) *exec.Cmd {
	return exec.CommandContext(ctx, l.server, "ballast", "--ask", "--device-file", l.deviceFile())
}

// Deepen writes a model that has the served one's answers and takes longer for
// them.
func (l *Local) Deepen(ctx context.Context, model, to string) error {
	out, err := exec.CommandContext(ctx, l.server, "deepen", "--to", to, model).CombinedOutput()
	if err != nil {
		return words.Errorf("a slow version cannot be made: %s: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Address is where a replica itself listens, past any link.
func (l *Local) Address(replica string) string { return l.addrs[replica] }

// Path is where the gateway reaches a replica.
func (l *Local) Path(replica string) string { return l.paths[replica] }

// Link is the network in front of a replica, where the deployment has links.
func (l *Local) Link(replica string) (*Link, bool) {
	link, ok := l.links[replica]
	return link, ok
}

func (l *Local) process(name string) (*process, error) {
	for _, p := range l.processes() {
		if p.name == name {
			return p, nil
		}
	}
	return nil, words.Errorf("no process is named %q; there are %s and %s", name, strings.Join(Names(l.Replicas()), ", "), Gateway)
}

// watch asks the gateway what it routes to and tells what changed.
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
			l.tellChanges(st)
		}
		if time.Since(gauges) >= gaugesEvery {
			gauges = time.Now()
			l.tellGauges()
		}
	}
}

var statusClient = &http.Client{Timeout: 2 * time.Second}

func (l *Local) ask(ctx context.Context) (Status, error) {
	return askStatus(ctx, l.status)
}

func askStatus(ctx context.Context, url string) (Status, error) {
	var st Status
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return st, err
	}
	resp, err := statusClient.Do(req)
	if err != nil {
		return st, words.Errorf("gateway status: %s", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return st, words.Errorf("gateway status: %s", err)
	}
	return st, json.Unmarshal(body, &st)
}

func (l *Local) tellChanges(st Status) {
	l.mu.Lock()
	old := l.last
	l.last = st
	l.mu.Unlock()
	now := time.Now()
	for i, r := range st.Replicas {
		known := i < len(old.Replicas)
		out := known && r.Outages > old.Replicas[i].Outages // it may be back already
		if out {
			l.onEvent(Event{At: r.OutAt, Name: "replica_ready", Subject: r.Name, Value: 0})
		}
		switch {
		case r.Ready && (!known || out || !old.Replicas[i].Ready):
			l.onEvent(Event{At: now, Name: "replica_ready", Subject: r.Name, Value: 1})
		case !r.Ready && !out && (!known || old.Replicas[i].Ready):
			l.onEvent(Event{At: now, Name: "replica_ready", Subject: r.Name, Value: 0})
		}
	}
	if len(old.Replicas) == 0 || old.Ready() != st.Ready() {
		l.onEvent(Event{At: now, Name: "replicas_ready", Value: float64(st.Ready())})
	}
}

func (l *Local) tellGauges() {
	now := time.Now()
	l.onEvent(Event{At: now, Name: "replicas_ready", Value: float64(l.Status().Ready())})
	for _, r := range l.Status().Replicas {
		l.onEvent(Event{At: now, Name: "streams_in_flight", Subject: r.Name, Value: float64(r.InFlight)})
	}
	for _, p := range append(slices.Clone(l.replicas), l.gateway) { // what watches them grows as it likes
		if life := p.current(); life != nil {
			if rss, ok := residentBytes(life.pid); ok {
				l.onEvent(Event{At: now, Name: "memory_bytes", Subject: p.name, Value: rss})
			}
		}
	}
}

// residentBytes is the resident memory of a process, where /proc tells it.
func residentBytes(pid int) (float64, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, false
	}
	fields := bytes.Fields(b)
	if len(fields) < 2 {
		return 0, false
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	return float64(pages) * float64(os.Getpagesize()), err == nil
}

func portFree(port int) error {
	lis, err := listen(port)
	if err != nil {
		return words.Errorf("port %d, which target.local.port asks for, is taken (%s): stop what listens there, or leave the port out and a free one is used", port, err)
	}
	return lis.Close()
}
