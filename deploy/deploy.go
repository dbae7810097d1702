// Package deploy brings the service under test into being, or points at one
// that is already there. A target knows how to start, to say where it listens
// and to stop; what faults may do to it are small methods of the concrete
// target, and a fault asks for the two or three it needs.
package deploy

import "time"

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
// probed, and nothing else.
type Endpoint struct{ url string }

// NewEndpoint points at an OpenAI-compatible service.
func NewEndpoint(url string) *Endpoint { return &Endpoint{url: url} }

// URL is where requests go.
func (e *Endpoint) URL() string { return e.url }

// Stop does nothing: what was not started here is not stopped here.
func (e *Endpoint) Stop() {}
