package deploy

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/launchgate/launchgate/scenarios"
)

// anyLoad is allowed where nobody knows how much will come.
var anyLoad = Allowance{PerSecond: 1e5, UnderWay: 1e6}

// localPlan is the bundled service, before it is started.
type localPlan struct {
	gate scenarios.Gate
	spec scenarios.Local
}

func (p localPlan) About() About {
	a := About{Kind: "local", Model: p.spec.Model, Replicas: p.spec.Replicas, RunsServer: true, Watched: Unwatched(p.spec.Monitoring), Tells: tellsOfItself}
	for _, name := range slices.Sorted(maps.Keys(p.spec.Models)) {
		a.Models = append(a.Models, ServedModel{Name: name, Quantization: p.spec.Models[name].Quantization})
	}
	if !p.spec.Gateway.Plain {
		a.Allowance = AllowanceFor(p.gate).Told()
	}
	return a
}

func (p localPlan) Replicas() []Replica {
	all := make([]Replica, p.spec.Replicas)
	for i := range all {
		all[i] = Replica{Name: replicaName(i), Node: nodeName(i % CountNodes(p.spec)), Device: deviceName}
	}
	return all
}

func replicaName(i int) string { return fmt.Sprintf("replica-%d", i) }

func nodeName(i int) string { return fmt.Sprintf("node-%d", i) }

// deviceName is of the device that all replicas of this machine share.
const deviceName = "device-0"

// Open starts the deployment. Where its gateway asks for keys, they are issued:
// one is the run's own, and each workload that names a variable of its own is a
// tenant of its own.
func (p localPlan) Open(ctx context.Context, o Setup) (Target, error) {
	allow := anyLoad
	if !o.AnyLoad {
		allow = AllowanceFor(p.gate)
	}
	variables := p.variables()
	for _, v := range variables {
		if !p.spec.Gateway.Keys[v].Limited {
			allow.Tenants = append(allow.Tenants, strings.ToLower(v))
		}
	}
	l, err := StartLocal(ctx, p.spec, allow, o)
	if err != nil {
		return nil, err
	}
	l.gate = p.gate
	if l.door == nil {
		return l, nil
	}
	for _, v := range variables {
		tenant := strings.ToLower(v)
		class := cmp.Or(p.spec.Gateway.Keys[v].Class, scenarios.DefaultKeyClass)
		if l.issued[v], err = l.AddKey(ctx, KeySpec{ID: tenant, Tenant: tenant, Class: class, Inside: true}); err != nil {
			l.Stop()
			return nil, err
		}
	}
	return l, nil
}

// variables are those that the workloads of the gate name their keys by.
func (p localPlan) variables() (all []string) {
	for _, s := range p.gate.Scenarios {
		for _, class := range s.Mix() {
			if v := class.Workload.APIKeyEnv; v != "" && !slices.Contains(all, v) {
				all = append(all, v)
			}
		}
	}
	return all
}
