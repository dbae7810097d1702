package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/launchgate/launchgate/reference-server/ledger"
)

// frontEnd is a front end over TLS, whoever made it, and what a caller needs.
type frontEnd struct {
	h        *house
	url      string
	ca       *x509.CertPool
	next     netip.Addr // the address of the next client
	backends []*backend
}

// frontEnds are the implementations of the contract: the gateway itself, and nginx
// with deploy/nginx in front of the same replicas, which shows keys to the
// gateway.
var frontEnds = []struct {
	name string
	open func(t *testing.T, d *frontEnd)
}{
	{"gateway", func(t *testing.T, d *frontEnd) {
		dir := t.TempDir()
		certificate, err := DevTLS(dir, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		front, err := d.h.g.Listen("127.0.0.1:0", certificate)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := front.Close(); err != nil {
				t.Error(err)
			}
		})
		d.url, d.ca = "https://"+front.Addr().String(), poolOf(t, dir)
	}},
	{"nginx", startNginx},
}

// TestConformance holds every frontEnd to one contract, from outside.
func TestConformance(t *testing.T) {
	for _, impl := range frontEnds {
		t.Run(impl.name, func(t *testing.T) {
			for _, tt := range conformance {
				t.Run(tt.name, func(t *testing.T) {
					d := &frontEnd{next: netip.MustParseAddr("127.0.1.1")}
					for range tt.replicas {
						d.backends = append(d.backends, newBackend(t, ok))
					}
					c := DefaultConfig()
					c.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} // where nginx asks from
					d.h = newHouse(t, c, openBooks(t), d.backends...)
					impl.open(t, d)
					tt.check(t, d)
				})
			}
		})
	}
}

