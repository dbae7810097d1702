package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/reference-server/ledger"
)

// frontEndOf opens the front end of a house over TLS.
func frontEndOf(t *testing.T, h *house) (front *Listener, trust *tls.Config) {
	t.Helper()
	dir := t.TempDir()
	certificate, err := DevTLS(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	front, err = h.g.Listen("127.0.0.1:0", certificate)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := front.Close(); err != nil {
			t.Error(err)
		}
	})
	return front, &tls.Config{RootCAs: poolOf(t, dir), NextProtos: []string{"http/1.1"}}
}

// from connects from an address of its own.
func from(t *testing.T, front *Listener, trust *tls.Config, address, protocol string) (*tls.Conn, error) {
	t.Helper()
	config := trust.Clone()
	config.NextProtos = []string{protocol}
	d := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}, Config: config}
	c, err := d.DialContext(t.Context(), "tcp", front.Addr().String())
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	return c.(*tls.Conn), nil
}

// chat asks over a connection and returns the status of the answer.
func chat(c net.Conn, secret string) (int, error) {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: frontEnd\r\nAuthorization: Bearer %s\r\nContent-Length: 2\r\n\r\n{}", secret); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

const (
	preface  = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	ping     = "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"
	header   = "\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82" // a part of the headers of stream 1
	more     = "\x00\x00\x00\x09\x00\x00\x00\x00\x01"     // nothing more of them
)

// Headers and idle connections are bounded over TLS and in clear.
func TestListenIsBounded(t *testing.T) {
	certified := httptest.NewUnstartedServer(nil)
	certified.StartTLS()
	defer certified.Close()
	for name, certificate := range map[string]*tls.Config{"http": nil, "https": {Certificates: certified.TLS.Certificates}} {
		t.Run(name, func(t *testing.T) {
			l, err := Listen("127.0.0.1:0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), certificate, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			for _, s := range []*http.Server{l.h1, l.h2} {
				if s.IdleTimeout <= 90*time.Second { // the callers' own
					t.Errorf("idle connections are closed after %s", s.IdleTimeout)
				}
			}
			client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
			defer client.CloseIdleConnections()
			for size, want := range map[int]int{1 << 10: http.StatusOK, 2 * headerLimit: http.StatusRequestHeaderFieldsTooLarge} {
				req, err := http.NewRequest(http.MethodGet, name+"://"+l.Addr().String(), nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("X-Long", strings.Repeat("x", size))
				resp, err := client.Do(req)
				if err != nil {
					t.Fatalf("%d bytes of headers: %v", size, err)
				}
				resp.Body.Close()
				if resp.StatusCode != want {
					t.Errorf("%d bytes of headers: %s, want %d", size, resp.Status, want)
				}
			}
		})
	}
}

// A connection without a key that asks nothing is cut, whatever it sends, and
// one with a key stays.
func TestStrangersAreCut(t *testing.T) {
	h := newHouse(t, generous(), openBooks(t), newBackend(t, ok))
	h.g.visitors.idleFor = 300 * time.Millisecond
	front, trust := frontEndOf(t, h)
	known, err := from(t, front, trust, "127.0.2.1", "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	if status, err := chat(known, h.secret); status != 200 {
		t.Fatalf("%d %v", status, err)
	}
	for name, tt := range map[string]struct{ protocol, first, again string }{
		"silence after the handshake": {"http/1.1", "", ""},
		"headers, drop by drop":       {"http/1.1", "GET /health HTTP/1.1\r\n", "X: y\r\n"},
		"silence in HTTP/2":           {"h2", preface + settings, ""},
		"pings":                       {"h2", preface + settings, ping},
		"settings":                    {"h2", preface + settings, settings},
		"headers that go on":          {"h2", preface + settings + header, more},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := from(t, front, trust, "127.0.2.2", tt.protocol)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, tt.first)
			go func() { // until it is cut
				for tt.again != "" {
					if _, err := io.WriteString(c, tt.again); err != nil {
						return
					}
					time.Sleep(20 * time.Millisecond)
				}
			}()
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("it is kept")
			}
		})
	}
	if status, err := chat(known, h.secret); status != 200 {
		t.Errorf("a connection with a key: %d %v", status, err)
	}
	if plain, err := net.Dial("tcp", front.Addr().String()); err == nil {
		defer plain.Close()
		_ = plain.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(plain, "GET / HTTP/1.1\r\nHost: frontEnd\r\n\r\n")
		if resp, err := http.ReadResponse(bufio.NewReader(plain), nil); err != nil || resp.StatusCode != 400 || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("in clear: %+v %v", resp, err)
		}
	}
}

