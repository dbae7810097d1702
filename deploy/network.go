package deploy

import "github.com/launchgate/launchgate/scenarios"

// network is where the replicas are: the simulated nodes, what each replica listens
// at, and the links in front of them.
type network struct {
	nodes []*Node           // none: all is on loopback
	addrs map[string]string // of the API of each replica
	paths map[string]string // where the gateway reaches it: a link, where there is one
	links map[string]*Link  // in front of it; empty without links
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
func (n *network) nodeOf(i int) *Node {
	if len(n.nodes) == 0 || i < 0 {
		return nil
	}
	return n.nodes[i%len(n.nodes)]
}

// Address is where a replica itself listens, past any link.
func (n *network) Address(replica string) string { return n.addrs[replica] }

// Path is where the gateway reaches a replica.
func (n *network) Path(replica string) string { return n.paths[replica] }

// Link is the network in front of a replica, where the deployment has links.
func (n *network) Link(replica string) (*Link, bool) {
	link, ok := n.links[replica]
	return link, ok
}

func (n *network) stopLinks() {
	for _, link := range n.links {
		if link != nil {
			link.stop()
		}
	}
}
