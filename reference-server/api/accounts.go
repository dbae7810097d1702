package api

import (
	"container/list"
	"fmt"
	"net/http"
	"sync"

	"github.com/launchgate/launchgate/reference-server/access"
	"github.com/launchgate/launchgate/reference-server/engine"
)

const (
	accountsKept   = 4096
	longestRequest = 128 // bytes of a gateway's name for a request
)

// accounts are what the last requests of gateways have used. A gateway whose
// client left before the answer told it asks here, and bills it all the same.
type accounts struct {
	mu    sync.Mutex
	byID  map[string]*list.Element
	order list.List // of *account, the oldest first
}

// account is what one request has used so far.
type account struct {
	id    string
	ended chan struct{}

	mu   sync.Mutex
	used []engine.Usage // of each of its answers
}

// open begins the account of a request that its gateway has a name for; nil
// where it has none.
func (k *accounts) open(r *http.Request) *account {
	id := r.Header.Get(access.HeaderRequest)
	if id == "" || len(id) > longestRequest {
		return nil
	}
	a := &account{id: id, ended: make(chan struct{})}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byID == nil {
		k.byID = map[string]*list.Element{}
	}
	if before, again := k.byID[id]; again { // it was sent to this replica before
		k.order.Remove(before)
	}
	k.byID[id] = k.order.PushBack(a)
	for k.order.Len() > accountsKept {
		delete(k.byID, k.order.Remove(k.order.Front()).(*account).id)
	}
	return a
}

func (k *accounts) of(id string) *account {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := k.byID[id]; e != nil {
		return e.Value.(*account)
	}
	return nil
}

// saw notes what one of the answers has used until now.
func (a *account) saw(answer int, u engine.Usage) {
	if a == nil || u == (engine.Usage{}) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.used) <= answer {
		a.used = append(a.used, engine.Usage{})
	}
	a.used[answer] = u
}

// total is what all answers have used; they have one prompt.
func (a *account) total() (u engine.Usage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, of := range a.used {
		u.Prompt, u.Output = max(u.Prompt, of.Prompt), u.Output+of.Output
	}
	return u
}

func (a *account) close() {
	if a != nil {
		close(a.ended)
	}
}

// used serves GET /usage/{request}: what a request has used that has ended, or
// will have when it has.
func (s *Server) used(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("request")
	a := s.accounts.of(id)
	if a == nil {
		fail(w, problem{http.StatusNotFound, "usage_not_found", fmt.Sprintf("no request %.80q of a gateway is known; those of the last %d are", id, accountsKept), 0})
		return
	}
	select {
	case <-a.ended:
	case <-r.Context().Done():
		return
	}
	u := a.total()
	writeJSON(w, http.StatusOK, map[string]any{"id": id, "object": "usage", "usage": map[string]any{"prompt_tokens": u.Prompt, "completion_tokens": u.Output}})
}
