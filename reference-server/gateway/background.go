package gateway

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/launchgate/launchgate/reference-server/ledger"
)

const (
	workers     = 4                      // background responses that a gateway computes at a time
	claimEvery  = 100 * time.Millisecond // how often an idle worker looks
	leaseFor    = 5 * time.Second        // after which another gateway takes over a dead gateway's response
	giveUpAfter = 10 * time.Minute       // on a response that no replica can compute
)

// accept serves POST /v1/responses. A background response is stored before it is
// acknowledged. Any gateway of the ledger may compute it, and computes it again if
// the first one died.
func (g *Gateway) accept(w http.ResponseWriter, r *http.Request) {
	body, ok := g.readBody(w, r)
	if !ok {
		return
	}
	q, ok := g.decoded(w, r, body)
	if !ok {
		return
	}
	if q == nil || !q.background || q.stream {
		g.send(w, r, body, q)
		return
	}
	c := r.Context().Value(callKey{}).(*call)
	q.set("background", []byte("false"))
	prepare(c, r.URL.Path, q)
	resp := ledger.Response{ID: "resp_" + strings.ToLower(rand.Text()), Tenant: c.key.Tenant, Request: string(q.bytes()), Status: "queued", Created: time.Now()}
	ctx, cancel := context.WithTimeout(r.Context(), ledgerWithin)
	defer cancel()
	bounds := g.guard.limits().Background
	err := g.guard.ledger.AcceptWithin(ctx, resp, bounds.Tenant.bound(), bounds.All.bound())
	switch {
	case errors.Is(err, ledger.ErrTenantFull):
		g.deny(w, deny(http.StatusTooManyRequests, "background_full", fmt.Sprintf("the tenant has as many background responses stored as it may have: %d that wait, %d MiB of all that is kept; delete some, or wait", bounds.Tenant.Responses, bounds.Tenant.Megabytes), 10*time.Second))
		return
	case errors.Is(err, ledger.ErrFull):
		g.deny(w, deny(http.StatusServiceUnavailable, "background_full", "there is no room for more background responses now", 10*time.Second))
		return
	case err != nil:
		g.log.Error("a background response is not stored", "why", err)
		g.fail(w, refusal{http.StatusServiceUnavailable, "not_stored", "the response could not be stored, so it is not accepted"})
		return
	}
	owns(resp.ID, c.key.Tenant)
	writeJSON(w, http.StatusOK, pending(resp))
}

// pending is the response object while there is no answer.
func pending(r ledger.Response) map[string]any {
	var q struct {
		Model    string            `json:"model"`
		Metadata map[string]string `json:"metadata"`
	}
	_ = json.Unmarshal([]byte(r.Request), &q) // an invalid request fails when it is computed
	return map[string]any{
		"id": r.ID, "object": "response", "created_at": r.Created.Unix(), "model": q.Model, "status": r.Status, "metadata": q.Metadata, "background": true,
		"output": []any{}, "error": nil, "incomplete_details": nil, "usage": nil, "parallel_tool_calls": false, "tool_choice": "none", "tools": []any{}, "instructions": nil,
	}
}

// stored serves GET and DELETE /v1/responses/{id}, and POST …/cancel.
func (g *Gateway) stored(w http.ResponseWriter, r *http.Request) {
	c, id := r.Context().Value(callKey{}).(*call), r.PathValue("id")
	l, tenant := g.guard.ledger, ownerOf(id, c.key.Tenant)
	ctx, cancel := context.WithTimeout(r.Context(), ledgerWithin)
	defer cancel()
	var err error
	if r.Method == http.MethodPost {
		err = l.Cancel(ctx, id, tenant)
	}
	var resp ledger.Response
	if err == nil {
		resp, err = l.ResponseOf(ctx, id, tenant)
	}
	if err == nil && r.Method == http.MethodDelete {
		err = l.Forget(ctx, id, tenant)
	}
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		g.fail(w, refusal{http.StatusNotFound, "response_not_found", fmt.Sprintf("there is no response %q", id)})
	case err != nil:
		g.fail(w, refusal{http.StatusServiceUnavailable, "ledger_unavailable", "the ledger does not answer"})
	case r.Method == http.MethodDelete:
		writeJSON(w, http.StatusOK, map[string]any{"id": id, "object": "response", "deleted": true})
	case resp.Result != "":
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, resp.Result) // the client may be gone
	default:
		writeJSON(w, http.StatusOK, pending(resp))
	}
}

