package deploy

import "github.com/launchgate/launchgate/scenarios"

// network is the network of the replicas: the simulated nodes, the address of
// each replica, and the links in front of them.
type network struct {
	nodes []*Node           // none: all replicas are on loopback
	addrs map[string]string // of the API of each replica
	paths map[string]string // where the gateway reaches it: the link, if there is one
	links map[string]*Link  // in front of each replica; empty without links
}

// CountNodes is how many simulated nodes a deployment has: as many as the gate
// says, or one for each replica.
func CountNodes(spec scenarios.Local) int {
	if spec.Nodes > 0 {
		return spec.Nodes
	}
	return spec.Replicas
}

// nodeOf is the network of the node of replica number i. It is nil if the
// replica is in the host's network.
func (n *network) nodeOf(i int) *Node {
	if len(n.nodes) == 0 || i < 0 {
		return nil
	}
	return n.nodes[i%len(n.nodes)]
}

// Address is where a replica itself listens, behind any link.
func (n *network) Address(replica string) string { return n.addrs[replica] }

// Path is where the gateway reaches a replica.
func (n *network) Path(replica string) string { return n.paths[replica] }

// Link is the network in front of a replica, if the deployment has links.
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
