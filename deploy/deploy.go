// Package deploy starts the service under test, or points at one that already
// runs. A Target can start, report where it listens, and stop. The effects that
// a fault can have on it are capabilities: interfaces of one method each.
package deploy

import (
	"context"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Event is something that the deployment observed about itself, such as a process
// that started or exited, or a replica that became ready. Names are those of the recording's
// observations; At is read from time.Now, with its monotonic clock.
type Event struct {
	At      time.Time
	Name    string
	Subject string
	Value   float64
	Text    words.Sentence
	Names   []string
}

// EndpointPlan is a service that launchgate does not deploy.
type EndpointPlan struct{ Spec scenarios.Endpoint }

// About is what the gate says of it.
func (p EndpointPlan) About() About {
	return About{Kind: "endpoint", URL: p.Spec.URL, Model: p.Spec.Model, Asked: asked(p.Spec)}
}

// asked describes how requests are sent to an existing service, a line for each
// setting.
func asked(e scenarios.Endpoint) (lines []words.Sentence) {
	list := func(p words.Phrase, of []string) {
		if len(of) > 0 {
			lines = append(lines, words.Say(p, strings.Join(of, ", ")))
		}
	}
	one := func(p words.Phrase, value string) {
		if value != "" {
			lines = append(lines, words.Say(p, value))
		}
	}
	one("for the model %s", e.Model)
	one("with the API key in %s", e.APIKeyEnv)
	list("with the headers %s", slices.Sorted(maps.Keys(e.Headers)))
	list("with the parameters %s", slices.Sorted(maps.Keys(e.Query)))
	list("with the fields %s", slices.Sorted(maps.Keys(e.Fields)))
	one("trusting %s", e.CAFile)
	one("counting tokens with %s", e.Tokenizer)
	one("with the client certificate %s", e.CertFile)
	one("over HTTP/%s", e.HTTP)
	if e.NewConnections {
		lines = append(lines, words.Say("with a new connection for each request"))
	}
	return lines
}

// Replicas is empty: the replicas of an existing service are not known.
func (EndpointPlan) Replicas() []Replica { return nil }

// Endpoint is a service launchgate did not deploy: it can be driven and
// probed, and the network between here and it can be broken.
//
//	client ──▶ (link) ──▶ service
type Endpoint struct {
	EndpointPlan
	link *Link // nil without
}

// OpenEndpoint points at an OpenAI-compatible service; linked, clients are to
// reach it through a Link. Stop must then be called.
func OpenEndpoint(spec scenarios.Endpoint, linked bool) (*Endpoint, error) {
	e := &Endpoint{EndpointPlan: EndpointPlan{spec}}
	if !linked {
		return e, nil
	}
	address, err := addressOf(spec.URL)
	if err != nil {
		return nil, err
	}
	if e.link, err = newLink(nil, Loopback(0), address); err != nil {
		return nil, words.Errorf("the link in front of %s: %s", address, err)
	}
	return e, nil
}

// addressOf is the host and port to which a URL connects.
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
func (e *Endpoint) URL() string { return e.Spec.URL }

// Access is the endpoint as the gate has it.
func (e *Endpoint) Access() Access { return Access{Endpoint: e.Spec, Via: e.Via()} }

// Metrics are perhaps at /metrics beside the API.
func (e *Endpoint) Metrics() []Source {
	sources := []Source{{Name: "service", Beside: true}}
	if e.Spec.GPUMetrics != "" {
		sources = append(sources, Source{Name: "gpu_metrics", URL: e.Spec.GPUMetrics})
	}
	return sources
}

// WaitReady does not wait: the client's first request shows whether the service
// serves.
func (e *Endpoint) WaitReady(context.Context) error { return nil }

// Link is the network in front of the service, if OpenEndpoint was asked for
// one.
func (e *Endpoint) Link() (*Link, bool) { return e.link, e.link != nil }

// Via is the address that clients have to connect to in place of the URL's;
// empty without a link.
func (e *Endpoint) Via() string {
	if e.link == nil {
		return ""
	}
	return e.link.Addr()
}

// Stop ends the link. It does not stop the service, which launchgate did not
// start.
func (e *Endpoint) Stop() {
	if e.link != nil {
		e.link.stop()
	}
}
