package security

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

var tlsCheck = Check{
	Name:    "tls",
	Asks:    "which TLS versions and cipher suites the service accepts, whether its certificate verifies and for how long, and whether it answers unencrypted requests",
	Control: "a handshake with TLS 1.2 or 1.3 succeeds; a version or suite counts as refused only if the service refused it explicitly",
	Flaw:    "a handshake with TLS 1.0 or 1.1, or with RC4, 3DES, RSA key exchange or CBC, succeeds; the chain, the name or the dates do not verify; the service answers unencrypted HTTP; HSTS is missing",
	Planted: "test service: tls10, weak-cipher, no-hsts; reference server: also expired, no-aki",
	Cap:     Cap{Requests: 80, Seconds: 40, Bytes: 4 << 20},
	worst:   "CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U/C:H/I:H/A:N",
	run:     runTLS, connect: true,
}

var tlsTags = []string{"OWASP API8:2023", "CWE-319", "CWE-326"}

// soon is how long before its end a certificate should have been renewed.
const soon = 7 * 24 * time.Hour

func runTLS(ctx context.Context, t *trial) end {
	if !t.secure {
		return t.inClear(ctx)
	}
	state, err := t.shake(ctx, &tls.Config{MinVersion: tls.VersionTLS12})
	if err != nil {
		return unproven("a handshake with TLS 1.2 or 1.3 failed: %s", err)
	}
	t.verify(state)
	for _, tried := range []error{t.versions(ctx), t.suites(ctx)} {
		if tried != nil {
			return unproven("a version or cipher suite was neither accepted nor refused: %s", tried)
		}
	}
	// Without this, a service that went away meanwhile would seem to refuse everything.
	if _, err := t.shake(ctx, &tls.Config{MinVersion: tls.VersionTLS12}); err != nil {
		return unproven("a handshake with TLS 1.2 or 1.3 failed after the others: %s", err)
	}
	if len(t.routes) == 0 {
		return unproven("no route of OpenAI's API answered")
	}
	t.plaintext(ctx)
	t.hsts(ctx)
	return t.ended("%s; older versions and weak suites are refused, the certificate verifies, and unencrypted requests are not served", tls.VersionName(state.Version))
}

// shake makes one handshake without verification, and sends nothing else.
func (t *trial) shake(ctx context.Context, c *tls.Config) (tls.ConnectionState, error) {
	if !t.spend() {
		return tls.ConnectionState{}, errCap
	}
	conn, err := t.tcp(ctx, t.next())
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	c.Certificates = t.tlsConfig.Certificates
	c.ServerName, c.InsecureSkipVerify = t.tlsConfig.ServerName, true // nothing is sent over it, and verify checks the certificate
	secured := tls.Client(conn, c)
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err = secured.HandshakeContext(ctx); err != nil && refuses(err) {
		err = &refusedError{err}
	}
	return secured.ConnectionState(), err
}

// refusedError is the error of a handshake that the service refused.
type refusedError struct{ error }

// refuses reports whether a handshake failed because of the service's reaction: an
// alert, an answer that does not match the offer, or the end of the connection. A
// timeout is no reaction.
func refuses(err error) bool {
	var wire net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.As(err, &wire) && wire.Timeout() {
		return false
	}
	return true
}

// only reports whether the service accepts one kind of handshake. An accepted one is
// repeated before it counts. err is the error of a handshake that could not be tried.
func (t *trial) only(ctx context.Context, c *tls.Config) (state tls.ConnectionState, accepted bool, err error) {
	for range 2 {
		var refused *refusedError
		state, err = t.shake(ctx, c.Clone())
		switch {
		case errors.As(err, &refused):
			return state, false, nil
		case err != nil:
			return state, false, err
		}
	}
	return state, true, nil
}

