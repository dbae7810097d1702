package host

import (
	"errors"
	"strings"
	"sync"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// kernel is what the kernel of this machine can do to a network. It is tried
// once.
var kernel = sync.OnceValue(deploy.TryKernel)

// means is the part of the kernel that plays a fault of the network.
type means string

const (
	linkDown means = "link"
	tbf      means = "tbf"
	netem    means = "netem"
)

func (m means) said() words.Sentence {
	switch m {
	case linkDown:
		return words.Say("link down on the veth")
	case tbf:
		return words.Say("tbf on both ends of the veth")
	}
	return words.Say("netem on both ends of the veth")
}

// lacks is why the kernel cannot play a fault here and a proxy has to. It is
// nil if the kernel can.
func (m means) lacks(k deploy.Kernel, f scenarios.Fault) error {
	switch {
	case k.Nodes != nil:
		return k.Nodes
	case m == tbf:
		return k.Bandwidth
	case m == netem:
		return k.Packets
	case f.Cut == scenarios.CutReset:
		return words.Errorf("a link that is down drops packets in silence, so it cannot reset connections")
	}
	return nil
}

// PlayedBy names the proxy for faults of the network.
func (endpointPlan) PlayedBy(f scenarios.Fault) words.Sentence {
	if meansOf(f) == "" {
		return words.Sentence{}
	}
	return words.Say("by a proxy between the load and the service")
}

// PlayedBy names the kernel or a proxy for faults of the network. For the loss
// of a node it says whether the node's network is lost too.
func (localPlan) PlayedBy(f scenarios.Fault) words.Sentence {
	kind, _ := scenarios.FaultKindOf(f.Kind)
	m := meansOf(f)
	switch {
	case kind.Node && kernel().Nodes == nil:
		return words.Say("with its network, by the kernel: %s", linkDown.said())
	case kind.Node:
		return words.Say("without its network: %s", kernel().Nodes)
	case m == "":
		return words.Sentence{}
	case m.lacks(kernel(), f) != nil:
		return words.Say("by a proxy: %s", m.lacks(kernel(), f))
	}
	return words.Say("by the kernel: %s", m.said())
}

// meansOf is the means of a fault's kind. It is empty if the fault does not
// strike the network.
func meansOf(f scenarios.Fault) means {
	k, _ := scenarios.FaultKindOf(f.Kind) // an unknown kind strikes nothing
	switch k.Network {
	case scenarios.NetworkPackets:
		return netem
	case scenarios.NetworkBandwidth:
		return tbf
	case scenarios.NetworkReach:
		return linkDown
	}
	return ""
}

// needsLinks reports whether a gate has faults that a proxy must play.
func needsLinks(gate scenarios.Gate) bool {
	return gate.AnyFault(func(f scenarios.Fault, k scenarios.FaultKind) bool {
		return k.Network != "" && meansOf(f).lacks(kernel(), f) != nil
	})
}

// needsNodes reports whether a gate has faults that the kernel plays on the
// networks of simulated nodes.
func needsNodes(gate scenarios.Gate) bool {
	return gate.AnyFault(func(f scenarios.Fault, k scenarios.FaultKind) bool {
		return k.Network != "" && meansOf(f).lacks(kernel(), f) == nil || k.Node && kernel().Nodes == nil
	})
}

// OwnNodes makes so many simulated nodes, each with a network of its own.
func OwnNodes(j deploy.Journal, n int) (nodes []*deploy.Node, release func() error, err error) {
	names := deploy.NodeNames(n)
	var undo []deploy.Undo
	for _, name := range names {
		undo = append(undo, undoing(undoLink, object{Path: name}))
	}
	const id = ofOurs + "nodes"
	if err := j.Begin(id, "the network", "the nodes "+strings.Join(names, ", "), undo); err != nil {
		return nil, nil, err
	}
	if nodes, err = deploy.MakeNodes(names); err != nil {
		return nil, nil, errors.Join(err, j.End(id))
	}
	return nodes, func() error {
		var failed error
		for _, n := range nodes {
			failed = errors.Join(failed, n.Remove())
		}
		if failed != nil {
			return failed
		}
		return j.End(id)
	}, nil
}

// onNode is what a target must offer for faults on the network of a node.
type onNode interface {
	Node(replica string) *deploy.Node
	Path(replica string) string // where the gateway reaches it
}
