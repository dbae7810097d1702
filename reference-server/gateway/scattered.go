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

// askFor bounds how long a replica may take to say whether it has a response, so
// that one that hangs does not block the query to the others.
const askFor = 2 * time.Second

// scattered serves GET and DELETE /v1/responses/{id}, and POST …/cancel, where
// there is no ledger. A background response is in the memory of the replica that
// accepted it, and nothing records which one that is. So the replicas are asked in
// turn until one has it. It is missing only if all were asked.
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

// has passes on the answer of a replica if that has the response.
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