// compute runs the workers of background responses until ctx ends.
func (g *Gateway) compute(ctx context.Context) {
	var working sync.WaitGroup
	for range workers {
		working.Go(func() {
			owner := rand.Text()
			for ctx.Err() == nil {
				if g.balancer.ready() > 0 {
					asking, cancel := context.WithTimeout(ctx, ledgerWithin)
					r, err := g.guard.ledger.Claim(asking, owner, leaseFor)
					cancel()
					if err == nil {
						g.work(ctx, r, owner)
						continue
					}
					if !errors.Is(err, ledger.ErrNotFound) && ctx.Err() == nil {
						g.log.Error("no background response can be claimed", "why", err)
					}
				}
				pause(ctx, claimEvery)
			}
		})
	}
	working.Wait()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// work computes one response. If the replica fails, the response goes back to the
// queue.
func (g *Gateway) work(ctx context.Context, r ledger.Response, owner string) {
	running, cancel := context.WithCancel(ctx)
	var renewing sync.WaitGroup
	renewing.Go(func() { // also notices a cancellation
		for pause(running, leaseFor/5); running.Err() == nil; pause(running, leaseFor/5) {
			if held, err := g.guard.ledger.Renew(running, r.ID, owner, leaseFor); err == nil && !held {
				cancel()
			}
		}
	})
	status, result, err := g.answer(running, r)
	cancel()
	renewing.Wait()
	// A gateway that is shutting down still stores the result.
	last, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer done()
	if err != nil && time.Since(r.Created) > giveUpAfter {
		failed := pending(r)
		failed["status"], failed["error"] = "failed", map[string]any{"code": "server_error", "message": err.Error()}
		b, _ := json.Marshal(failed)
		status, result, err = "failed", string(b), nil
	}
	if err != nil {
		g.log.Warn("a background response is given back", "response", r.ID, "why", err)
		if err := g.guard.ledger.Release(last, r.ID, owner); err != nil {
			g.log.Error("a background response waits for its lease", "response", r.ID, "why", err)
		}
		pause(ctx, claimEvery)
		return
	}
	if _, err := g.guard.ledger.Finish(last, r.ID, owner, status, result); err != nil {
		g.log.Error("a background response is computed again", "response", r.ID, "why", err)
	}
}

// answer sends the request to a replica. An error means that a retry may succeed.
func (g *Gateway) answer(ctx context.Context, r ledger.Response) (status, result string, err error) {
	asking := &call{id: r.ID, key: ledger.Key{Tenant: r.Tenant}, class: "0"} // behind all requests whose clients wait
	ctx = context.WithValue(context.WithValue(ctx, bodyKey{}, &payload{body: []byte(r.Request)}), callKey{}, asking)
	ctx, cancel := context.WithTimeout(ctx, 300*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://replica/v1/responses", nil)
	if err != nil {
		return "", "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := g.balancer.RoundTrip(req)
	if err != nil {
		return "", "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return "", "", err
	}
	fault := resp.Header.Get(headerFault) == "request"
	if resp.StatusCode >= 500 && !fault || resp.StatusCode == http.StatusTooManyRequests {
		return "", "", fmt.Errorf("a replica answers %s", resp.Status)
	}
	o := map[string]any{}
	if err := json.Unmarshal(body, &o); err != nil {
		return "", "", fmt.Errorf("a replica answers what is no JSON: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		failed := pending(r)
		failed["status"], failed["error"] = "failed", o["error"]
		o = failed
	}
	o["id"], o["background"], o["created_at"] = r.ID, true, r.Created.Unix()
	var t reported
	if json.Unmarshal(body, &t) == nil && t.Usage != nil { // the id is that of the request, so a response that is computed twice is billed once
		if err := g.guard.keep(asking, t); err != nil {
			return "", "", err
		}
	}
	b, err := json.Marshal(o)
	status, _ = o["status"].(string)
	return status, string(b), err
}
