package gateway

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Connections bounds those that are open at once. A connection is a stranger's
// until a request on it came with a good key: a stranger that asks nothing is
// cut after strangerIdle, whatever it sends meanwhile (pings of HTTP/2, parts of
// headers), and where there are too many, those go that were idle for longest.
type Connections struct {
	Address int `yaml:"address"` // of each address
	Tenant  int `yaml:"tenant"`  // of each tenant, over all its addresses
	All     int `yaml:"all"`     // 0: what the descriptors of the process allow
}

const (
	strangerIdle = 15 * time.Second
	busyAgain    = time.Second // after which a stranger that is busy is looked at again

	// Descriptors that are kept for the ledger, the logs, the metrics port and
	// the connections to replicas: these, and half of the others.
	reserved = 64

	// Requests are limited, and a connection that carries one is as much work
	// again: an address may open so many times more connections than that.
	openings = 4
)

// all is the bound on connections that the process can bear.
func (c Connections) all() int {
	bearable := max(16, (descriptors()-reserved)/2)
	if c.All > 0 {
		return min(c.All, bearable)
	}
	return bearable
}

// visitors are the connections that are open.
type visitors struct {
	limits func(netip.Addr) (open int, opening Limit) // of an address
	bounds func() Connections
	opened buckets

	idleFor time.Duration // for a stranger

	mu        sync.Mutex
	open      int
	addresses map[netip.Prefix]int
	tenants   map[string]int
	strangers list.List // of *visitor, the longest idle first
	refused   uint64
}

// visitor is a connection.
type visitor struct {
	net.Conn
	all     *visitors
	address netip.Prefix
	tls     *tls.ConnectionState // of HTTP/1.1

	// Guarded by all.mu.
	element *list.Element // nil: no stranger any more, or closed
	tenant  string        // whose it is
	busy    int           // requests under way
	closed  bool
	idle    *time.Timer // cuts a stranger
}

// network is what counts as one address: one of IPv4, and of IPv6 a /64, which
// is what a subscriber has at the least.
func network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // the zero one for the zero address
	return p
}

// enter takes a connection in, or reports false: it has to be closed.
func (s *visitors) enter(c net.Conn) (*visitor, bool) {
	a := remoteAddr(c.RemoteAddr().String())
	v := &visitor{Conn: c, all: s, address: network(a)}
	most, opening := s.limits(a)
	unlimited := planted("no-connection-limit")
	if !unlimited && s.opened.take(v.address.String(), opening, 1, time.Now()) > 0 {
		s.refuse()
		return nil, false
	}
	all := s.bounds().all()
	most = min(most, max(8, all*3/4))
	s.mu.Lock()
	defer s.mu.Unlock()
	for !unlimited && s.addresses[v.address] >= most {
		if !s.cut(func(x *visitor) bool { return x.address == v.address }) {
			s.refused++
			return nil, false
		}
	}
	for !unlimited && (s.open >= all || s.strangers.Len() >= max(8, all/2)) {
		if !s.cut(func(*visitor) bool { return true }) {
			s.refused++
			return nil, false
		}
	}
	s.open++
	s.addresses[v.address]++
	v.element = s.strangers.PushBack(v)
	if s.idleFor > 0 && !planted("no-header-timeout") {
		v.idle = time.AfterFunc(s.idleFor, v.expire)
	}
	return v, true
}

func (s *visitors) refuse() {
	s.mu.Lock()
	s.refused++
	s.mu.Unlock()
}

// cut closes the stranger that was idle for longest and is like that. Its caller
// holds s.mu.
func (s *visitors) cut(like func(*visitor) bool) bool {
	for e := s.strangers.Front(); e != nil; e = e.Next() {
		if v := e.Value.(*visitor); v.busy == 0 && like(v) {
			s.leave(v)
			_ = v.Conn.Close() // nobody waits for what it says
			return true
		}
	}
	return false
}

// leave counts a connection out, once. Its caller holds s.mu.
func (s *visitors) leave(v *visitor) {
	if v.closed {
		return
	}
	v.closed = true
	if v.idle != nil {
		v.idle.Stop()
	}
	s.open--
	if s.addresses[v.address]--; s.addresses[v.address] == 0 {
		delete(s.addresses, v.address)
	}
	if v.element != nil {
		s.strangers.Remove(v.element)
		v.element = nil
	} else if v.tenant != "" {
		if s.tenants[v.tenant]--; s.tenants[v.tenant] == 0 {
			delete(s.tenants, v.tenant)
		}
	}
}

// Close closes the connection and counts it out.
func (v *visitor) Close() error {
	v.all.mu.Lock()
	v.all.leave(v)
	v.all.mu.Unlock()
	return v.Conn.Close()
}

// expire cuts a stranger whose time is up.
func (v *visitor) expire() {
	v.all.mu.Lock()
	if v.closed || v.element == nil {
		v.all.mu.Unlock()
		return
	}
	if v.busy > 0 {
		v.idle.Reset(busyAgain)
		v.all.mu.Unlock()
		return
	}
	v.all.leave(v)
	v.all.mu.Unlock()
	_ = v.Conn.Close() // nobody waits for what it says
}

// begin and end are around a request.
func (v *visitor) begin() {
	v.all.mu.Lock()
	defer v.all.mu.Unlock()
	v.busy++
}

func (v *visitor) end() {
	v.all.mu.Lock()
	defer v.all.mu.Unlock()
	v.busy--
	if v.element != nil && !v.closed {
		v.all.strangers.MoveToBack(v.element)
		if v.idle != nil {
			v.idle.Reset(v.all.idleFor)
		}
	}
}

// know takes a connection out of the strangers: a good key came over it. It
// reports false where the tenant has too many already. A connection of another
// listener has no tenant.
func (v *visitor) know(tenant string) bool {
	most := v.all.bounds().Tenant
	v.all.mu.Lock()
	defer v.all.mu.Unlock()
	if v.element == nil || v.closed {
		return true
	}
	if tenant != "" && most > 0 && v.all.tenants[tenant] >= most && !planted("no-connection-limit") {
		return false
	}
	v.all.strangers.Remove(v.element)
	v.element, v.tenant = nil, tenant
	if tenant != "" {
		v.all.tenants[tenant]++
	}
	if v.idle != nil {
		v.idle.Stop()
	}
	return true
}

// visitorKey holds the connection of a request.
type visitorKey struct{}

func visitorOf(ctx context.Context) *visitor {
	v, _ := ctx.Value(visitorKey{}).(*visitor)
	return v
}
