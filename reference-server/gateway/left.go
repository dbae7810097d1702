package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// leftWithin is how long a replica has to tell what it computed of a request
// whose client left.
const leftWithin = 3 * time.Second

// left bills a request whose client left before its answer had begun: what its
// replica computed until then, or, where that one does not tell, its prompt.
func (g *Gateway) left(r *http.Request) {
	c, ok := r.Context().Value(callKey{}).(*call)
	if !ok || g.guard == nil || c.on == nil || c.unbilled || r.Method != http.MethodPost || !completes(r.URL.Path) || planted("usage-only-at-end") {
		return
	}
	u, err := g.usedOf(c)
	if err != nil {
		g.log.Info("what was computed of a request that its client left is not known, so its prompt is billed", "request", c.id, "why", err)
		u = tokens{Prompt: max(1, c.size/bytesOfToken)}
	}
	if u != (tokens{}) {
		_ = g.guard.keep(c, reported{Model: c.model, Usage: &u}) // it is logged
	}
}

// usedOf asks the replica that a request was sent to what it has used. One that
// never got the request has used nothing for it.
func (g *Gateway) usedOf(c *call) (u tokens, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), leftWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://replica/usage/"+c.id, nil)
	if err != nil {
		return u, err
	}
	resp, err := g.balancer.send(req, nil, c.on)
	if err != nil {
		return u, err
	}
	defer resp.Body.Close()
	var answer struct {
		ID     string `json:"id"`
		Object string `json:"object"`
		Usage  tokens `json:"usage"`
		Error  struct {
			Code string `json:"code"`
		} `json:"error"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<16)).Decode(&answer); err != nil {
		return u, fmt.Errorf("%s answers %s, and no usage: %w", c.on.Name, resp.Status, err)
	}
	switch {
	case resp.StatusCode == http.StatusNotFound && answer.Error.Code == "usage_not_found":
		return u, nil
	case resp.StatusCode != http.StatusOK || answer.Object != "usage" || answer.ID != c.id:
		return u, fmt.Errorf("%s answers %s, and no usage", c.on.Name, resp.Status)
	}
	return answer.Usage, nil
}
