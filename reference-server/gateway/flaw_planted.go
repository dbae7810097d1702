//go:build flaws

package gateway

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/launchgate/launchgate/reference-server/ledger"
)

// Flaws are the values of LAUNCHGATE_FLAW, which plants vulnerabilities in a
// gateway that was built with the tag flaws. launchgate scan has to find each of
// them. Several are separated by commas.
var Flaws = []string{
	"skip-auth-for",            // =PATH, =double-slash or =OPTIONS: requests like that need no key
	"accept-any-key",           // every key is good
	"accept-prefix",            // the beginning of a key that was used is good
	"responses-without-tenant", // a background response is anybody's who knows its id
	"trust-x-forwarded-for",    // limits count by what the client says of its address
	"no-limit",                 // neither addresses nor keys have a limit of requests
	"unlimited-validate",       // /validate has no limit of requests
	"eject-on-client-error",    // a request that is refused with 400 counts against a replica
	"no-header-timeout",        // a connection may be idle, and headers may take, for ever
	"no-body-timeout",          // a body may take for ever
	"no-connection-limit",      // an address may have any number of connections
	"shed-by-open-streams",     // answers that their clients do not read count as load
	"unfair-shedding",          // under load, requests are refused regardless of the tenant that makes the load
	"usage-by-exact-key",       // names in another case are understood, and what they ask for is not billed
	"usage-only-at-end",        // a stream that is left before its end is not billed
	"tls10",                    // TLS 1.0 and 1.1 are spoken
	"weak-cipher",              // TLS 1.2 has suites of CBC and RC4
	"expired",                  // the certificate has expired
	"no-aki",                   // the certificate does not name its authority's key
	"no-hsts",                  // Strict-Transport-Security is not sent
	"no-security-headers",      // no security header is sent
	"log-prompts",              // bodies of requests are logged
	"echo-key",                 // a refusal repeats the key
	"stack-trace",              // a refusal tells where in the program it was made
	"inside-errors",            // errors name replicas and their addresses
	"metrics-on-gateway",       // /metrics is served at the port of the API
	"pprof",                    // /debug/pprof/ is served at the port of the API
	"cors-reflect",             // every Origin is allowed, with credentials
	"raw-audit-line",           // the audit log has what the client sent as it is
}

var plantedFlaws = sync.OnceValue(func() map[string]string {
	flaws := map[string]string{}
	for f := range strings.SplitSeq(os.Getenv("LAUNCHGATE_FLAW"), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(f), "=")
		if name != "" && slices.Contains(Flaws, name) { // other flaws are for the replica
			flaws[name] = value
			fmt.Fprintln(os.Stderr, "gateway: planted the flaw", f)
		}
	}
	return flaws
})

func planted(name string) bool { _, is := plantedFlaws()[name]; return is }

// plantedFor reports whether a flaw is planted for a value, as in NAME=VALUE.
func plantedFor(name, value string) bool {
	v, is := plantedFlaws()[name]
	return is && v == value
}

// used are valid secrets that were used, for accept-prefix, because the ledger has
// only hashes.
var used sync.Map // of ledger.Key

func (g *guard) prefixed(secret string, key ledger.Key, err error) (ledger.Key, error) {
	if err == nil {
		used.Store(secret, key)
		return key, nil
	}
	used.Range(func(whole, of any) bool {
		if len(secret) < 8 || !strings.HasPrefix(whole.(string), secret) {
			return true
		}
		key, err = of.(ledger.Key), nil
		return false
	})
	return key, err
}

// withoutKey reports whether skip-auth-for lets a request pass without a key.
func (g *Gateway) withoutKey(r *http.Request) bool {
	spelled, _ := r.Context().Value(spelledKey{}).(string)
	return plantedFor("skip-auth-for", r.URL.Path) || spelled != "" && plantedFor("skip-auth-for", spelled)
}

// spelledKey holds the original spelling of a request that misled has normalized.
type spelledKey struct{}

// misled is what the gateway does before it asks for a key, and should not.
func (g *Gateway) misled(w http.ResponseWriter, r *http.Request) *http.Request {
	if origin := r.Header.Get("Origin"); origin != "" && planted("cors-reflect") {
		w.Header().Set("Access-Control-Allow-Origin", origin)
		w.Header().Set("Access-Control-Allow-Credentials", "true")
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
	}
	spelled := ""
	switch {
	case strings.HasPrefix(r.URL.Path, "//") && plantedFor("skip-auth-for", "double-slash"):
		spelled = "double-slash"
	case r.Method == http.MethodOptions && plantedFor("skip-auth-for", "OPTIONS"):
		spelled = "OPTIONS"
	default:
		return r
	}
	r = r.Clone(context.WithValue(r.Context(), spelledKey{}, spelled))
	r.URL.Path, r.URL.RawPath = "/"+strings.TrimLeft(r.URL.Path, "/"), ""
	if r.Method == http.MethodOptions {
		r.Method = http.MethodGet
		if r.ContentLength != 0 {
			r.Method = http.MethodPost
		}
	}
	return r
}

// openRoutes serves what belongs on the port of the metrics.
func (g *Gateway) openRoutes(mux *http.ServeMux) {
	if planted("metrics-on-gateway") {
		mux.Handle("GET /metrics", g.metrics.handler())
	}
	if planted("pprof") {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
	}
}

// weaken applies the planted flaws to the configuration of TLS.
func weaken(r *renewable) {
	if planted("tls10") {
		r.config.MinVersion = tls.VersionTLS10
		r.config.CipherSuites = append(r.config.CipherSuites, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA)
	}
	if planted("weak-cipher") {
		r.config.CipherSuites = append(r.config.CipherSuites, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA)
	}
	if planted("expired") {
		if pair, err := tls.LoadX509KeyPair(filepath.Join(filepath.Dir(r.cert), "expired.pem"), r.key); err == nil {
			r.config.Certificates = []tls.Certificate{pair}
		}
	}
}

// accuse counts a failure against the replica that would have got the request.
func (b *balancer) accuse() {
	if rep := b.acquire(nil, 1); rep != nil {
		b.release(rep, 1)
		b.failed(rep)
	}
}

// misspelled accepts names in another case, without billing what they ask for.
func misspelled(c *call, body []byte) []byte {
	if !planted("usage-by-exact-key") || !json.Valid(body) || len(body) == 0 || body[0] != '{' {
		return body
	}
	fields, no := fieldsOf(body)
	if no != nil {
		return body
	}
	q := &question{}
	for _, f := range fields {
		plain := strings.ToLower(strings.ReplaceAll(f.name, "ſ", "s"))
		c.unbilled = c.unbilled || plain != f.name
		q.set(plain, f.value)
	}
	return q.bytes()
}

// owners maps responses to their tenants, for responses-without-tenant.
var owners sync.Map

func owns(id, tenant string) { owners.Store(id, tenant) }

func ownerOf(id, tenant string) string {
	if owner, is := owners.Load(id); is && planted("responses-without-tenant") {
		return owner.(string)
	}
	return tenant
}
