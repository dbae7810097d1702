package gateway

import (
	"container/list"
	"crypto/sha256"
	"net/http"
	"strconv"
	"sync"
)

const (
	// cacheBytes bounds all cached answers; a few hundred of usual length fit.
	// Every answer is cached, in case of an overload, so a larger cache would grow
	// for minutes and look like a memory leak.
	cacheBytes = 4 << 20
	answerMost = 256 << 10 // bytes of one
)

// cache keeps answers of requests that always have the same answer: those at
// temperature 0. The key is the tenant and the whole request. The cache is used
// only if the service is overloaded, so that nobody gets an old answer where a new
// one can be computed.
type cache struct {
	mu    sync.Mutex
	byKey map[cacheKey]*list.Element
	order *list.List // of *answer, the last used first
	bytes int
}

type cacheKey [sha256.Size]byte

type answer struct {
	key         cacheKey
	contentType string
	body        []byte
	used        reported
}

func newCache() *cache { return &cache{byKey: map[cacheKey]*list.Element{}, order: list.New()} }

// keyFor is the cache key of a request that always has the same answer.
func keyFor(c *call, path string, q *question) (k cacheKey, ok bool) {
	if q == nil || path != "/v1/chat/completions" && path != "/v1/completions" {
		return k, false
	}
	if t, err := strconv.ParseFloat(string(q.value("temperature")), 64); err != nil || t != 0 {
		return k, false
	}
	h := sha256.New()
	visible := "usage"
	if c.hideUsage {
		visible = "no usage"
	}
	for _, part := range []string{c.key.Tenant, path, visible} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	h.Write(q.bytes())
	h.Sum(k[:0])
	return k, true
}

func (c *cache) get(k cacheKey) (*answer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byKey[k]
	if !ok {
		return nil, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*answer), true
}

// put stores an answer and evicts the least recently used ones.
func (c *cache) put(a *answer) {
	if len(a.body) > answerMost {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byKey[a.key]; ok {
		c.forget(e)
	}
	c.byKey[a.key] = c.order.PushFront(a)
	c.bytes += len(a.body)
	for c.bytes > cacheBytes {
		c.forget(c.order.Back())
	}
}

func (c *cache) forget(e *list.Element) {
	a := e.Value.(*answer)
	c.order.Remove(e)
	delete(c.byKey, a.key)
	c.bytes -= len(a.body)
}

// fromCache serves a request from the cache if the service is overloaded and the
// cache has the answer.
func (g *Gateway) fromCache(w http.ResponseWriter, r *http.Request, c *call, q *question) bool {
	key, ok := keyFor(c, r.URL.Path, q)
	if !ok {
		return false
	}
	c.cacheAs = &key
	if mark := g.guard.limits().Degrade.Queue; mark == 0 || g.balancer.load() <= float64(mark) {
		return false
	}
	a, ok := g.guard.cache.get(key)
	if !ok {
		return false
	}
	if err := g.guard.keep(c, a.used); err != nil { // it is billed by the usage in the answer
		g.fail(w, errNotKept)
		return true
	}
	g.metrics.degraded.WithLabelValues("cached").Inc()
	w.Header().Set("Content-Type", a.contentType)
	w.Header().Set("X-Launchgate-Cache", "hit")
	_, _ = w.Write(a.body) // the client may be gone
	return true
}
