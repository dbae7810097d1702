package host

import (
	"context"
	"net"
	"net/url"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/scenarios"
)

// mostPadding is what a header may hold at a service of any make: 8 KiB are the
// least limit among those in use.
const mostPadding = 6 << 10

// Endpoint is a service that launchgate did not deploy, as faults of the network
// see it: one replica behind one proxy, between the load and it.
type Endpoint struct {
	*deploy.Endpoint
	plan endpointPlan
	host string // which is the name of the replica too
	base string // its scheme and host
}

func onEndpoint(e *deploy.Endpoint, p endpointPlan) (*Endpoint, error) {
	u, err := url.Parse(e.URL())
	if err != nil {
		return nil, err
	}
	return &Endpoint{e, p, u.Host, u.Scheme + "://" + u.Host}, nil
}

// Lacks is what its plan lacks.
func (e *Endpoint) Lacks(c deploy.Capability, f scenarios.Fault) error { return e.plan.Lacks(c, f) }

// Stop ends the proxy.
func (e *Endpoint) Stop() error {
	e.Endpoint.Stop()
	return nil
}

// Replicas are the service, which is seen as one.
func (e *Endpoint) Replicas() []deploy.Replica { return []deploy.Replica{{Name: e.host}} }

// InFlight are not known; faults that wait for streams are refused before.
func (e *Endpoint) InFlight(context.Context) (map[string]int, error) {
	return map[string]int{e.host: 0}, nil
}

// Node is none.
func (e *Endpoint) Node(string) *deploy.Node { return nil }

// OnNodeOf is the service alone.
func (e *Endpoint) OnNodeOf(name string) []string { return []string{name} }

// Link is the proxy.
func (e *Endpoint) Link(string) (*deploy.Link, bool) { return e.Endpoint.Link() }

// Address is where the service itself is, past the proxy.
func (e *Endpoint) Address(string) string { return e.base }

// Path is where it is reached.
func (e *Endpoint) Path(string) string { return e.base }

// through connects to the proxy, whatever the address.
func (e *Endpoint) through(ctx context.Context, network, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, e.Via())
}

// Serving is whether it answers at all: who routes to it is not known.
func (e *Endpoint) Serving(ctx context.Context, _ string) bool {
	_, _, err := health(ctx, e.through, e.base, 0, time.Second)
	return err == nil
}
