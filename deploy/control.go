package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/words"
)

// order is a request to the keeper of a standing deployment: a release, or another
// configuration.
type order struct {
	Release *Release `json:"release,omitempty"`
	Config  string   `json:"config,omitempty"` // a gateway.yaml
}

// message is a line of the keeper's answer: steps, and then an end.
type message struct {
	Step  words.Kept `json:"step,omitzero"`
	End   *Released  `json:"end,omitempty"`
	Error words.Kept `json:"error,omitzero"`
}

// control is the socket of a keeper. Its folder is only accessible to its user,
// because whoever can open the socket may release.
type control struct {
	dir    string
	server *http.Server
}

func openControl(l *Local) (*control, error) {
	dir, err := os.MkdirTemp("", "launchgate-") // a socket's path has to be short
	if err != nil {
		return nil, err
	}
	c := &control{dir: dir, server: &http.Server{Handler: l.orders(), ReadHeaderTimeout: time.Second}}
	lis, err := net.Listen("unix", c.socket())
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	go func() { _ = c.server.Serve(lis) }() // ends with close
	return c, nil
}

func (c *control) socket() string { return filepath.Join(c.dir, "control") }

func (c *control) close() error { return errors.Join(c.server.Close(), os.RemoveAll(c.dir)) }

func (l *Local) orders() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lines, flush := json.NewEncoder(w), http.NewResponseController(w).Flush
		// A release that has begun is completed even if the client has left.
		tell := func(line message) { _ = lines.Encode(line); _ = flush() }
		var o order
		err := json.NewDecoder(r.Body).Decode(&o)
		var end Released
		switch {
		case err != nil:
		case o.Release != nil:
			end, err = l.Release(r.Context(), *o.Release, func(step words.Sentence) { tell(message{Step: words.Kept{Sentence: step}}) })
		default:
			end, err = l.Reconfigure(r.Context(), o.Config)
		}
		if err != nil {
			tell(message{Error: words.Kept{Sentence: words.Of(err)}})
			return
		}
		tell(message{End: &end})
	})
}

// Release makes the deployment roll out a version.
func (s Standing) Release(ctx context.Context, r Release, tell func(words.Sentence)) (Released, error) {
	return s.order(ctx, order{Release: &r}, tell)
}

// Reconfigure replaces the limits of its gateway.
func (s Standing) Reconfigure(ctx context.Context, file string) (Released, error) {
	return s.order(ctx, order{Config: file}, func(words.Sentence) {})
}

func (s Standing) order(ctx context.Context, o order, tell func(words.Sentence)) (Released, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return Released{}, err
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", s.Control)
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://keeper/", strings.NewReader(string(body)))
	if err != nil {
		return Released{}, err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return Released{}, words.Errorf("the supervisor of the deployment does not answer: %s", err)
	}
	defer resp.Body.Close()
	for lines := json.NewDecoder(resp.Body); ; {
		var line message
		if err := lines.Decode(&line); err != nil {
			return Released{}, words.Errorf("the supervisor of the deployment disconnected: %s", err)
		}
		switch {
		case !line.Error.IsZero():
			return Released{}, words.Error(line.Error.Sentence)
		case line.End != nil:
			return *line.End, nil
		}
		tell(line.Step.Sentence)
	}
}