// However many idle connections addresses hold, others get in, and so does who
// shares the address with them.
func TestConnectionsAreBounded(t *testing.T) {
	config := generous()
	config.Connections = Connections{Address: 20, Tenant: 10, All: 60}
	h := newHouse(t, config, openBooks(t), newBackend(t, ok))
	front, trust := frontEndOf(t, h)
	asks := func(address string) {
		t.Helper()
		c, err := from(t, front, trust, address, "http/1.1")
		if err != nil {
			t.Errorf("%s: %v", address, err)
			return
		}
		defer c.Close()
		if status, err := chat(c, h.secret); status != 200 {
			t.Errorf("%s: %d %v", address, status, err)
		}
	}
	for i := range 200 { // one address
		c, err := from(t, front, trust, "127.0.3.1", "h2")
		if err == nil {
			_, _ = io.WriteString(c, preface+settings)
		}
		if i%50 == 49 {
			asks("127.0.3.1")
			asks("127.0.3.2")
		}
	}
	for i := range 200 { // many addresses
		if c, err := from(t, front, trust, fmt.Sprintf("127.0.4.%d", 1+i), "h2"); err == nil {
			_, _ = io.WriteString(c, preface+settings)
		}
		if i%50 == 49 {
			asks("127.0.3.2")
		}
	}
	v := h.g.visitors
	v.mu.Lock()
	open, one := v.open, v.addresses[netip.MustParsePrefix("127.0.3.1/32")]
	v.mu.Unlock()
	if open > 60 || one > 20 {
		t.Errorf("%d connections are open, %d of one address; want 60 and 20 at the most", open, one)
	}
	// A tenant that holds many known connections is refused more of them, and
	// another tenant is not.
	var last int
	for i := range 12 {
		c, err := from(t, front, trust, fmt.Sprintf("127.0.5.%d", 1+i), "http/1.1")
		if err != nil {
			t.Fatal(err)
		}
		if last, err = chat(c, h.secret); err != nil {
			t.Fatal(err)
		}
	}
	other := h.key(ledger.Key{ID: "other", Tenant: "other", Scopes: []string{"inference"}})
	c, err := from(t, front, trust, "127.0.5.20", "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	if status, err := chat(c, other); last != 429 || status != 200 {
		t.Errorf("the twelfth connection of a tenant gets %d, another tenant %d (%v); want 429 and 200", last, status, err)
	}
}

// An address opens connections no faster than its limit allows.
func TestOpeningIsLimited(t *testing.T) {
	config := DefaultConfig()
	config.Network = Limit{1, 5}
	h := newHouse(t, config, openBooks(t), newBackend(t, ok))
	front, trust := frontEndOf(t, h)
	opened := 0
	for range 60 {
		if c, err := from(t, front, trust, "127.0.6.1", "http/1.1"); err == nil {
			opened++
			c.Close()
		}
	}
	if opened < openings*5 || opened > openings*5+20 {
		t.Errorf("%d connections, want %d and what the time allows", opened, openings*5)
	}
	if _, err := from(t, front, trust, "127.0.6.2", "http/1.1"); err != nil {
		t.Errorf("another address: %v", err)
	}
}

func TestNetwork(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.7": "192.0.2.7/32", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64",
	} {
		if got := network(netip.MustParseAddr(in)).String(); got != want {
			t.Errorf("%s counts as %s, want %s", in, got, want)
		}
	}
	g := &guard{}
	c := DefaultConfig()
	g.config.Store(&c)
	passed := 0
	for i := range 100 {
		if g.limited(&g.addrs, netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i+1)), 1, time.Now()) == nil {
			passed++
		}
	}
	if passed > 22 {
		t.Errorf("%d requests of one /64 passed, want 20", passed)
	}
}