func (t *trial) tlsFlaw(kind string, title words.Sentence, vector, sent, came string, fix words.Sentence) {
	t.found(flaw{title: title, kind: kind, where: "TLS", vector: vector, tags: tlsTags, evidence: []recording.Exchange{{Sent: sent, Came: came}},
		verified: say("the handshake succeeded twice"), fix: fix})
}

func (t *trial) verify(state tls.ConnectionState) {
	leaf := state.PeerCertificates[0]
	shown := fmt.Sprintf("subject %s, issuer %s, valid from %s to %s, names %s", leaf.Subject, leaf.Issuer, leaf.NotBefore.UTC().Format(time.DateTime), leaf.NotAfter.UTC().Format(time.DateTime), strings.Join(names(leaf), ", "))
	options := x509.VerifyOptions{Roots: t.tlsConfig.RootCAs, Intermediates: x509.NewCertPool(), DNSName: t.tlsConfig.ServerName, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, c := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(c)
	}
	now := time.Now()
	certificate := func(kind string, title words.Sentence, vector string, fix words.Sentence) {
		t.tlsFlaw(kind, title, vector, "a handshake with TLS 1.2 or 1.3", shown, fix)
	}
	renew := say("renew the certificate, and automate its renewal a month before it expires")
	switch {
	case now.After(leaf.NotAfter):
		certificate("expired", say("the certificate has expired"), t.check.worst, renew)
	case now.Before(leaf.NotBefore):
		certificate("not yet", say("the certificate is not valid yet"), "CVSS:3.1/AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:L/A:L", renew)
	default:
		if leaf.NotAfter.Sub(now) < soon && leaf.NotAfter.Sub(leaf.NotBefore) > 2*soon {
			certificate("soon", say("the certificate expires within a week"), "CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U/C:N/I:N/A:L", renew)
		}
		if _, err := leaf.Verify(options); err != nil {
			options.DNSName = ""
			if _, chain := leaf.Verify(options); chain == nil {
				certificate("name", say("the certificate is for another name"), t.check.worst, say("issue the certificate for the names and addresses that clients use"))
			} else {
				certificate("chain", say("the certificate cannot be verified: %s", chain), t.check.worst, say("serve the whole chain up to an authority that clients trust, or give them the authority (ca_file, --ca-file)"))
			}
		}
	}
	if len(leaf.AuthorityKeyId) == 0 && !bytes.Equal(leaf.RawIssuer, leaf.RawSubject) {
		certificate("aki", say("the certificate has no Authority Key Identifier, so strict clients (Python 3.13 and newer) refuse it"), "CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U/C:N/I:N/A:L",
			say("add a Subject Key Identifier to the certificate of the authority, and issue the certificate again"))
	}
}

func names(c *x509.Certificate) []string {
	of := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		of = append(of, ip.String())
	}
	return of
}

// versions tries the deprecated versions (RFC 8996).
func (t *trial) versions(ctx context.Context) error {
	for _, v := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		s, accepted, err := t.only(ctx, &tls.Config{MinVersion: v, MaxVersion: v, CipherSuites: allSuites()})
		if err != nil {
			return fmt.Errorf("%s: %w", tls.VersionName(v), err)
		}
		if accepted {
			t.tlsFlaw(tls.VersionName(v), say("the service still accepts %s", tls.VersionName(v)), "CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U/C:H/I:L/A:N",
				"a handshake with "+tls.VersionName(v)+" only", tls.VersionName(s.Version)+" with "+tls.CipherSuiteName(s.CipherSuite), say("accept only TLS 1.2 and 1.3"))
		}
	}
	return nil
}

func allSuites() []uint16 {
	var ids []uint16
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		ids = append(ids, s.ID)
	}
	return ids
}

