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
	longestRequest = 128 // bytes of a gateway's id of a request
)

// accounts hold the usage of the last requests of gateways. If a client leaves
// before the answer reports its usage, the gateway asks here, so that it can
// still bill it.
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

// open begins the account of a request. It returns nil if the gateway sent no
// id.
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
	if before, again := k.byID[id]; again { // the gateway sent it to this replica before
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

// saw records what one of the answers has used so far.
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

// total is the usage of all answers. Their common prompt counts once.
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

// used serves GET /usage/{request}: the usage of a request. It waits until the
// request has ended.
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
