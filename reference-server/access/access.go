// Package access decides who may ask a replica: its gateway, which proves it by
// a secret that both have, and, where there is none, whoever is on this host. It
// reads for whom the gateway asks.
package access

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/launchgate/launchgate/reference-server/engine"
	"github.com/launchgate/launchgate/reference-server/flaws"
)

// Headers from a gateway to its replicas. Those about the caller count only
// beside the right secret. Over gRPC they are metadata of the same names, in
// lower case.
const (
	HeaderSecret = "X-Launchgate-Secret"
	HeaderTenant = "X-Launchgate-Tenant" // whose request it is
	HeaderClass  = "X-Launchgate-Class"  // interactive, standard, batch, background, or 3 to 0
	HeaderWeight = "X-Launchgate-Weight" // of the tenant among those of its class, 1 to 100

	HeaderRequest = "X-Launchgate-Request" // the gateway's name for a request, by which it asks what was used
)

const (
	leastSecret = 16  // bytes
	longTenant  = 256 // bytes
)

// Policy says whom a replica answers.
type Policy struct {
	Secret string   // that the gateway has too; empty: there is none
	Hosts  []string // names under which the replica may be asked without a secret, beside addresses and localhost
}

// ReadSecret reads the secret from a file, which nobody else should be able to
// read. Blanks around it do not count.
func ReadSecret(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("the secret of gateway and replicas: %w", err)
	}
	return CheckSecret(strings.TrimSpace(string(b)))
}

// CheckSecret refuses a secret that could be guessed or not be sent in a header.
func CheckSecret(s string) (string, error) {
	if len(s) < leastSecret {
		return "", fmt.Errorf("the secret of gateway and replicas: found %d characters, expected at least %d; openssl rand -hex 32 makes one", len(s), leastSecret)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errors.New("the secret of gateway and replicas: found blanks or characters that are not ASCII, expected letters and digits")
	}
	return s, nil
}

// Proven reports whether who asks knows the secret. Without one nobody does.
func (p Policy) Proven(secret string) bool {
	want, got := sha256.Sum256([]byte(p.Secret)), sha256.Sum256([]byte(secret))
	return p.Secret != "" && subtle.ConstantTimeCompare(want[:], got[:]) == 1
}

// Caller reads for whom the gateway asks; get finds a header. A request that
// does not come from a gateway is nobody's.
func (p Policy) Caller(get func(name string) string) (engine.Caller, error) {
	if !p.Proven(get(HeaderSecret)) {
		return engine.Caller{Class: engine.Standard}, nil
	}
	c := engine.Caller{Tenant: get(HeaderTenant), Class: engine.Standard, Weight: 1}
	if len(c.Tenant) > longTenant {
		return c, fmt.Errorf("%s: found %d bytes, expected up to %d", HeaderTenant, len(c.Tenant), longTenant)
	}
	if name := get(HeaderClass); name != "" {
		class, ok := engine.ParseClass(name)
		if !ok {
			return c, fmt.Errorf("%s: found %.40q, expected interactive, standard, batch, background or a number from 3 to 0", HeaderClass, name)
		}
		c.Class = class
	}
	if weight := get(HeaderWeight); weight != "" {
		n, err := strconv.Atoi(weight)
		if err != nil || n < 1 || n > engine.MostWeight {
			return c, fmt.Errorf("%s: found %.40q, expected a number from 1 to %d", HeaderWeight, weight, engine.MostWeight)
		}
		c.Weight = n
	}
	return c, nil
}

// Refusal is why a request is not answered.
type Refusal struct {
	Status     int
	Code, Text string
}

// Check says why a request over HTTP may not be answered; nil when it may. Any
// page that a browser on this host shows can send requests to a port of it:
// such a request tells of its page in Origin, or, when the page has its own name
// lead here, in Host.
func (p Policy) Check(r *http.Request) *Refusal {
	switch {
	case flaws.On("no-secret-check"):
		return nil
	case p.Secret != "" && !p.Proven(r.Header.Get(HeaderSecret)):
		return &Refusal{http.StatusUnauthorized, "not_from_gateway", "this replica answers its gateway only; ask the gateway"}
	case p.Secret != "":
		return nil
	case !p.named(r.Host):
		return &Refusal{http.StatusMisdirectedRequest, "wrong_host", fmt.Sprintf("the Host %.80q is none of this replica's; an address, localhost and those of --allow-host are", r.Host)}
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		if u, err := url.Parse(origin); err != nil || u.Host != r.Host {
			return &Refusal{http.StatusForbidden, "foreign_origin", "a page of another origin may not ask this replica"}
		}
	}
	return nil
}

// named reports whether a Host is one under which the replica may be asked.
func (p Policy) named(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSuffix(strings.ToLower(name), "."), "["), "]")
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	return name == "localhost" || slices.ContainsFunc(p.Hosts, func(h string) bool { return strings.EqualFold(h, name) || strings.EqualFold(h, host) })
}
