// Package worker distributes a load over several processes. Each process plays the
// requests of its share, by the same plan from the same seed, starting at the same
// moment. What happens is sent back over the connection, so that the recording has one
// writer and one clock. On one machine the run starts the processes, and they connect to
// it. On a cluster the pods of a Job wait for the run to connect to them, which has to
// show its token first.
//
// A worker shows its token and gets a task. Then the clocks are compared:
// the coordinator asks several times, and the quickest answer gives the offset of the
// worker's clock, with an error of at most half of that round trip. After each scenario
// they are compared again, and the error is recorded. A worker whose
// connection ends early is lost, and the run cannot be judged: part of the load has not
// been sent, or its outcome is not known.
package worker

import (
	"encoding/gob"
	"net"
	"sync"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen"
	"github.com/launchgate/launchgate/loadgen/prompt"
	"github.com/launchgate/launchgate/scenarios"
)

// protocol is the version of the protocol between coordinator and worker.
const protocol = 4

// call is the first message of a coordinator that connects to a worker.
type call struct{ Token string }

// hello is the first message of a worker.
type hello struct {
	Protocol int
	Version  string // of the program
	Token    string
	Process  int
	Cores    int // that it may use
}

// Task is what a worker receives before the load.
type Task struct {
	Gate     []byte // as the run resolved it
	Endpoint scenarios.Endpoint
	// Keys are the API keys that the gate and the endpoint name, by the names of their
	// variables.
	Keys       map[string]string
	Via        string   // connect to this address instead of the endpoint's, if not empty
	Files      []File   // that the gate and the endpoint name, for a worker of another machine
	Seeds      []uint64 // of each scenario
	Vocabulary prompt.Vocabulary
	Nonce      uint64
	Share      loadgen.Share
}

// order is a message of the coordinator. gob leaves out zero fields, so Do names the
// order.
type order struct {
	Do     string
	Task   Task          // for doPrepare
	Behind time.Duration // for doSet: how far the worker's clock is behind
	Play   play          // for doPlay
}

// The orders.
const (
	doPrepare = "prepare"
	doTell    = "tell" // tell the worker's time
	doSet     = "set"
	doPlay    = "play"
	doStop    = "stop" // stop playing
)

type play struct {
	Scenario int
	Start    time.Duration
}

// report is a message of a worker. If no field is set, the order is done.
type report struct {
	Error        words.Sentence
	Now          time.Duration
	Requests     []recording.Request
	Observations []recording.Observation
	Played       bool
}

// wire is a connection that sends and receives gob values. Any goroutine may write.
type wire struct {
	conn net.Conn
	in   *gob.Decoder
	mu   sync.Mutex
	out  *gob.Encoder
}

func newWire(conn net.Conn) *wire {
	return &wire{conn: conn, in: gob.NewDecoder(conn), out: gob.NewEncoder(conn)}
}

func (w *wire) say(v any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Encode(v)
}

// answer reads a report, and returns its error as one.
func (w *wire) answer() (report, error) {
	var r report
	if err := w.in.Decode(&r); err != nil {
		return r, err
	}
	if !r.Error.IsZero() {
		return r, words.Error(r.Error)
	}
	return r, nil
}
