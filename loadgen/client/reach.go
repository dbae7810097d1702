package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/words"
)

// why words the reason why no answer came. It says what is wrong with a certificate,
// and that client and service use different protocols.
func why(err error) words.Sentence {
	var name x509.HostnameError
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &name):
		return words.Say("x509: the certificate is for %s, not for the requested %s", namesOf(name.Certificate), name.Host)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return words.Say("x509: the certificate has expired or is not yet valid: it is valid from %s to %s, and the time is %s", invalid.Cert.NotBefore.UTC().Format(time.RFC3339), invalid.Cert.NotAfter.UTC().Format(time.RFC3339), time.Now().UTC().Format(time.RFC3339))
	case errors.As(err, &unknown):
		signer := ""
		if unknown.Cert != nil {
			signer = unknown.Cert.Issuer.String()
		}
		return words.Say("x509: the certificate is signed by an authority that is not trusted here (%s)", clip(signer))
	case errors.As(err, &record):
		return words.Say("the port does not use TLS: its first bytes are %s", strconv.Quote(string(record.RecordHeader[:])))
	}
	return words.Verbatim(err.Error())
}

// namesOf are the names that a certificate is for.
func namesOf(cert *x509.Certificate) words.Sentence {
	names := append([]string(nil), cert.DNSNames...)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return words.Say("no name")
	}
	return words.Verbatim(clip(strings.Join(names, ", ")))
}

// advice says what to do if no answer came. If the protocols may differ (HTTP and
// HTTPS), it tries the other one.
func (c *Client) advice(ctx context.Context, failed error) words.Sentence {
	var name x509.HostnameError
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	secure := strings.HasPrefix(c.base, "https://") || strings.HasPrefix(c.base, "grpcs://")
	switch {
	case errors.As(failed, &name):
		return words.Say("use an address with a name in its certificate, or give it a certificate with this name")
	case errors.As(failed, &invalid) && invalid.Reason == x509.Expired:
		return words.Say("give it a valid certificate, or set the clock")
	case errors.As(failed, &unknown) && c.cfg.CAFile != "":
		return words.Say("the trusted authority %s did not sign it; pass the PEM file of the authority that did with --ca-file", c.cfg.CAFile)
	case errors.As(failed, &unknown), failed != nil && strings.Contains(failed.Error(), "x509:"):
		return words.Say("its certificate is not trusted here; pass the PEM file of the authority that signed it with --ca-file")
	case errors.As(failed, &record):
		return words.Say("it answers without TLS; use an http:// address")
	case failed != nil && strings.Contains(failed.Error(), "proxyconnect"):
		return words.Say("the proxy %s from the environment forwarded nothing; add the host to NO_PROXY if it is reached directly", c.proxy)
	case secure && c.speaksClear(ctx):
		return words.Say("it answers without TLS; use an http:// address")
	case !secure && c.speaksTLS(ctx):
		return words.Say("the port uses TLS; use an https:// address")
	}
	return words.Say("is the service running there?")
}

// speaksTLS reports whether the address completes a TLS handshake.
func (c *Client) speaksTLS(ctx context.Context) bool {
	return c.reach(ctx, "80", func(ctx context.Context, conn net.Conn) bool {
		// The certificate is not verified, because nothing is sent over the connection.
		return tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx) == nil
	})
}

// speaksClear reports whether the address answers HTTP without TLS.
func (c *Client) speaksClear(ctx context.Context) bool {
	return c.reach(ctx, "443", func(ctx context.Context, conn net.Conn) bool {
		deadline, _ := ctx.Deadline()
		_ = conn.SetDeadline(deadline)
		head := make([]byte, len("HTTP/"))
		_, err := io.WriteString(conn, "HEAD / HTTP/1.0\r\n\r\n")
		if err == nil {
			_, err = io.ReadFull(conn, head)
		}
		return err == nil && string(head) == "HTTP/"
	})
}

// reach connects to the service's address and calls ask with the connection.
func (c *Client) reach(ctx context.Context, port string, ask func(context.Context, net.Conn) bool) bool {
	u, err := url.Parse(c.base)
	if err != nil || c.proxy != "" {
		return false
	}
	address := u.Host
	if u.Port() == "" {
		address = net.JoinHostPort(u.Hostname(), port)
	}
	limited, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := c.dial(limited, "tcp", address)
	if err != nil {
		return false
	}
	defer conn.Close()
	return ask(limited, conn)
}
