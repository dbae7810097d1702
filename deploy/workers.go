package deploy

import (
	"context"
	"net"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// WorkerPlan is how load workers are started on other machines.
type WorkerPlan interface {
	// Start starts n workers that know the SHA-256 sum of a token, and returns at once.
	// They must be stopped.
	Start(ctx context.Context, n int, sum string, j Journal) (Workers, error)
	// Reaches is why such workers cannot reach a service; nil where they can.
	Reaches(a Access) error
}

// Workers are processes on other machines that wait for the run to connect to them.
type Workers interface {
	// Dial connects to a worker. While the worker is not there yet, its error says what it
	// waits for.
	Dial(ctx context.Context, worker int) (net.Conn, error)
	// Hopeless is why some will never be there; nil as far as that is not known.
	Hopeless() error
	// Place says where a worker runs.
	Place(worker int) words.Sentence
	// Stop ends them and returns when nothing of them is there.
	Stop() error
}

// ForWorkers is how workers on other machines reach the service.
func (a Access) ForWorkers() scenarios.Endpoint {
	e := a.Endpoint
	if a.Inside != "" {
		e.URL = a.Inside
	}
	return e
}
