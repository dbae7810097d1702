package chaos

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/deploy/targets"
	"github.com/launchgate/launchgate/scenarios"
)

var update = flag.Bool("update", false, "rewrite docs/faults.md")

// TestFaultsDoc checks that docs/faults.md agrees with the code: it is made
// from the entries of the kinds.
func TestFaultsDoc(t *testing.T) {
	const path, mark = "../docs/faults.md", "## The kinds\n"
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	intro, _, found := strings.Cut(string(doc), mark)
	if !found {
		t.Fatalf("%s has no %q", path, mark)
	}
	var b strings.Builder
	b.WriteString(intro + mark)
	for _, k := range Kinds {
		fmt.Fprintf(&b, "\n### %s\n\n```yaml\n- %s\n```\n\n| | |\n|---|---|\n| does | %s |\n| needs | %s |\n| is seen when | %s |\n| simulates | %s |\n",
			k.Name, k.Example, k.Does, k.Needs, k.Seen, k.Simulates)
	}
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if b.String() != string(doc) {
		t.Errorf("%s is not what the code says: go test ./chaos -run Doc -update", path)
	}
}

// The example of each kind is valid in a gate.
func TestExamplesAreOfGates(t *testing.T) {
	for _, k := range Kinds {
		src := fmt.Sprintf("name: g\ntarget: {local: {}}\nscenarios:\n  - name: s\n    stages: [{name: m, for: 1m, rate: 1/s}]\n    faults:\n      - %s\nobjectives: [error_rate <= 5%%]\n", k.Example)
		gate, err := scenarios.Parse("gate.yaml", []byte(src))
		if err != nil {
			t.Errorf("%s: %v", k.Name, err)
		} else if got := gate.Scenarios[0].Faults[0].Kind; got != k.Name {
			t.Errorf("the example of %s is of %s", k.Name, got)
		}
	}
}

// A fault that is impossible on a service that launchgate did not deploy is
// reported before the run.
func TestWhatATargetLacks(t *testing.T) {
	gate := func(local bool, kinds ...string) scenarios.Gate {
		g := scenarios.Gate{Scenarios: []scenarios.Scenario{{}}}
		if local {
			g.Target = scenarios.Target{Local: &scenarios.Local{}}
		}
		for _, k := range kinds {
			g.Scenarios[0].Faults = append(g.Scenarios[0].Faults, scenarios.Fault{Kind: k})
		}
		return g
	}
	if unable := Unable(gate(true, "pod-kill", "node-partition"), targets.PlanFor(gate(true, "pod-kill", "node-partition"))); len(unable) > 0 {
		t.Errorf("kinds that every machine can play: %v", unable)
	}
	expired := gate(true, "certificate-expiry")
	if unable := Unable(expired, targets.PlanFor(expired)); len(unable) > 0 {
		t.Errorf("of the gateway that every deployment has: %v", unable)
	}
	expired.Target = scenarios.Target{Local: &scenarios.Local{Gateway: scenarios.Gateway{Plain: true}}}
	if unable := Unable(expired, targets.PlanFor(expired)); len(unable) != 1 || !strings.Contains(unable[0].String(), "take plain out of target.local.gateway") {
		t.Errorf("of a gateway that only balances: %v", unable)
	}
	lost := gate(true, "node-loss")
	lost.Scenarios[0].Faults[0].Disk = scenarios.DiskLost
	lost.Target = scenarios.Target{Local: &scenarios.Local{Gateway: scenarios.Gateway{Plain: true}}}
	if unable := Unable(lost, targets.PlanFor(lost)); len(unable) != 1 || !strings.Contains(unable[0].String(), "no disk with a ledger") {
		t.Errorf("of a disk that is not there: %v", unable)
	}
	wrong := gate(true, "pod-kill", "node-partition", "pod-hang")
	wrong.Target = scenarios.Target{Local: &scenarios.Local{Replicas: 2}}
	wrong.Scenarios[0].Faults[0].Target, wrong.Scenarios[0].Faults[1].Target = "replica-2", "replica-1"
	if unable := Unable(wrong, targets.PlanFor(wrong)); len(unable) != 1 || unable[0].String() != `pod-kill: no replica is named "replica-2", expected replica-0, replica-1` {
		t.Errorf("of replicas that will not be there: %v", unable)
	}
	named := gate(false, "node-partition")
	named.Scenarios[0].Faults[0].Target = "replica-0"
	if unable := Unable(named, targets.PlanFor(named)); len(unable) != 1 || unable[0].String() != `node-partition: no replica is named "replica-0": launchgate did not start this service and treats it as one replica; remove target from the fault` {
		t.Errorf("%q", unable)
	}
	unable := Unable(gate(false, "pod-kill", "pod-kill", "node-partition"), targets.PlanFor(gate(false, "pod-kill", "pod-kill", "node-partition")))
	if len(unable) != 1 || !strings.Contains(unable[0].String(), "pod-kill: unsupported: launchgate did not deploy this target") {
		t.Errorf("of a service that is not ours: %v", unable)
	}
}

// The kinds that a gate may name are those that can be played, and every entry
// is complete.
func TestKindsAreWhatGatesMayName(t *testing.T) {
	var names []string
	for _, k := range Kinds {
		names = append(names, k.Name)
		for what, text := range map[string]string{"does": k.Does, "needs": k.Needs, "seen": k.Seen, "simulates": k.Simulates} {
			if len(text) < 10 {
				t.Errorf("%s does not say what it %s", k.Name, what)
			}
		}
	}
	if got, want := strings.Join(names, " "), strings.Join(scenarios.FaultKinds, " "); got != want {
		t.Errorf("chaos plays %s; a gate may name %s", got, want)
	}
}
