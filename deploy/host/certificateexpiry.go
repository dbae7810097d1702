package host

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// ExpireCertificate swaps the gateway's certificate for one that has expired.
func (l *Local) ExpireCertificate(ctx context.Context, _ deploy.Victim, _ scenarios.Fault) (deploy.Effect, error) {
	c, ok := l.Certificate()
	if !ok {
		return nil, needsGateway("it has no certificate that could expire")
	}
	pem, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, err
	}
	e := &expiry{certificate: c, trusted: x509.NewCertPool(), kept: filepath.Join(filepath.Dir(c.File), fmt.Sprintf("%s%d-certificate", ofOurs, os.Getpid()))}
	if !e.trusted.AppendCertsFromPEM(pem) {
		return nil, words.Errorf("%s holds no certificate", c.CA)
	}
	if e.good, err = e.shown(ctx); err != nil {
		return nil, words.Errorf("the gateway's certificate does not verify before the fault: %s", err)
	}
	return e, nil
}

// expiry is the swap of the gateway's certificate for an expired one.
type expiry struct {
	certificate deploy.Certificate
	trusted     *x509.CertPool
	kept        string // the folder that keeps the valid certificate meanwhile
	good        *x509.Certificate
}

func (e *expiry) Victim() string { return deploy.Gateway }

func (e *expiry) Undo() []deploy.Undo {
	return []deploy.Undo{undoing(undoSwap, object{Path: e.kept, Home: e.certificate.File})}
}

// Inject swaps the file atomically: at every moment the gateway reads either
// the valid certificate or the expired one.
func (e *expiry) Inject(context.Context) (sight, error) {
	if err := os.Mkdir(e.kept, 0o700); err != nil {
		return sight{}, err
	}
	next := filepath.Join(e.kept, "expired")
	err := os.Link(e.certificate.File, filepath.Join(e.kept, filepath.Base(e.certificate.File)))
	if err == nil {
		err = os.Link(e.certificate.Expired, next)
	}
	if err == nil {
		err = os.Rename(next, e.certificate.File)
	}
	if err != nil {
		return sight{}, err
	}
	return sight{How: words.Say("%s was replaced by an expired certificate of the same authority; open connections go on, and new ones are refused", e.certificate.File)}, nil
}

func (e *expiry) SeeInEffect(ctx context.Context) (sight, error) {
	return until(ctx, pollEvery, func() (words.Sentence, bool) {
		_, err := e.shown(ctx)
		var invalid x509.CertificateInvalidError
		if !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
			return words.Sentence{}, false
		}
		return words.Say("a new connection to %s was refused by the client: the certificate expired at %s", e.certificate.Address, invalid.Cert.NotAfter.UTC().Format(time.RFC3339)), true
	})
}

func (e *expiry) Revert(context.Context) (sight, error) {
	if err := Undo(e.Undo()[0]); err != nil {
		return sight{}, err
	}
	return sight{How: words.Say("the certificate from before is back in its file")}, nil
}

func (e *expiry) SeeGone(ctx context.Context) (sight, error) {
	return until(ctx, pollEvery, func() (words.Sentence, bool) {
		c, err := e.shown(ctx)
		if err != nil || !c.Equal(e.good) {
			return words.Sentence{}, false
		}
		return words.Say("a new connection was accepted by the client: the certificate is valid until %s", c.NotAfter.UTC().Format(time.RFC3339)), true
	})
}

// shown returns the certificate that the gateway sends on a new connection, and
// the error of verifying it.
func (e *expiry) shown(ctx context.Context) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	host, _, err := net.SplitHostPort(e.certificate.Address)
	if err != nil {
		return nil, err
	}
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: e.trusted, ServerName: host}}
	c, err := dialer.DialContext(ctx, "tcp", e.certificate.Address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}
