package host

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/chaos"
	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/scenarios"
)

// The kernel and, beside it, proxies play faults on the networks of nodes. Two
// runs do not disturb each other, and neither leaves anything behind.
func TestNetworkOfNodes(t *testing.T) {
	if err := kernel().Nodes; err != nil {
		t.Skipf("skipped: %v", err)
	}
	const second = scenarios.Duration(time.Second)
	spec := scenarios.Local{Replicas: 4, Nodes: 2}
	j := journal(t)
	own := func() ([]*deploy.Node, *Local) {
		nodes, release, err := OwnNodes(j, deploy.CountNodes(spec))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := release(); err != nil {
				t.Error(err)
			}
			for _, n := range nodes {
				if _, err := os.Stat("/sys/class/net/" + n.Name()); err == nil {
					t.Errorf("%s is left", n.Name())
				}
			}
		})
		return nodes, serviceOn(t, spec, nodes) // the service is stopped before the nodes are removed
	}
	nodes, l := own()
	_, other := own()
	const all = "injected in_effect held reverted gone"
	netemOr := func(k, proxy string) string {
		if kernel().Packets == nil {
			return k
		}
		return proxy
	}
	for _, tt := range []struct {
		fault scenarios.Fault
		says  map[string]string
	}{
		{scenarios.Fault{Kind: "node-partition", Target: "replica-1", For: second, Cut: "silent"},
			map[string]string{"injected": "by the kernel, link down on the veth of replica-1, replica-3: drops every packet", "in_effect": "a connection made now does not get through", "gone": "a request over the veth took"}},
		{scenarios.Fault{Kind: "node-partition", Target: "replica-1", For: second, Cut: "reset"},
			map[string]string{"injected": "by a proxy in front of replica-1 (a link that is down", "in_effect": "through the proxy was refused"}},
		{scenarios.Fault{Kind: "network-bandwidth", Target: "replica-1", For: second, Bandwidth: 32 << 10},
			map[string]string{"injected": "by the kernel, tbf on both ends of the veth of replica-1, replica-3: lets 32KiB", "in_effect": "KiB a second", "gone": "over the veth"}},
		{scenarios.Fault{Kind: "network-delay", Target: "replica-1", For: second, Delay: scenarios.Duration(150 * time.Millisecond)},
			map[string]string{"injected": netemOr("by the kernel, netem on both ends of the veth of replica-1, replica-3: adds 150ms", "by a proxy in front of replica-1 (this kernel has no netem): adds 150ms")}},
		{scenarios.Fault{Kind: "network-loss", Target: "replica-1", For: second, Loss: 0.2},
			map[string]string{"injected": netemOr("by the kernel", "by a proxy"), "in_effect": "packets were lost"}},
		{scenarios.Fault{Kind: "node-loss", Target: "replica-1", For: second},
			map[string]string{"injected": "the kernel took the veth of their node down; SIGKILL sent to replica-1, replica-3", "in_effect": "a connection made now does not get through", "gone": "to replica-1 again, now pid"}},
	} {
		t.Run(tt.fault.Kind+tt.fault.Cut, func(t *testing.T) {
			tt.fault.Within = 10 * second
			watched := make(chan bool)
			over := make(chan struct{})
			go func() { watched <- servesThroughout(t, other, over) }()
			lines := play(t.Context(), j, l, tt.fault)
			close(over)
			if !<-watched {
				t.Error("another deployment was struck too")
			}
			for _, line := range lines {
				t.Logf("%s %s %s", line.At.Round(time.Millisecond), line.State, line.Text)
			}
			if got := states(lines); got != "declared "+all {
				t.Errorf("states are %q", got)
			}
			for state, says := range tt.says {
				if got := text(lines, state); !strings.Contains(got, says) {
					t.Errorf("%s says %q, want %q in it", state, got, says)
				}
			}
		})
	}
	if lost, passed := nodes[1].Counts(); lost+passed != 0 {
		t.Errorf("netem is still there: %d, %d", lost, passed)
	}
}