var conformance = []struct {
	name     string
	replicas int
	check    func(*testing.T, *frontEnd)
}{
	{"TLS is 1.2 or 1.3, and HTTP/2", 1, func(t *testing.T, d *frontEnd) {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			c := d.client(t)
			c.Transport.(*http.Transport).TLSClientConfig.MaxVersion = version
			resp, _ := d.do(t, c, "POST", "/v1/chat/completions", d.h.secret, "q")
			if resp.StatusCode != 200 || resp.ProtoMajor != 2 || resp.TLS.Version != version {
				t.Errorf("%s over %s and TLS %x", resp.Status, resp.Proto, resp.TLS.Version)
			}
		}
		old := &tls.Config{RootCAs: d.ca, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
		if c, err := tls.Dial("tcp", strings.TrimPrefix(d.url, "https://"), old); err == nil {
			c.Close()
			t.Error("TLS 1.1 is accepted")
		}
	}},
	{"TLS 1.2 has only suites that authenticate what they encrypt", 1, func(t *testing.T, d *frontEnd) {
		for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
			if suite.SupportedVersions[0] == tls.VersionTLS13 {
				continue
			}
			c, err := tls.Dial("tcp", strings.TrimPrefix(d.url, "https://"), &tls.Config{RootCAs: d.ca, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite.ID}})
			if err != nil {
				continue
			}
			c.Close()
			if !strings.Contains(suite.Name, "GCM") && !strings.Contains(suite.Name, "POLY1305") || !strings.Contains(suite.Name, "ECDHE") {
				t.Errorf("%s is accepted", suite.Name)
			}
		}
	}},
	{"a certificate names the key of its authority", 1, func(t *testing.T, d *frontEnd) {
		c, err := tls.Dial("tcp", strings.TrimPrefix(d.url, "https://"), &tls.Config{RootCAs: d.ca})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		chain := c.ConnectionState().VerifiedChains[0]
		leaf, ca := chain[0], chain[len(chain)-1]
		if len(leaf.AuthorityKeyId) == 0 || !bytes.Equal(leaf.AuthorityKeyId, ca.SubjectKeyId) || ca.KeyUsage&x509.KeyUsageCertSign == 0 || !ca.BasicConstraintsValid {
			t.Errorf("authority key %x, the authority's %x", leaf.AuthorityKeyId, ca.SubjectKeyId)
		}
	}},
	{"what cannot be read is refused, with the headers of every answer", 1, func(t *testing.T, d *frontEnd) {
		for name, text := range map[string]string{
			"no version":           "GET /health\r\n\r\n",
			"a blank in a name":    "GET /health HTTP/1.1\r\nHost: frontEnd\r\nBad Name: x\r\n\r\n",
			"two hosts":            "GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
			"a long header":        "GET /health HTTP/1.1\r\nHost: frontEnd\r\nX-Long: " + strings.Repeat("x", 100<<10) + "\r\n\r\n",
			"a long path":          "GET /" + strings.Repeat("x", 100<<10) + " HTTP/1.1\r\nHost: frontEnd\r\n\r\n",
			"an unknown coding":    "POST /v1/chat/completions HTTP/1.1\r\nHost: frontEnd\r\nTransfer-Encoding: gzip, gzip\r\n\r\n",
			"a negative length":    "POST /v1/chat/completions HTTP/1.1\r\nHost: frontEnd\r\nContent-Length: -1\r\n\r\n",
			"two lengths":          "POST /v1/chat/completions HTTP/1.1\r\nHost: frontEnd\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
			"nobody's expectation": "POST /health HTTP/1.1\r\nHost: frontEnd\r\nExpect: the best\r\nContent-Length: 1\r\n\r\nx",
			"OPTIONS *":            "OPTIONS * HTTP/1.1\r\nHost: frontEnd\r\n\r\n",
			"TRACE":                "TRACE /v1/models HTTP/1.1\r\nHost: frontEnd\r\n\r\n",
			"CONNECT":              "CONNECT frontEnd:443 HTTP/1.1\r\nHost: frontEnd:443\r\n\r\n",
		} {
			resp, body := d.rawResponse(t, text)
			if name == "no version" && resp == nil {
				continue // as HTTP/0.9, of before there were headers
			}
			if resp == nil || resp.StatusCode < 400 && name != "nobody's expectation" {
				t.Errorf("%s: %+v %s", name, resp, body)
				continue
			}
			got := resp.Header.Values("X-Content-Type-Options")
			if len(got) != 1 || got[0] != "nosniff" || len(resp.Header.Values("Cache-Control")) != 1 || resp.Header.Get("Strict-Transport-Security") == "" {
				t.Errorf("%s: %s %v", name, resp.Status, resp.Header)
			}
		}
		if n := d.backends[0].served.Load(); n != 0 {
			t.Errorf("a replica was asked %d times", n)
		}
	}},
	{"one reading of where a request ends", 1, func(t *testing.T, d *frontEnd) {
		key := "Authorization: Bearer " + d.h.secret + "\r\n"
		for name, text := range map[string]string{
			"length and chunks":    "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
			"chunks in a blank":    "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
			"chunks by a tab":      "Transfer-Encoding:\tchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
			"chunks that are none": "Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
			"a size by 0x":         "Transfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n",
			"a huge size":          "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nx\r\n0\r\n\r\n",
			"a length with a plus": "Content-Length: +5\r\n\r\n12345",
			"a list of lengths":    "Content-Length: 5, 5\r\n\r\n12345",
		} {
			before := d.backends[0].served.Load()
			smuggled := "GET /v1/smuggled HTTP/1.1\r\nHost: frontEnd\r\n" + key + "\r\n"
			_, _ = d.rawResponse(t, "POST /v1/chat/completions HTTP/1.1\r\nHost: frontEnd\r\n"+key+text+smuggled)
			if n := d.backends[0].served.Load() - before; n > 2 {
				t.Errorf("%s: the replica was asked %d times", name, n)
			}
		}
	}},
	{"no spelling of a path needs no key", 1, func(t *testing.T, d *frontEnd) {
		for _, path := range []string{"/v1/models", "//v1/models", "/v1/./models", "/health/../v1/models", "/health/%2e%2e/v1/models", "/%76%31/models", "/v1%2fmodels", "/v1/models%00", "/v1/models/", "/v1/models;a=b", "/V1/models", "/v1/models?x=/health"} {
			for _, method := range []string{"GET", "HEAD", "OPTIONS", "POST", "PUT", "FOO"} {
				resp, body := d.rawResponse(t, method+" "+path+" HTTP/1.1\r\nHost: frontEnd\r\nConnection: close\r\n\r\n")
				if resp == nil || resp.StatusCode < 300 {
					t.Errorf("%s %s: %+v %s", method, path, resp, body)
				}
			}
		}
		if n := d.backends[0].served.Load(); n != 0 {
			t.Errorf("a replica was asked %d times", n)
		}
	}},
	{"the scheme of a key is in any case", 1, func(t *testing.T, d *frontEnd) {
		for scheme, want := range map[string]int{"Bearer": 200, "bearer": 200, "BEARER": 200, "Basic": 401, "Bearerx": 401, "": 401} {
			req := d.request("POST", "/v1/chat/completions", "", "q")
			req.Header.Set("Authorization", scheme+" "+d.h.secret)
			resp, err := d.client(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%q: %s, want %d", scheme, resp.Status, want)
			}
		}
	}},
	{"a limit of a key holds in any spelling", 1, func(t *testing.T, d *frontEnd) {
		began, passed, asked := time.Now(), 0, 0
		for i := range 12 {
			c := d.client(t)
			for range 18 {
				req := d.request("POST", "/v1/chat/completions", "", "q")
				req.Header.Set("Authorization", []string{"Bearer", "bearer", "BEARER", "bEARER"}[i%4]+" "+d.h.secret)
				resp, err := c.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				asked++
				if resp.StatusCode == 200 {
					passed++
				}
			}
		}
		if most := 101 + int(100*time.Since(began).Seconds()) + 1; passed > most {
			t.Errorf("%d of %d passed, want %d at the most", passed, asked, most)
		}
	}},
	{"what a client says of its address is not believed", 1, func(t *testing.T, d *frontEnd) {
		c, passed, began := d.client(t), 0, time.Now()
		for i := range 60 {
			req := d.request("POST", "/v1/chat/completions", d.h.secret, "q")
			for _, name := range []string{"X-Forwarded-For", "X-Real-IP", "Forwarded", "True-Client-IP", "CF-Connecting-IP"} {
				req.Header.Set(name, fmt.Sprintf("10.0.0.%d", i))
			}
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode == 200 {
				passed++
			}
		}
		if most := 21 + int(10*time.Since(began).Seconds()) + 1; passed > most {
			t.Errorf("%d of 60 passed, want %d at the most", passed, most)
		}
	}},
	{"keys are asked for", 1, func(t *testing.T, d *frontEnd) {
		revoked := d.h.key(ledger.Key{ID: "revoked", Scopes: []string{"inference"}})
		if err := d.h.books.RevokeKey(t.Context(), "revoked"); err != nil {
			t.Fatal(err)
		}
		expired := d.h.key(ledger.Key{ID: "expired", Scopes: []string{"inference"}, Expires: time.Now().Add(-time.Second)})
		other := d.h.key(ledger.Key{ID: "other", Scopes: []string{"admin"}})
		for _, tt := range []struct {
			name, secret string
			status       int
			kind, code   string
		}{
			{"good", d.h.secret, 200, "", ""},
			{"none", "", 401, "authentication_error", "missing_api_key"},
			{"unknown", ledger.NewSecret(), 401, "authentication_error", "invalid_api_key"},
			{"revoked", revoked, 401, "authentication_error", "invalid_api_key"},
			{"expired", expired, 401, "authentication_error", "invalid_api_key"},
			{"another scope", other, 403, "permission_error", "missing_scope"},
		} {
			resp, body := d.ask(t, "POST", "/v1/chat/completions", tt.secret, "q")
			if resp.StatusCode != tt.status {
				t.Errorf("%s: %s %s", tt.name, resp.Status, body)
			}
			if tt.status != 200 {
				refused(t, tt.name, resp, body, tt.kind, tt.code)
			}
			if (resp.Header.Get("WWW-Authenticate") == "Bearer") != (tt.status == 401) {
				t.Errorf("%s: WWW-Authenticate %q", tt.name, resp.Header.Get("WWW-Authenticate"))
			}
		}
		if n := d.backends[0].served.Load(); n != 1 {
			t.Errorf("a replica got %d requests, want the one with the good key", n)
		}
	}},
	{"security headers are on every answer", 1, func(t *testing.T, d *frontEnd) {
		for _, path := range []string{"/v1/chat/completions", "/admin", "/health"} {
			for _, secret := range []string{d.h.secret, ""} {
				resp, _ := d.ask(t, map[bool]string{true: "GET", false: "POST"}[path == "/health"], path, secret, "")
				for name, want := range map[string]string{
					"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
					"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
				} {
					if got := resp.Header.Values(name); len(got) != 1 || got[0] != want {
						t.Errorf("%s (%s): %s is %q", path, resp.Status, name, got)
					}
				}
			}
		}
	}},
	{"only what is served is served", 1, func(t *testing.T, d *frontEnd) {
		for path, want := range map[string]int{"/admin": 404, "/metrics": 404, "/": 404, "/health": 200, "/ready": 200} {
			resp, body := d.ask(t, "GET", path, "", "")
			if resp.StatusCode != want || want == 200 && !strings.Contains(body, `"status":`) {
				t.Errorf("%s: %s %s", path, resp.Status, body)
			}
			if want == 404 {
				refused(t, path, resp, body, "invalid_request_error", "not_found")
			}
		}
	}},
	{"an address has its limit, and others theirs", 1, func(t *testing.T, d *frontEnd) {
		c, began := d.client(t), time.Now()
		passed, last := 0, (*http.Response)(nil)
		for range 60 {
			resp, body := d.do(t, c, "POST", "/v1/chat/completions", d.h.secret, "q")
			if resp.StatusCode == 200 {
				passed++
				continue
			}
			last = resp
			refused(t, "past the limit", resp, body, "rate_limit_error", "rate_limit_exceeded")
		}
		most := 21 + int(10*time.Since(began).Seconds()) + 1
		if passed < 20 || passed > most || last == nil || last.StatusCode != 429 || last.Header.Get("Retry-After") == "" {
			t.Errorf("%d of 60 passed, want 20 to %d; the last refusal is %+v", passed, most, last)
		}
		if resp, _ := d.ask(t, "POST", "/v1/chat/completions", d.h.secret, "q"); resp.StatusCode != 200 {
			t.Errorf("another address: %s", resp.Status)
		}
	}},
	{"a key has its limit wherever it comes from", 1, func(t *testing.T, d *frontEnd) {
		other := d.h.key(ledger.Key{ID: "other", Scopes: []string{"inference"}})
		began, passed, limited := time.Now(), 0, 0
		for range 12 {
			c := d.client(t)
			for range 18 {
				if resp, _ := d.do(t, c, "POST", "/v1/chat/completions", d.h.secret, "q"); resp.StatusCode == 200 {
					passed++
				} else if resp.StatusCode == 429 {
					limited++
				}
			}
		}
		most := 101 + int(100*time.Since(began).Seconds()) + 1
		if passed < 100 || passed > most || passed+limited != 216 {
			t.Errorf("%d of 216 passed and %d were limited, want 100 to %d", passed, limited, most)
		}
		if most < 216 && limited == 0 {
			t.Error("no request was limited")
		}
		if resp, _ := d.ask(t, "POST", "/v1/chat/completions", other, "q"); resp.StatusCode != 200 {
			t.Errorf("another key: %s", resp.Status)
		}
	}},
	{"a body has its limit", 1, func(t *testing.T, d *frontEnd) {
		if resp, body := d.ask(t, "POST", "/v1/chat/completions", d.h.secret, strings.Repeat("x", 7<<20)); resp.StatusCode != 200 {
			t.Errorf("7 MiB: %s %.100s", resp.Status, body)
		}
		resp, body := d.ask(t, "POST", "/v1/chat/completions", d.h.secret, strings.Repeat("x", 9<<20))
		if resp.StatusCode != 413 {
			t.Errorf("9 MiB: %s", resp.Status)
		}
		refused(t, "9 MiB", resp, body, "invalid_request_error", "too_large")
	}},
	{"a refusal does not wait for a body that never comes", 1, func(t *testing.T, d *frontEnd) {
		if head, body := d.raw(t, "POST /v1/chat/completions HTTP/1.1\r\nHost: frontEnd\r\nContent-Length: 1000\r\n\r\n{"); !strings.Contains(head, " 401 ") || !strings.Contains(body, "missing_api_key") {
			t.Errorf("%s %s", head, body)
		}
	}},
	{"replicas learn no key, and a request has an id", 1, func(t *testing.T, d *frontEnd) {
		saw := make(chan http.Header, 2)
		d.backends[0].answer.Store(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { saw <- r.Header; ok(w, r) }))
		first, _ := d.ask(t, "POST", "/v1/chat/completions", d.h.secret, "q")
		second, _ := d.ask(t, "POST", "/v1/chat/completions", d.h.secret, "q")
		if h := <-saw; h.Get("Authorization") != "" {
			t.Errorf("the replica got %v", h)
		}
		if a, b := first.Header.Values("X-Request-Id"), second.Header.Values("X-Request-Id"); len(a) != 1 || len(b) != 1 || a[0] == b[0] {
			t.Errorf("ids %q and %q", a, b)
		}
	}},
	{"events are passed on as they come", 1, func(t *testing.T, d *frontEnd) {
		next := make(chan struct{})
		d.backends[0].answer.Store(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for i := range 3 {
				fmt.Fprintf(w, "data: %d\n\n", i)
				w.(http.Flusher).Flush()
				<-next
			}
		}))
		resp := d.stream(t, d.client(t))
		lines := bufio.NewReader(resp.Body)
		for i := range 3 {
			if got, err := lines.ReadString('\n'); err != nil || got != fmt.Sprintf("data: %d\n", i) {
				t.Fatalf("%q %v", got, err)
			}
			_, _ = lines.ReadString('\n')
			next <- struct{}{} // the replica goes on only now
		}
		if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
			t.Errorf("%q %v", rest, err)
		}
	}},
	{"what fails before its first byte is tried on another replica", 2, func(t *testing.T, d *frontEnd) {
		d.backends[0].answer.Store(http.HandlerFunc(die))
		for range 3 {
			if resp, body := d.ask(t, "POST", "/v1/chat/completions", d.h.secret, "question"); resp.StatusCode != 200 || body != "ok /v1/chat/completions question" {
				t.Errorf("%s %s", resp.Status, body)
			}
		}
		if d.backends[0].served.Load() == 0 {
			t.Error("the replica that fails was never tried")
		}
	}},
	{"what was begun is never repeated, and its end is no silent cut", 2, func(t *testing.T, d *frontEnd) {
		for _, b := range d.backends {
			b.answer.Store(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				fmt.Fprint(w, "data: one\n\n")
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}))
		}
		body, err := io.ReadAll(d.stream(t, d.client(t)).Body)
		if err == nil || !strings.HasPrefix(string(body), "data: one\n\n") || strings.Count(string(body), "data: one") != 1 {
			t.Errorf("%q %v", body, err)
		}
		if n := d.backends[0].served.Load() + d.backends[1].served.Load(); n != 1 {
			t.Errorf("%d replicas were asked", n)
		}
	}},
	{"a replica that is busy is spared", 2, func(t *testing.T, d *frontEnd) {
		held := make(chan struct{})
		begun := make(chan struct{}, 1)
		for _, b := range d.backends {
			b.answer.Store(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if body, _ := io.ReadAll(r.Body); string(body) == "stream" {
					w.(http.Flusher).Flush()
					begun <- struct{}{}
					<-held
				}
			}))
		}
		var waiting sync.WaitGroup
		c := d.client(t)
		waiting.Go(func() { d.do(t, c, "POST", "/v1/chat/completions", d.h.secret, "stream") })
		<-begun
		for range 6 {
			d.ask(t, "POST", "/v1/chat/completions", d.h.secret, "q")
		}
		close(held)
		waiting.Wait()
		if a, b := d.backends[0].served.Load(), d.backends[1].served.Load(); min(a, b) != 1 || max(a, b) != 6 {
			t.Errorf("the replicas got %d and %d requests, want 1 and 6", a, b)
		}
	}},
	{"without replicas there is an error to retry after", 2, func(t *testing.T, d *frontEnd) {
		for _, b := range d.backends {
			b.Close()
		}
		resp, body := d.ask(t, "POST", "/v1/chat/completions", d.h.secret, "q")
		if resp.StatusCode != 502 && resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s %v %s", resp.Status, resp.Header, body)
		}
		refused(t, "no replica", resp, body, "server_error", "")
	}},
	{"a replica's own refusal is passed on", 1, func(t *testing.T, d *frontEnd) {
		d.backends[0].answer.Store(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusTooManyRequests)
			fmt.Fprint(w, "full")
		}))
		resp, body := d.ask(t, "POST", "/v1/chat/completions", d.h.secret, "q")
		if got := resp.Header.Values("Retry-After"); resp.StatusCode != 429 || body != "full" || len(got) != 1 || got[0] != "7" {
			t.Errorf("%s %q %s", resp.Status, got, body)
		}
	}},
	{"without the ledger nobody passes", 1, func(t *testing.T, d *frontEnd) {
		d.h.books.Close()
		resp, body := d.ask(t, "POST", "/v1/chat/completions", d.h.secret, "q")
		if resp.StatusCode != 503 || d.backends[0].served.Load() != 0 {
			t.Errorf("%s %s", resp.Status, body)
		}
		refused(t, "no ledger", resp, body, "server_error", "")
	}},
}