// suites tries each TLS 1.2 suite without authenticated encryption or without forward
// secrecy.
func (t *trial) suites(ctx context.Context) error {
	var broken, weak []string
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		name := s.Name
		bad := strings.Contains(name, "RC4") || strings.Contains(name, "3DES") || strings.HasPrefix(name, "TLS_RSA_")
		if !bad && !strings.Contains(name, "CBC") || strings.HasPrefix(name, "TLS_AES") || strings.HasPrefix(name, "TLS_CHACHA") {
			continue
		}
		_, accepted, err := t.only(ctx, &tls.Config{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{s.ID}})
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", name, err)
		case accepted && bad:
			broken = append(broken, name)
		case accepted:
			weak = append(weak, name)
		}
	}
	fix := say("accept only cipher suites with authenticated encryption and forward secrecy (ECDHE with GCM or ChaCha20)")
	if len(broken) > 0 {
		t.tlsFlaw("broken suites", say("the service accepts cipher suites that are broken or have no forward secrecy"), "CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U/C:H/I:N/A:N", "a TLS 1.2 handshake with one suite each", strings.Join(broken, ", "), fix)
	}
	if len(weak) > 0 {
		t.tlsFlaw("CBC suites", say("the service accepts cipher suites with CBC"), "CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U/C:L/I:N/A:N", "a TLS 1.2 handshake with one suite each", strings.Join(weak, ", "), fix)
	}
	return nil
}

// plaintext sends a request without TLS to the TLS port.
func (t *trial) plaintext(ctx context.Context) {
	if len(t.routes) == 0 {
		return
	}
	inClear := t.optionsOnly()
	inClear.secure = false
	c := newTrial(inClear, t.check)
	r := request{method: t.routes[0].method, path: t.routes[0].path, body: t.routes[0].body} // the key must not be sent unencrypted
	a := c.once(ctx, r)
	again := c.once(ctx, r)
	if t.routes[0].means(again) || a.refused() && again.refused() {
		t.found(flaw{title: say("the TLS port also serves unencrypted requests"), kind: "clear", where: "TLS", vector: t.check.worst, tags: tlsTags, evidence: []recording.Exchange{exchange(r, again)},
			verified: say("the route twice answered or refused an unencrypted request"), fix: say("answer unencrypted requests with 400, or close the connection")})
	}
	t.requests.Add(c.requests.Load())
}

func (t *trial) hsts(ctx context.Context) {
	if len(t.routes) == 0 {
		return
	}
	r := request{method: t.routes[0].method, path: t.routes[0].path, body: t.routes[0].body, key: t.target.Key}
	if a := t.ask(ctx, r); a.ok() && a.header.Get("Strict-Transport-Security") == "" {
		t.found(flaw{title: say("answers do not tell browsers to use only TLS (HSTS)"), kind: "hsts", where: "Strict-Transport-Security", vector: "CVSS:3.1/AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N", tags: tlsTags,
			evidence: []recording.Exchange{exchange(r, a)}, verified: say("the header was missing on an answer over TLS"), fix: say("send Strict-Transport-Security: max-age=31536000 with every answer")})
	}
}

// inClear checks a service without TLS. On loopback nobody can listen in between, so
// the result is unproven: users have another address.
func (t *trial) inClear(ctx context.Context) end {
	host, _, _ := net.SplitHostPort(t.address)
	ip := net.ParseIP(host)
	if host == "localhost" || ip != nil && ip.IsLoopback() {
		return unproven("the target is unencrypted and on this machine: scan the address that clients use")
	}
	for _, r := range t.routes {
		q := request{method: r.method, path: r.path, body: r.body}
		a := t.ask(ctx, q)
		if a.err != nil {
			continue
		}
		t.found(flaw{title: say("the service is reached without encryption: keys, prompts and answers can be read in transit"), kind: "clear", where: "TLS", vector: t.check.worst, tags: tlsTags,
			evidence: []recording.Exchange{exchange(q, a)}, verified: say("the target uses HTTP without TLS at an address outside this machine"), fix: say("put TLS in front of it")})
		return t.ended("")
	}
	return unproven("no route of OpenAI's API answered")
}
