package host

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/chaos"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// Every fault kind goes through all its states, against real processes.
func TestEveryKindIsLived(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped with -short: it takes half a minute")
	}
	const second = scenarios.Duration(time.Second)
	tests := []struct {
		name   string
		fault  scenarios.Fault
		during func(*Local)      // runs beside the fault, from its start
		want   string            // the states after declared
		says   map[string]string // parts of the texts of states
	}{
		{name: "pod-kill", fault: scenarios.Fault{Kind: "pod-kill", Target: "replica-1"},
			want: "injected in_effect reverted gone",
			says: map[string]string{"in_effect": "is ", "gone": "routes to replica-1 again"}},
		{name: "pod-hang", fault: scenarios.Fault{Kind: "pod-hang", Target: "replica-1", For: second},
			want: "injected in_effect held reverted gone",
			says: map[string]string{"in_effect": "(state T), and a request to its port got no answer", "held": "for 1.", "gone": "the gateway routes to replica-1"}},
		{name: "gateway-kill", fault: scenarios.Fault{Kind: "gateway-kill"},
			want: "injected in_effect reverted gone",
			says: map[string]string{"gone": "routes to 4 replicas again"}},
		{name: "node-loss for a time", fault: scenarios.Fault{Kind: "node-loss", Target: "replica-1", For: second},
			want: "injected in_effect held reverted gone",
			says: map[string]string{"injected": "replica-1, replica-3", "held": "replica-3: pid", "gone": "to replica-1 again, now pid"}},
		{name: "node-loss until the load ends", fault: scenarios.Fault{Kind: "node-loss", Target: "replica-0"},
			want: "injected in_effect held reverted gone",
			says: map[string]string{"injected": "SIGKILL sent to replica-0, replica-2"}},
		{name: "spot-preemption", fault: scenarios.Fault{Kind: "spot-preemption", Target: "replica-1", Notice: second},
			want: "injected in_effect reverted gone",
			says: map[string]string{"injected": "SIGTERM sent to replica-1", "in_effect": "(signal: terminated)"}},
		{name: "node-drain", fault: scenarios.Fault{Kind: "node-drain", Target: "replica-1", For: second, Notice: 5 * second},
			want: "injected in_effect held reverted gone",
			says: map[string]string{"injected": "SIGTERM sent to replica-1, replica-3", "in_effect": "(signal: terminated)", "held": "replica-3: ", "gone": "to replica-1 again, now pid"}},
		{name: "pod-slow", fault: scenarios.Fault{Kind: "pod-slow", Target: "replica-1", For: second, Cores: 0.1}, during: asking("replica-1", "/burn"),
			want: "injected in_effect held reverted gone",
			says: map[string]string{"injected": "10ms of processor time in every 100ms", "in_effect": "kept pid"}},
		{name: "network-delay", fault: scenarios.Fault{Kind: "network-delay", Target: "replica-1", For: second, Delay: scenarios.Duration(150 * time.Millisecond)},
			want: "injected in_effect held reverted gone",
			says: map[string]string{"injected": "adds 150ms", "in_effect": "through the proxy took"}},
		{name: "network-loss", fault: scenarios.Fault{Kind: "network-loss", Target: "replica-1", For: second, Loss: 0.2},
			want: "injected in_effect held reverted gone",
			says: map[string]string{"injected": "loses 20%", "in_effect": "packets were lost"}},
		{name: "network-bandwidth", fault: scenarios.Fault{Kind: "network-bandwidth", Target: "replica-1", For: second, Bandwidth: 32 << 10},
			want: "injected in_effect held reverted gone",
			says: map[string]string{"injected": "32KiB a second", "in_effect": "a request of 16KiB through"}},
		{name: "node-partition in silence", fault: scenarios.Fault{Kind: "node-partition", Target: "replica-1", For: second, Cut: "silent"},
			want: "injected in_effect held reverted gone",
			says: map[string]string{"in_effect": "got no answer in 300ms, and replica-1 itself answered"}},
		{name: "node-partition by resets", fault: scenarios.Fault{Kind: "node-partition", Target: "replica-1", For: second, Cut: "reset"},
			want: "injected in_effect held reverted gone",
			says: map[string]string{"in_effect": "was refused, and replica-1 itself answered"}},
		{name: "cpu-stress", fault: scenarios.Fault{Kind: "cpu-stress", For: second, Cores: 0.5},
			want: "injected in_effect held reverted gone",
			says: map[string]string{"held": "of processor time"}},
		{name: "gpu-oom", fault: scenarios.Fault{Kind: "gpu-oom", For: second, Memory: 1 << 20},
			want: "injected in_effect held reverted gone",
			says: map[string]string{"in_effect": "fell from 100.0 MiB to 1.0 MiB", "gone": "100.0 MiB of device memory are free"}},
		{name: "clock-skew forwards", fault: scenarios.Fault{Kind: "clock-skew", Target: "replica-1", For: second, Skew: scenarios.Offset(time.Hour)},
			want: "injected in_effect held reverted gone",
			says: map[string]string{"injected": "off by 1h0m0s", "in_effect": "the Date of a health answer", "held": "for 1."}},
		{name: "clock-skew backwards", fault: scenarios.Fault{Kind: "clock-skew", Target: "replica-1", For: second, Skew: scenarios.Offset(-90500 * time.Millisecond)},
			want: "injected in_effect held reverted gone",
			says: map[string]string{"injected": "off by -1m30.5s", "in_effect": "off by -1m"}},
		{name: "kv-exhaustion", fault: scenarios.Fault{Kind: "kv-exhaustion", Target: "replica-1", For: second},
			want: "injected in_effect held reverted gone",
			says: map[string]string{"in_effect": "of the KV blocks of replica-1 are held, 0 % before", "gone": "the gateway routes to replica-1"}},
		{name: "memory-pressure", fault: scenarios.Fault{Kind: "memory-pressure", Target: "replica-1", For: second, Memory: 8 << 20}, during: asking("replica-1", "/grow?mib=64"),
			want: "injected in_effect held reverted gone",
			says: map[string]string{"injected": "may take 8MiB more", "held": "killed pid"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			gate := scenarios.Gate{Target: scenarios.Target{Local: &scenarios.Local{Replicas: 4}}, Scenarios: []scenarios.Scenario{{Faults: []scenarios.Fault{tt.fault}}}}
			if unable := chaos.Unable(gate, PlanLocal(gate)); len(unable) > 0 {
				t.Skipf("skipped: %v", unable)
			}
			l := service(t, scenarios.Local{Replicas: 4, Nodes: 2})
			j := journal(t)
			tt.fault.Within = 10 * second
			if tt.during != nil {
				done := make(chan struct{})
				defer func() { <-done }()
				go func() { defer close(done); tt.during(l) }()
			}
			lines := play(t.Context(), j, l, tt.fault)
			for _, line := range lines {
				t.Logf("%s %s %s", line.At.Round(time.Millisecond), line.State, line.Text)
			}
			if got := states(lines); got != "declared "+tt.want {
				t.Errorf("states are %q, want %q", got, tt.want)
			}
			for state, says := range tt.says {
				if got := text(lines, state); !strings.Contains(got, says) {
					t.Errorf("%s says %q, want %q in it", state, got, says)
				}
			}
			checkOrder(t, lines)
			leftNothing(t)
		})
	}
}

// asking requests a path of a replica after half a second, when the fault has
// been injected.
func asking(replica, path string) func(*Local) {
	return func(l *Local) {
		time.Sleep(500 * time.Millisecond)
		if resp, err := http.Get("http://" + l.Address(replica) + path); err == nil { // the replica may be killed before it answers
			resp.Body.Close()
		}
	}
}

func checkOrder(t *testing.T, lines []recording.Injection) {
	t.Helper()
	for i := 1; i < len(lines); i++ {
		if lines[i].At < lines[i-1].At {
			t.Errorf("%s at %s, before %s at %s", lines[i].State, lines[i].At, lines[i-1].State, lines[i-1].At)
		}
	}
}

// leftNothing fails if a fault of this process left something behind.
func leftNothing(t *testing.T) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err == nil && strings.Contains(string(mounts), ofOurs) {
		t.Error("a mount was left")
	}
}
