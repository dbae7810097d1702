package host

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// silence is how long a replica must not answer to count as hung.
const silence = 300 * time.Millisecond

// onLinux is the check of fault kinds whose effect is seen in /proc.
func onLinux() error {
	if _, err := deploy.Stat(os.Getpid()); err != nil {
		return lack("it is verified in /proc, which cannot be read here: %s", err)
	}
	return nil
}

// reachable is what a target must offer to see whether a replica answers.
type reachable interface {
	crowd
	PID(name string) int
	Address(replica string) string
	Serving(ctx context.Context, replica string) bool
}

// onProcess is a fault on one process, which is known from when the fault was
// prepared. The fault must not strike a process that replaced it.
type onProcess struct {
	target  reachable
	victim  string
	streams int
	pid     int
	start   uint64
}

func prepareOnProcess(t reachable, v deploy.Victim) (onProcess, error) {
	victim := v.Replica
	pid := t.PID(victim)
	if pid == 0 {
		return onProcess{}, words.Errorf("%s is not running", victim)
	}
	st, err := deploy.Stat(pid)
	if err != nil {
		return onProcess{}, words.Errorf("%s: %s", victim, err)
	}
	return onProcess{t, victim, v.Streams, pid, st.Start}, nil
}

func (p *onProcess) Victim() string { return p.victim }

// stat is the state of that process, and an error if it is gone.
func (p *onProcess) stat() (deploy.ProcStat, error) {
	st, err := deploy.Stat(p.pid)
	if err == nil && st.Start != p.start {
		err = words.Errorf("pid %d is another process now", p.pid)
	}
	return st, err
}

// seeServing waits until the gateway routes to the victim, with any process.
func (p *onProcess) seeServing(ctx context.Context, before words.Sentence) (sight, error) {
	return until(ctx, pollEvery, func() (words.Sentence, bool) {
		return words.Say("%s; the gateway routes to %s", before, p.victim), p.target.Serving(ctx, p.victim)
	})
}

// HangReplica stops the process of a replica with SIGSTOP.
func (l *Local) HangReplica(_ context.Context, v deploy.Victim, _ scenarios.Fault) (deploy.Effect, error) {
	p, err := prepareOnProcess(l.Local, v)
	return &hanging{p}, err
}

type hanging struct{ onProcess }

func (h *hanging) Undo() []deploy.Undo {
	return []deploy.Undo{undoing(undoContinue, object{PID: h.pid, Start: h.start})}
}

func (h *hanging) Inject(context.Context) (sight, error) {
	if _, err := h.stat(); err != nil {
		return sight{}, err
	}
	if err := deploy.Signal(h.pid, deploy.Pause); err != nil {
		return sight{}, words.Errorf("send SIGSTOP to pid %d: %s", h.pid, err)
	}
	return sight{How: words.Say("SIGSTOP sent to pid %d with %d streams in flight", h.pid, h.streams)}, nil
}

// SeeInEffect: the fault is in effect from the time that the kernel reports.
// The missing answer is seen later, because that takes a timeout.
func (h *hanging) SeeInEffect(ctx context.Context) (sight, error) {
	var seen time.Time
	_, err := until(ctx, time.Millisecond, func() (words.Sentence, bool) {
		st, err := h.stat()
		seen = time.Now()
		return words.Sentence{}, err != nil || st.State == "T"
	})
	if err != nil {
		return sight{}, err
	}
	if _, err := h.stat(); err != nil {
		return sight{}, words.Errorf("the process that was stopped is gone: %s", err)
	}
	if took, err := roundTrip(ctx, h.target.Address(h.victim), 0, silence); err == nil {
		return sight{}, words.Errorf("pid %d is stopped, and its port answered after %s", h.pid, took)
	}
	return sight{At: seen, How: words.Say("pid %d is stopped (state T), and a request to its port got no answer in %s", h.pid, silence)}, ctx.Err()
}

func (h *hanging) Revert(context.Context) (sight, error) {
	if err := Undo(h.Undo()[0]); err != nil {
		return sight{}, err
	}
	return sight{How: words.Say("SIGCONT sent to pid %d", h.pid)}, nil
}

func (h *hanging) SeeGone(ctx context.Context) (sight, error) {
	if _, err := until(ctx, pollEvery, func() (words.Sentence, bool) {
		st, err := h.stat()
		return words.Sentence{}, err != nil || st.State != "T"
	}); err != nil {
		return sight{}, err
	}
	if _, err := h.stat(); err != nil {
		return h.seeServing(ctx, words.Say("pid %d has ended meanwhile", h.pid))
	}
	return h.seeServing(ctx, words.Say("pid %d runs", h.pid))
}

// roundTrip is how long a process takes to answer.
func roundTrip(ctx context.Context, addr string, padding int, within time.Duration) (time.Duration, error) {
	_, took, err := health(ctx, nil, addr, padding, within)
	return took, err
}

// dialer makes connections; nil means directly from this process.
type dialer = func(ctx context.Context, network, addr string) (net.Conn, error)

// health requests /health on a new connection, with so many bytes of padding in
// a header. It returns the header of the answer and how long that took. A
// running process answers at once, however busy it is. An address without a
// scheme means plain HTTP/1.1. The request has no secret, so the certificate is
// not verified.
func health(ctx context.Context, from dialer, addr string, padding int, within time.Duration) (http.Header, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: from, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Protocols: new(http.Protocols)}
	defer transport.CloseIdleConnections()
	scheme, host, ok := strings.Cut(addr, "://")
	if !ok {
		scheme, host = "http", addr
	}
	if after, rpc := strings.CutPrefix(scheme, "grpc"); rpc {
		transport.Protocols.SetHTTP2(true)
		transport.Protocols.SetUnencryptedHTTP2(true)
		scheme = "http" + after
	} else {
		transport.Protocols.SetHTTP1(true)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+host+"/health", nil)
	if err != nil {
		return nil, 0, err
	}
	if padding > 0 {
		req.Header.Set("X-Launchgate-Padding", strings.Repeat("x", padding))
	}
	began := time.Now()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, 0, err
	}
	resp.Body.Close()
	return resp.Header, time.Since(began), nil
}

// refused reports whether a connection was refused or reset, and not only slow.
func refused(err error) bool {
	var op *net.OpError
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.As(err, &op) && !op.Timeout()
}
