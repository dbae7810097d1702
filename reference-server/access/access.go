// Package access decides who may send requests to a replica. With a secret,
// only its gateway may, which shows that it has the same secret. Without one,
// everybody on this host may. The package also reads for whom the gateway sends
// a request.
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

	"github.com/launchgate/launchgate/internal/flaws"
	"github.com/launchgate/launchgate/reference-server/engine"
)

// Headers from a gateway to its replicas. Those about the caller are valid only
// together with the right secret. Over gRPC they are metadata with the same
// names in lower case.
const (
	HeaderSecret = "X-Launchgate-Secret"
	HeaderTenant = "X-Launchgate-Tenant" // whose request it is
	HeaderClass  = "X-Launchgate-Class"  // interactive, standard, batch, background, or 3 to 0
	HeaderWeight = "X-Launchgate-Weight" // weight of the tenant within its class, 1 to 100

	HeaderRequest = "X-Launchgate-Request" // the gateway's id of a request, with which it asks for the usage
)

const (
	leastSecret = 16  // bytes
	longTenant  = 256 // bytes
)

// Policy says whose requests a replica answers.
type Policy struct {
	Secret string   // shared with the gateway; empty: none
	Hosts  []string // Host names allowed without a secret, besides addresses and localhost
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

// Proven reports whether the caller has the secret. It is false if there is
// none.
func (p Policy) Proven(secret string) bool {
	want, got := sha256.Sum256([]byte(p.Secret)), sha256.Sum256([]byte(secret))
	return p.Secret != "" && subtle.ConstantTimeCompare(want[:], got[:]) == 1
}

// Caller reads for whom the gateway sends a request; get finds a header. A
// request that does not come from a gateway has no caller.
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
// web page in a browser on this host can send requests to its ports. Such a
// request names its page in Origin. After DNS rebinding, it names the page's
// host in Host.
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

// named reports whether a Host header is one that the replica accepts.
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
