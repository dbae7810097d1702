package chaos

import (
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// kernel is what the kernel can do to a network here, tried out once.
var kernel = sync.OnceValue(deploy.TryKernel)

// means is what in the kernel plays a fault of the network.
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

// lacks is why a fault has to be played by a proxy here, and not by the kernel;
// nil where it need not.
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

// PlayedBy says for a plan what plays a fault of the network here, and the
// network's part in node-loss; it says nothing where there is no choice.
func PlayedBy(t scenarios.Target, f scenarios.Fault) words.Sentence {
	m := meansOf(f)
	switch {
	case t.Local == nil && m != "":
		return words.Say("by a proxy between the load and the service")
	case t.Local == nil:
		return words.Sentence{}
	case f.Kind == nodeLoss.Name && kernel().Nodes == nil:
		return words.Say("with its network, by the kernel: %s", linkDown.said())
	case f.Kind == nodeLoss.Name:
		return words.Say("without its network: %s", kernel().Nodes)
	case m == "":
		return words.Sentence{}
	case m.lacks(kernel(), f) != nil:
		return words.Say("by a proxy: %s", m.lacks(kernel(), f))
	}
	return words.Say("by the kernel: %s", m.said())
}

// meansOf is the means of a fault's kind; empty where it is not of the network.
func meansOf(f scenarios.Fault) means {
	k, _ := kindOf(f.Kind) // one that is not known has none
	return k.network
}

// NeedsLinks reports whether a gate has faults that a proxy has to play.
func NeedsLinks(gate scenarios.Gate) bool {
	return anyFault(gate, func(f scenarios.Fault) bool {
		m := meansOf(f)
		return m != "" && (gate.Target.Local == nil || m.lacks(kernel(), f) != nil)
	})
}

// NeedsNodes reports whether a gate has faults that the kernel plays on the
// networks of simulated nodes.
func NeedsNodes(gate scenarios.Gate) bool {
	return gate.Target.Local != nil && anyFault(gate, func(f scenarios.Fault) bool {
		m := meansOf(f)
		return m != "" && m.lacks(kernel(), f) == nil || f.Kind == nodeLoss.Name && kernel().Nodes == nil
	})
}

func anyFault(gate scenarios.Gate, is func(scenarios.Fault) bool) bool {
	return slices.ContainsFunc(gate.Scenarios, func(s scenarios.Scenario) bool { return slices.ContainsFunc(s.Faults, is) })
}

// PrepareGround gives a target what the faults of its gate need: a disk for the
// ledger alone, and networks for the simulated nodes. What is made is taken away
// by release, also after an error.
func PrepareGround(gate scenarios.Gate, j *Journal, o *deploy.Setup) (release []func() error, err error) {
	o.Links = NeedsLinks(gate)
	if NeedsDisk(gate) {
		back, err := OwnDisk(j, deploy.LedgerFolder(o.LogDir), DiskFor(gate))
		if err != nil {
			return nil, words.Errorf("a disk for the ledger alone, for disk-full: %s", err)
		}
		release = append(release, back)
	}
	if NeedsNodes(gate) {
		nodes, back, err := OwnNodes(j, deploy.CountNodes(*gate.Target.Local))
		if err != nil {
			return release, words.Errorf("networks for the simulated nodes: %s", err)
		}
		o.Nodes = nodes
		release = append(release, back)
	}
	return release, nil
}

// OwnNodes gives so many simulated nodes a network each.
func OwnNodes(j *Journal, n int) (nodes []*deploy.Node, release func() error, err error) {
	names := deploy.NodeNames(n)
	var undo []Undo
	for _, name := range names {
		undo = append(undo, Undo{Do: undoLink, Path: name})
	}
	const id = ofOurs + "nodes"
	if err := j.begin(id, "the network", "the nodes "+strings.Join(names, ", "), undo); err != nil {
		return nil, nil, err
	}
	if nodes, err = deploy.MakeNodes(names); err != nil {
		return nil, nil, errors.Join(err, j.end(id))
	}
	return nodes, func() error {
		var failed error
		for _, n := range nodes {
			failed = errors.Join(failed, n.Remove())
		}
		if failed != nil {
			return failed
		}
		return j.end(id)
	}, nil
}

// onNode is what faults on the network of a node need of a target.
type onNode interface {
	Node(replica string) *deploy.Node
	Path(replica string) string // where the gateway reaches it
}
