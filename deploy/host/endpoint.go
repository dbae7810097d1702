package host

import (
	"context"
	"net"
	"net/url"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/scenarios"
)

// mostPadding is the most bytes that any service accepts in a header. The
// lowest limit in common use is 8 KiB.
const mostPadding = 6 << 10

// Endpoint is a service that launchgate did not deploy. Faults of the network
// see it as one replica behind one proxy, which is between the load and the
// service.
type Endpoint struct {
	*deploy.Endpoint
	plan endpointPlan
	host string // also the name of the replica
	base string // its scheme and host
}

func onEndpoint(e *deploy.Endpoint, p endpointPlan) (*Endpoint, error) {
	u, err := url.Parse(e.URL())
	if err != nil {
		return nil, err
	}
	return &Endpoint{e, p, u.Host, u.Scheme + "://" + u.Host}, nil
}

// Lacks says why its plan lacks a capability.
func (e *Endpoint) Lacks(c deploy.Capability, f scenarios.Fault) error { return e.plan.Lacks(c, f) }

// Stop ends the proxy.
func (e *Endpoint) Stop() error {
	e.Endpoint.Stop()
	return nil
}

// Replicas has one entry, which stands for the whole service.
func (e *Endpoint) Replicas() []deploy.Replica { return []deploy.Replica{{Name: e.host}} }

// InFlight is not known. Faults that wait for streams are refused earlier.
func (e *Endpoint) InFlight(context.Context) (map[string]int, error) {
	return map[string]int{e.host: 0}, nil
}

// Node is nil: there are no simulated nodes.
func (e *Endpoint) Node(string) *deploy.Node { return nil }

// OnNodeOf has the service only.
func (e *Endpoint) OnNodeOf(name string) []string { return []string{name} }

// Link is the proxy.
func (e *Endpoint) Link(string) (*deploy.Link, bool) { return e.Endpoint.Link() }

// Address is the URL of the service itself, without the proxy.
func (e *Endpoint) Address(string) string { return e.base }

// Path is the URL at which the load reaches the service.
func (e *Endpoint) Path(string) string { return e.base }

// through connects to the proxy, whatever the address.
func (e *Endpoint) through(ctx context.Context, network, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, e.Via())
}

// Serving reports whether the service answers. Whether anything routes to it is
// not known.
func (e *Endpoint) Serving(ctx context.Context, _ string) bool {
	_, _, err := health(ctx, e.through, e.base, 0, time.Second)
	return err == nil
}
