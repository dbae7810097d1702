package chaos

import (
	"context"
	"net"
	"net/url"
	"time"

	"github.com/launchgate/launchgate/deploy"
)

// mostPadding is what a header may hold at a service of any make: 8 KiB are the
// least limit among those in use.
const mostPadding = 6 << 10

// distant is a service that launchgate did not deploy, as faults of the network
// see it: one replica behind one proxy, between the load and it.
type distant struct {
	*deploy.Endpoint
	host string // which is its name too
	base string // its scheme and host
}

func distantOf(e *deploy.Endpoint) (distant, error) {
	u, err := url.Parse(e.URL())
	if err != nil {
		return distant{}, err
	}
	return distant{e, u.Host, u.Scheme + "://" + u.Host}, nil
}

func (d distant) Replicas() []deploy.Replica { return []deploy.Replica{{Name: d.host}} }

// InFlight are not known; faults that wait for streams are refused before.
func (d distant) InFlight(context.Context) (map[string]int, error) {
	return map[string]int{d.host: 0}, nil
}

func (d distant) Node(string) *deploy.Node { return nil }

func (d distant) OnNodeOf(name string) []string { return []string{name} }

func (d distant) Link(string) (*deploy.Link, bool) { return d.Endpoint.Link() }

// Address is where the service itself is, past the proxy.
func (d distant) Address(string) string { return d.base }

func (d distant) Path(string) string { return d.base }

// through connects to the proxy, whatever the address.
func (d distant) through(ctx context.Context, network, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, d.Via())
}

// Serving is whether it answers at all: who routes to it is not known.
func (d distant) Serving(ctx context.Context, _ string) bool {
	_, _, err := health(ctx, d.through, d.base, 0, time.Second)
	return err == nil
}