// Buckets in use cost no more than others, however many there are.
func TestBucketsAreBounded(t *testing.T) {
	var b buckets
	now := time.Now()
	for i := range 3 * bucketsKept {
		b.take(fmt.Sprint(i), Limit{1, 2}, 1, now)
		if b.take("kept", Limit{1, 2}, 1, now); i == 0 {
			b.take("kept", Limit{1, 2}, 1, now)
		}
	}
	if len(b.byName) != bucketsKept || b.order.Len() != bucketsKept {
		t.Errorf("%d buckets, want %d", len(b.byName), bucketsKept)
	}
	if b.take("kept", Limit{1, 2}, 1, now) == 0 {
		t.Error("a bucket that is used was forgotten")
	}
}

// What needs no key has limits too, and who guesses keys at /validate is slow
// and seen.
func TestEndpointsWithoutKeysAreLimited(t *testing.T) {
	config := DefaultConfig()
	config.Network = Limit{0.1, 2}
	for _, path := range []string{"/health", "/ready", "/nowhere", "/validate"} {
		t.Run(path, func(t *testing.T) {
			h := newHouse(t, config, openBooks(t), newBackend(t, ok))
			limited := 0
			for i := range 60 {
				req, _ := http.NewRequest("GET", h.url+path, nil)
				req.Header.Set("X-Forwarded-For", fmt.Sprintf("10.1.1.%d", i))
				req.Header.Set("Authorization", "Bearer guess")
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode == 429 {
					limited++
				}
			}
			want := 60 - 2*openFor
			if path == "/validate" {
				want = 58
				if n := strings.Count(h.audit.String(), `"path":"/validate"`); n != 60 {
					t.Errorf("%d lines in the audit log, want 60", n)
				}
			}
			if limited < want-3 || limited > want {
				t.Errorf("%d of 60 are refused, want %d", limited, want)
			}
		})
	}
	config.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	h := newHouse(t, config, openBooks(t), newBackend(t, ok))
	for i := range 20 { // clients of another frontEnd have their own
		req, _ := http.NewRequest("GET", h.url+"/validate", nil)
		req.Header.Set("X-Forwarded-For", fmt.Sprintf("203.0.113.9, 10.1.1.%d", i))
		req.Header.Set("Authorization", "Bearer "+h.secret)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 204 {
			t.Errorf("client %d: %s", i, resp.Status)
		}
	}
}

// A line of the audit log is bounded, and one line, whatever was asked for.
func TestAuditLinesAreBounded(t *testing.T) {
	h := newHouse(t, generous(), openBooks(t), newBackend(t, ok))
	h.ask("GET", "/v1/"+strings.Repeat("<", 10_000), "", "")
	h.ask("GET", "/v1/a%0d%0a%7B%22forged%22:1%7D%e2%80%a8%1b%ff", "", "")
	lines := strings.Split(strings.TrimSpace(h.audit.String()), "\n")
	if len(lines) != 2 {
		t.Errorf("%d lines, want 2", len(lines))
	}
	for _, line := range lines {
		if !json.Valid([]byte(line)) || len(line) > 8*auditedPath {
			t.Errorf("%d bytes: %.200s", len(line), line)
		}
	}
}

// Python's ssl is stricter than Go is, and from 3.13 on by default.
func TestStrictClients(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("skipped: python3 is not installed")
	}
	dir := t.TempDir()
	certificate, err := DevTLS(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, generous(), openBooks(t), newBackend(t, ok))
	front, err := h.g.Listen("127.0.0.1:0", certificate)
	if err != nil {
		t.Fatal(err)
	}
	defer front.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, port, _ := net.SplitHostPort(front.Addr().String())
	out, err := exec.CommandContext(ctx, python, "-c", `
import socket, ssl, sys
c = ssl.create_default_context(cafile=sys.argv[1])
c.verify_flags |= ssl.VERIFY_X509_STRICT
c.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[2])), timeout=20), server_hostname="localhost").close()
`, filepath.Join(dir, "ca.pem"), port).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
