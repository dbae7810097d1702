// Package deploy brings the service under test into being, or points at one
// that is already there. A target knows how to start, to say where it listens
// and to stop; what faults may do to it are small methods of the concrete
// target, and a fault asks for the two or three it needs.
package deploy

import (
	"fmt"
	"net"
	"net/url"
	"time"
)

// Event is something the deployment saw of itself: a process that started or
// exited, a replica that became ready. Names are those of the recording's
// observations; At is read from time.Now, with its monotonic clock.
type Event struct {
	At      time.Time
	Name    string
	Subject string
	Value   float64
	Text    string
}

// Endpoint is a service launchgate did not deploy: it can be driven and
// probed, and the network between here and it can be broken.
//
//	client ──▶ (link) ──▶ service
type Endpoint struct {
	url  string
	link *Link // nil without
}

// OpenEndpoint points at an OpenAI-compatible service; linked, clients are to
// reach it through a Link. Stop must then be called.
func OpenEndpoint(at string, linked bool) (*Endpoint, error) {
	e := &Endpoint{url: at}
	if !linked {
		return e, nil
	}
	address, err := addressOf(at)
	if err != nil {
		return nil, err
	}
	if e.link, err = newLink(nil, Loopback(0), address); err != nil {
		return nil, fmt.Errorf("the link in front of %s: %w", address, err)
	}
	return e, nil
}

// addressOf is what is connected to for a URL.
func addressOf(at string) (string, error) {
	u, err := url.Parse(at)
	if err != nil {
		return "", err
	}
	port := u.Port()
	if port == "" {
		if port = "80"; u.Scheme == "https" || u.Scheme == "grpcs" {
			port = "443"
		}
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}

// URL is where requests go.
func (e *Endpoint) URL() string { return e.url }

// Link is the network in front of it, where it was asked for.
func (e *Endpoint) Link() (*Link, bool) { return e.link, e.link != nil }

// Via is the address that clients have to connect to in place of the URL's;
// empty without a link.
func (e *Endpoint) Via() string {
	if e.link == nil {
		return ""
	}
	return e.link.Addr()
}

// Stop ends the link; what was not started here is not stopped here.
func (e *Endpoint) Stop() {
	if e.link != nil {
		e.link.stop()
	}
}