// servesThroughout reports whether all of a deployment's replicas answer until
// over is closed.
func servesThroughout(t *testing.T, l *Local, over <-chan struct{}) bool {
	for {
		for _, name := range deploy.Names(l.Replicas()) {
			if _, err := roundTrip(t.Context(), l.Path(name), 0, 5*time.Second); err != nil {
				t.Logf("%s: %v", name, err)
				return false
			}
		}
		select {
		case <-over:
			return true
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// recover removes the veths of a harness that died, and not those of another
// run.
func TestRecoverRemovesNodes(t *testing.T) {
	if err := kernel().Nodes; err != nil {
		t.Skipf("skipped: %v", err)
	}
	state := t.TempDir()
	t.Setenv("XDG_STATE_HOME", state)
	var all [][]*deploy.Node
	for range 2 {
		nodes, err := deploy.MakeNodes(deploy.NodeNames(2))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			for _, n := range nodes {
				if err := n.Remove(); err != nil {
					t.Error(err)
				}
			}
		})
		all = append(all, nodes)
	}
	dead, alive := all[0], all[1]
	writeJournal(t, state, []entry{{PID: 1 << 30, Boot: bootID()},
		{Fault: "nodes", Kind: "the network", Undo: []deploy.Undo{undoNode(dead[0])[0], undoNode(dead[1])[0], undoing(undoLink, object{Path: "lgate-never-0"})}}})
	for range 2 {
		if all, err := chaos.Recover(Undo); err != nil || len(all) > 0 && all[0].Err != nil {
			t.Fatalf("%+v %v", all, err)
		}
	}
	for i, n := range append(dead, alive...) {
		_, err := os.Stat("/sys/class/net/" + n.Name())
		if there := !errors.Is(err, os.ErrNotExist); there != (i >= 2) {
			t.Errorf("%s is there: %t", n.Name(), there)
		}
	}
	if err := Undo(undoing(undoLink, object{Path: "lo"})); err == nil {
		t.Error("a damaged journal may remove any device")
	}
}

// The plan says what will play a fault.
func TestPlayedBy(t *testing.T) {
	none := errors.New("it takes root")
	for _, tt := range []struct {
		kernel      deploy.Kernel
		m           means
		f           scenarios.Fault
		byTheKernel bool
	}{
		{deploy.Kernel{}, tbf, scenarios.Fault{}, true},
		{deploy.Kernel{}, netem, scenarios.Fault{}, true},
		{deploy.Kernel{}, linkDown, scenarios.Fault{Cut: scenarios.CutSilent}, true},
		{deploy.Kernel{}, linkDown, scenarios.Fault{Cut: scenarios.CutReset}, false},
		{deploy.Kernel{Packets: none}, netem, scenarios.Fault{}, false},
		{deploy.Kernel{Packets: none}, tbf, scenarios.Fault{}, true},
		{deploy.Kernel{Bandwidth: none}, tbf, scenarios.Fault{}, false},
		{deploy.Kernel{Nodes: none}, tbf, scenarios.Fault{}, false},
		{deploy.Kernel{Nodes: none}, linkDown, scenarios.Fault{}, false},
	} {
		if why := tt.m.lacks(tt.kernel, tt.f); (why == nil) != tt.byTheKernel {
			t.Errorf("%+v, %s, cut %q: %v", tt.kernel, tt.m, tt.f.Cut, why)
		}
	}
	for kind, says := range map[string]string{"pod-kill": "", "cpu-stress": "", "node-loss": "its network", "node-partition": "by ", "network-delay": "by "} {
		if got := (localPlan{}).PlayedBy(scenarios.Fault{Kind: kind}).String(); !strings.Contains(got, says) || says == "" && got != "" {
			t.Errorf("%s is played %q", kind, got)
		}
		got, byProxy := endpointPlan{}.PlayedBy(scenarios.Fault{Kind: kind}).String(), says == "by "
		if strings.HasPrefix(got, "by a proxy") != byProxy || !byProxy && got != "" {
			t.Errorf("on a service that is not ours %s is played %q", kind, got)
		}
	}
}

// A gate's network faults need links or networks of nodes.
func TestWhatAGateNeeds(t *testing.T) {
	gate := func(kinds ...string) scenarios.Gate {
		g := scenarios.Gate{Scenarios: []scenarios.Scenario{{}}}
		for _, k := range kinds {
			g.Scenarios[0].Faults = append(g.Scenarios[0].Faults, scenarios.Fault{Kind: k})
		}
		return g
	}
	for _, kinds := range [][]string{{"pod-kill", "cpu-stress"}, {"pod-kill", "network-loss"}} {
		if g := gate(kinds...); (needsLinks(g) || needsNodes(g)) != (kinds[1] == "network-loss") {
			t.Errorf("links and networks of nodes are for faults of the network, not for %v", kinds)
		}
	}
	if needsNodes(gate("node-loss")) != (kernel().Nodes == nil) {
		t.Error("a node that is lost has a network of its own where it can")
	}
	far := gate("node-partition")
	far.Target.Endpoint = &scenarios.Endpoint{URL: "http://127.0.0.1:1"}
	target, err := PlanEndpoint(far).Open(t.Context(), deploy.Setup{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = target.Stop() }()
	if target.Access().Via == "" {
		t.Error("a service that is not ours has its network broken by a proxy")
	}
}