// refused asserts that a refusal comes in OpenAI's shape.
func refused(t *testing.T, name string, resp *http.Response, body, kind, code string) {
	t.Helper()
	var e struct {
		Error struct{ Message, Type, Code string }
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil || e.Error.Message == "" || e.Error.Type != kind || code != "" && e.Error.Code != code ||
		!strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		t.Errorf("%s: %s %s: %s; want type %s, code %s", name, resp.Status, resp.Header.Get("Content-Type"), body, kind, code)
	}
}

// client is one with an address of its own, so that limits of addresses do not
// add up.
func (d *frontEnd) client(t *testing.T) *http.Client {
	t.Helper()
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: d.next.AsSlice()}}
	d.next = d.next.Next()
	transport := &http.Transport{DialContext: from.DialContext, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: d.ca}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

func (d *frontEnd) ask(t *testing.T, method, path, secret, body string) (*http.Response, string) {
	t.Helper()
	return d.do(t, d.client(t), method, path, secret, body)
}

// do may be called from any goroutine.
func (d *frontEnd) do(t *testing.T, c *http.Client, method, path, secret, body string) (*http.Response, string) {
	t.Helper()
	resp, err := c.Do(d.request(method, path, secret, body))
	if err != nil {
		t.Error(err)
		return &http.Response{}, ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp, string(b)
}

// raw sends what a client of the library would not, and returns the head and the
// body of the answer.
func (d *frontEnd) raw(t *testing.T, text string) (head, body string) {
	t.Helper()
	from := &tls.Dialer{Config: &tls.Config{RootCAs: d.ca, NextProtos: []string{"http/1.1"}}}
	c, err := from.DialContext(t.Context(), "tcp", strings.TrimPrefix(d.url, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second)) // sooner than a body may take
	sent := make(chan struct{})
	go func() { _, _ = io.WriteString(c, text); close(sent) }() // it may be cut short
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	c.Close()
	<-sent
	return resp.Proto + " " + resp.Status + " ", string(b)
}

// rawResponse is the answer to what a client of the library would not send; nil
// where the connection was closed without one.
func (d *frontEnd) rawResponse(t *testing.T, text string) (*http.Response, string) {
	t.Helper()
	from := &tls.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: d.next.AsSlice()}}, Config: &tls.Config{RootCAs: d.ca, NextProtos: []string{"http/1.1"}}}
	d.next = d.next.Next()
	c, err := from.DialContext(t.Context(), "tcp", strings.TrimPrefix(d.url, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	sent := make(chan struct{})
	go func() { _, _ = io.WriteString(c, text); close(sent) }() // it may be cut short
	defer func() { c.Close(); <-sent }()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return nil, ""
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp, string(b)
}

func (d *frontEnd) request(method, path, secret, body string) *http.Request {
	req, err := http.NewRequest(method, d.url+path, strings.NewReader(body))
	if err != nil {
		panic(err) // the tests know their paths
	}
	if secret != "" {
		req.Header.Set("Authorization", "Bearer "+secret)
	}
	return req
}

func (d *frontEnd) stream(t *testing.T, c *http.Client) *http.Response {
	t.Helper()
	resp, err := c.Do(d.request("POST", "/v1/chat/completions", d.h.secret, `{"stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func poolOf(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatal("ca.pem holds no certificate")
	}
	return pool
}

// nginxProgram is where distributions put it, which is not on everybody's PATH.
func nginxProgram() (string, error) {
	if path, err := exec.LookPath("nginx"); err == nil {
		return path, nil
	}
	return exec.LookPath("/usr/sbin/nginx")
}

// startNginx serves deploy/nginx/nginx.conf as it is, with upstreams and an
// address of the test's own beside it.
func startNginx(t *testing.T, d *frontEnd) {
	program, err := nginxProgram()
	if err != nil {
		t.Skip("skipped: nginx is not installed")
	}
	dir := t.TempDir()
	if _, err := DevTLS(dir, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	d.ca = poolOf(t, dir)
	conf, err := os.ReadFile(filepath.Join("..", "..", "deploy", "nginx", "nginx.conf"))
	if err != nil {
		t.Fatal(err)
	}
	shipped, err := os.ReadFile(filepath.Join("..", "..", "deploy", "nginx", "upstreams.conf"))
	if err != nil {
		t.Fatal(err)
	}
	// The shipped list with the test's own servers in it.
	var upstreams strings.Builder
	written := false
	for line := range strings.Lines(string(shipped)) {
		switch {
		case strings.Contains(line, "server 127.0.0.1:8000"):
			fmt.Fprintf(&upstreams, "  server %s;\n", host(d.h.url))
		case !strings.Contains(line, "server 127.0.0.1:"):
			upstreams.WriteString(line)
		case !written:
			written = true
			for _, b := range d.backends {
				fmt.Fprintf(&upstreams, "  server %s max_fails=3 fail_timeout=30s;\n", host(b.URL))
			}
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
	if err != nil {
		t.Fatal(err)
	}
	at := listener.Addr().String()
	listener.Close()
	d.url = "https://" + at
	for name, text := range map[string]string{
		"nginx.conf": string(conf), "upstreams.conf": upstreams.String(),
		"listen.conf": fmt.Sprintf("listen %s ssl http2;\nssl_certificate cert.pem;\nssl_certificate_key key.pem;\n"+
			"client_body_temp_path body;\nproxy_temp_path proxy;\n", at), // the folders below /var are only root's
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	global := "daemon off; worker_processes 2; pid nginx.pid; error_log stderr warn;"
	if os.Getuid() == 0 {
		global += " user root;"
	}
	cmd := exec.Command(program, "-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", "stderr", "-g", global)
	log := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
		}
		if t.Failed() {
			t.Logf("nginx: %s", log)
			if audit, err := os.ReadFile(filepath.Join(dir, "audit.log")); err == nil {
				t.Logf("audit log: %s", lastLines(audit, 5))
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		if c, err := net.Dial("tcp", at); err == nil {
			c.Close()
			return
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("nginx ended: %v %s", err, log)
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatalf("nginx never listened: %s", log)
}

func host(of string) string {
	u, err := url.Parse(of)
	if err != nil {
		panic(err) // a test server's own
	}
	return u.Host
}

func lastLines(b []byte, n int) []byte {
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-n):], []byte("\n"))
}
