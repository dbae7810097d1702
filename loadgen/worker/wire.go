// Package worker shares a load out to several processes. Each plays every
// request whose number falls to it, by the same plan, drawn from the same seed,
// from the same moment on; what happened comes back over the connection, and
// the recording has one writer and one clock. On one machine the processes are
// started by the run; elsewhere they are told where to connect to.
//
// A worker connects, shows its token, and is given a task. Then the clocks are
// compared: of several questions the one with the quickest answer tells how far
// the worker's clock is off, to within half of that time. A worker whose
// connection ends before its work does is lost, and with it the run: part of
// the load has not been sent, or its outcome is not known.
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

// protocol is the version of what is said over the connection.
const protocol = 3

// hello is the first word of a worker.
type hello struct {
	Protocol int
	Version  string // of the program
	Token    string
	Process  int
}

// Task is what a worker is told before the load.
type Task struct {
	Gate     []byte // as the run resolved it
	Endpoint scenarios.Endpoint
	// Keys are the API keys that the gate and the endpoint name, by their variables.
	Keys       map[string]string
	Via        string   // what is connected to in the endpoint's place, if not empty
	Seeds      []uint64 // of each scenario
	Vocabulary prompt.Vocabulary
	Nonce      uint64
	Share      loadgen.Share
}

// order is what the coordinator says. gob leaves out what is zero, so which
// order it is stands in a word of its own.
type order struct {
	Do     string
	Task   Task          // of doPrepare
	Behind time.Duration // of doSet: how far the worker's clock is behind
	Play   play          // of doPlay
}

// The orders.
const (
	doPrepare = "prepare"
	doTell    = "tell" // what time it is there
	doSet     = "set"
	doPlay    = "play"
	doStop    = "stop" // what is played
)

type play struct {
	Scenario int
	Start    time.Duration
}

// report is what a worker says: with no field set, that an order is done.
type report struct {
	Error        words.Sentence
	Now          time.Duration
	Requests     []recording.Request
	Observations []recording.Observation
	Played       bool
}

// wire is a connection that says values. Writes may come from any goroutine.
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

// answer reads a report, and turns one that is an error into one.
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
