package deploy

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/launchgate/launchgate/deploy/gpu"
	"github.com/launchgate/launchgate/scenarios"
)

// anyLoad is the allowance for a load that is not known before.
var anyLoad = Allowance{PerSecond: 1e5, UnderWay: 1e6}

// LocalPlan is the bundled service, before it is started.
type LocalPlan struct {
	Gate scenarios.Gate
	Spec scenarios.Local
	// GPUs lists those of this machine; nil: ListGPUs.
	GPUs func() ([]gpu.GPU, error)
}

// About is what the gate says of it.
func (p LocalPlan) About() About {
	a := About{Kind: "local", Model: p.Spec.Model, Replicas: p.Spec.Replicas, RunsBuild: true, Watched: Unwatched(p.Spec.Monitoring), Tells: tellsOfItself}
	a.Settings = Settings{
		MaxBatchSize: p.Spec.MaxBatchSize, MaxSequenceLength: p.Spec.MaxSequenceLength, Threads: p.Spec.Threads,
		GPUMemoryFraction: float64(p.Spec.GPUMemoryFraction), KVCacheBytes: int64(p.Spec.KVCache),
	}
	for _, name := range slices.Sorted(maps.Keys(p.Spec.Models)) {
		a.Models = append(a.Models, ServedModel{Name: name, Quantization: p.Spec.Models[name].Quantization})
	}
	if !p.Spec.Gateway.Plain {
		a.Allowance = AllowanceFor(p.Gate).Describe()
	}
	return a
}

// Replicas are those that the gate asks for, spread over the nodes.
func (p LocalPlan) Replicas() []Replica {
	all := make([]Replica, p.Spec.Replicas)
	for i := range all {
		all[i] = Replica{Name: scenarios.ReplicaName(i), Node: nodeName(i % CountNodes(p.Spec))}
	}
	return all
}

func nodeName(i int) string { return fmt.Sprintf("node-%d", i) }

// Ground is the networks and devices that a local deployment uses besides this
// machine's loopback.
type Ground struct {
	// Links: the gateway reaches every replica through a Link.
	Links bool
	// Nodes are the networks of the simulated nodes, as many as CountNodes
	// says. If there are none, every replica is on loopback.
	Nodes []*Node
	// Seating is what the replicas compute on; nil: as planned for this machine.
	Seating *Seating
}

// Start starts the deployment. If its gateway asks for keys, Start issues them:
// one for the run, and one for each variable that a workload names. Each such
// workload is a tenant of its own.
func (p LocalPlan) Start(ctx context.Context, o Setup, on Ground) (*Local, error) {
	allow := anyLoad
	if !o.AnyLoad {
		allow = AllowanceFor(p.Gate)
	}
	variables := p.variables()
	for _, v := range variables {
		if !p.Spec.Gateway.Keys[v].Limited {
			allow.Tenants = append(allow.Tenants, strings.ToLower(v))
		}
	}
	if on.Seating == nil {
		planned, err := p.Seat(ctx, o.Build)
		if err != nil {
			return nil, err
		}
		on.Seating = &planned
	}
	l, err := StartLocal(ctx, p.Spec, allow, o, on)
	if err != nil {
		return nil, err
	}
	l.Gate = p.Gate
	if l.admission == nil {
		return l, nil
	}
	for _, v := range variables {
		tenant := strings.ToLower(v)
		class := cmp.Or(p.Spec.Gateway.Keys[v].Class, scenarios.DefaultKeyClass)
		if l.issued[v], err = l.AddKey(ctx, KeySpec{ID: tenant, Tenant: tenant, Class: class, Inside: true}); err != nil {
			l.Stop()
			return nil, err
		}
	}
	return l, nil
}

// variables are the names of the variables with the keys of the gate's
// workloads.
func (p LocalPlan) variables() (all []string) {
	for _, s := range p.Gate.Scenarios {
		for _, class := range s.Mix() {
			if v := class.Workload.APIKeyEnv; v != "" && !slices.Contains(all, v) {
				all = append(all, v)
			}
		}
	}
	return all
}
