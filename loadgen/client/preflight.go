package client

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

// preflightFor is how long a service may take for its first small answer.
const preflightFor = 10 * time.Second

// Preflight makes sure that the service answers, by one small question like p.
// It settles which model to ask for where nobody said, and learns what is spoken.
// Its error is a sentence for the person who typed the address.
func (c *Client) Preflight(ctx context.Context, p Prompt) error {
	if c.cfg.Model == "" && c.rpc == nil { // gRPC has a default model
		name, err := c.firstModel(ctx)
		if err != nil {
			return err
		}
		c.cfg.Model = name
	}
	p.MaxTokens, p.Timeout = 4, preflightFor
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) { c.protocol = c.spoken(got.Conn) }})
	row := c.Do(traced, p, recording.NewClock(), 0)
	if row.OK() || ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return c.explain(row)
}

// Protocol is what Preflight found to be spoken; empty over gRPC.
func (c *Client) Protocol() words.Sentence { return c.protocol }

func (c *Client) spoken(conn net.Conn) words.Sentence {
	secured, ok := conn.(*tls.Conn)
	switch {
	case !ok && c.cfg.HTTP == "2":
		return words.Say("HTTP/2 in clear")
	case !ok:
		return words.Say("HTTP/1.1 in clear")
	}
	state := secured.ConnectionState()
	version := "HTTP/1.1"
	if state.NegotiatedProtocol == "h2" {
		version = "HTTP/2"
	}
	return words.Say("%s over %s", version, tls.VersionName(state.Version))
}

// note remembers what an error is about, for Preflight to explain.
func (c *Client) note(err error) {
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		c.untrusted.Store(true)
	}
}

// explain turns a failed request into what to do about it.
func (c *Client) explain(row recording.Request) error {
	switch {
	case row.Error == recording.ErrorConnect && c.untrusted.Load():
		return words.Errorf("%s: no answer came: %s (its certificate is not trusted here: name the PEM of the authority that signed it: --ca-file)", c.base, row.Why())
	case row.Error == recording.ErrorConnect:
		return words.Errorf("%s: no answer came: %s (is the service running there?)", c.base, row.Why())
	case row.Error == recording.ErrorTimeout:
		return words.Errorf("%s: no answer within %s", c.base, preflightFor)
	case row.Status == http.StatusUnauthorized || row.Status == http.StatusForbidden:
		return words.Errorf("%s: %s (name the environment variable that holds the key: --api-key-env)", c.base, row.Why())
	case row.Status == http.StatusNotFound:
		if c.cfg.Model == "" {
			return words.Errorf("%s: %s (does the address end before /v1?)", c.base, row.Why())
		}
		return words.Errorf("%s: %s (is %q a model of this service, and does the address end before /v1?)", c.base, row.Why(), c.cfg.Model)
	}
	return words.Errorf("%s: %s", c.base, row.Why())
}

// firstModel asks which models are served.
func (c *Client) firstModel(ctx context.Context) (string, error) {
	limited, cancel := context.WithTimeout(ctx, preflightFor)
	defer cancel()
	req, err := http.NewRequestWithContext(limited, http.MethodGet, c.base+"/v1/models", nil)
	if err != nil {
		return "", words.Errorf("%q is not an address: %s", c.cfg.BaseURL, err)
	}
	c.header(req)
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		c.note(err)
		var row recording.Request
		fail(&row, class(ctx, limited, err), "%s", err)
		return "", c.explain(row)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var netErr net.Error
	if errors.As(err, &netErr) && netErr.Timeout() {
		return "", c.explain(recording.Request{Error: recording.ErrorTimeout})
	}
	if resp.StatusCode != http.StatusOK {
		row := recording.Request{Status: int32(resp.StatusCode)}
		fail(&row, refusedWith(row.Status), "%s: %s", resp.Status, errorText(b))
		return "", c.explain(row)
	}
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	kind := resp.Header.Get("Content-Type")
	if err := json.Unmarshal(b, &list); err != nil {
		return "", words.Errorf("%s/v1/models is %s, and should be the JSON list of models: %s", c.base, named(kind, b), excerpt(b))
	}
	if len(list.Data) == 0 || strings.TrimSpace(list.Data[0].ID) == "" {
		return "", words.Errorf("%s/v1/models lists no model; name one with --model", c.base)
	}
	return list.Data[0].ID, nil
}
