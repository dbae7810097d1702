package gateway

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"
)

// askFor is how long a replica may take to say whether it has a response: one
// that hangs must not keep the others from being asked.
const askFor = 2 * time.Second

// scattered serves GET and DELETE /v1/responses/{id}, and POST …/cancel, where
// there is no ledger. A background response lives in the replica that took it
// in, and which that is nobody has written down, so each is asked until one has
// it. Only when all were asked is it known that none has.
func (g *Gateway) scattered(w http.ResponseWriter, r *http.Request) {
	g.balancer.mu.Lock()
	replicas := slices.Clone(g.balancer.replicas)
	g.balancer.mu.Unlock()
	all := true
	for _, rep := range replicas {
		found, err := g.has(w, r, rep)
		if found {
			return
		}
		all = all && err == nil
	}
	if !all {
		g.fail(w, refusal{http.StatusServiceUnavailable, "replica_failed", fmt.Sprintf("no replica that answers has the response %q, and not all answer", r.PathValue("id"))})
		return
	}
	g.fail(w, refusal{http.StatusNotFound, "response_not_found", fmt.Sprintf("no replica has the response %q", r.PathValue("id"))})
}

// has passes on the answer of a replica that has the response.
func (g *Gateway) has(w http.ResponseWriter, r *http.Request, rep *replica) (bool, error) {
	ctx, cancel := context.WithTimeout(r.Context(), askFor)
	defer cancel()
	resp, err := g.balancer.send(r.WithContext(ctx), nil, rep)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return false, nil
	}
	maps.Copy(w.Header(), resp.Header)
	w.Header().Set(HeaderReplica, rep.Name)
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body) // the client may be gone
	return true, nil
}
