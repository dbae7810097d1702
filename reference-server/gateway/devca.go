package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// DevTLS makes a development CA and a certificate of it for loopback, and writes
// ca.pem, cert.pem and key.pem to dir. The CA's own key is thrown away, so that
// nothing else can be signed with it. It also writes expired.pem, a certificate for
// the same key and of the same CA that has expired, as if nobody had renewed it.
// All of it is for one machine and valid for a week.
//
// If dir has a CA that is valid for another day, its files are used again, because
// clients of a gateway that was killed and restarted trust that CA. They are used
// even if the certificate itself has expired, because a new CA would lock those
// clients out for good.
func DevTLS(dir string, log *slog.Logger) (*tls.Config, error) {
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if pair, err := tls.LoadX509KeyPair(cert, key); err == nil && len(pair.Leaf.AuthorityKeyId) > 0 && time.Until(validUntil(filepath.Join(dir, "ca.pem"))) > 24*time.Hour {
		return LoadTLS(cert, key, log)
	}
	if err := writeDevTLS(dir); err != nil {
		return nil, fmt.Errorf("development certificates: %w", err)
	}
	return LoadTLS(cert, key, log)
}

// validUntil is when the certificate in a file expires; the zero time if the file
// has none.
func validUntil(file string) (until time.Time) {
	text, err := os.ReadFile(file)
	if err != nil {
		return until
	}
	if block, _ := pem.Decode(text); block != nil {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			until = c.NotAfter
		}
	}
	return until
}

func writeDevTLS(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	from, until := time.Now().Add(-time.Minute), time.Now().Add(7*24*time.Hour)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(from.UnixNano()), Subject: pkix.Name{CommonName: "launchgate development CA"}, NotBefore: from, NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, MaxPathLenZero: true,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(from.UnixNano() + 1), Subject: pkix.Name{CommonName: "localhost"}, NotBefore: from, NotAfter: until,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return err
	}
	// The subject key identifier, by which certificates name their authority, is
	// there because strict clients ask for it.
	if ca, err = x509.ParseCertificate(caDER); err != nil {
		return err
	}
	if planted("no-aki") {
		ca.SubjectKeyId = nil
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return err
	}
	expired := *leaf
	expired.SerialNumber, expired.NotBefore, expired.NotAfter = big.NewInt(from.UnixNano()+2), from.Add(-90*24*time.Hour), from
	expiredDER, err := x509.CreateCertificate(rand.Reader, &expired, ca, &key.PublicKey, caKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	// The certificate is written last, so that the other files exist if it does.
	files := []struct {
		name, kind string
		der        []byte
	}{{"ca.pem", "CERTIFICATE", caDER}, {"key.pem", "PRIVATE KEY", keyDER}, {"expired.pem", "CERTIFICATE", expiredDER}, {"cert.pem", "CERTIFICATE", leafDER}}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f.name), pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der}), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// LoadTLS serves TLS 1.2 and 1.3 with a certificate from files. The files may be
// replaced meanwhile: the next handshake uses the new certificate. Invalid files
// are ignored, and are read again at the next handshake.
func LoadTLS(cert, key string, log *slog.Logger) (*tls.Config, error) {
	r := &renewable{cert: cert, key: key, log: log}
	if err := r.read(); err != nil {
		return nil, fmt.Errorf("the gateway's certificate: %w", err)
	}
	// Each certificate has a configuration of its own, so that sessions of one
	// certificate cannot be resumed under the next.
	c := r.config.Clone()
	c.GetConfigForClient = r.current
	return c, nil
}

// renewable is a certificate that is reloaded when its file has changed.
type renewable struct {
	cert, key string
	log       *slog.Logger

	mu     sync.Mutex
	config *tls.Config
	last   os.FileInfo // of cert, when it was read
	failed os.FileInfo // of cert, when it could not be read; that is logged once
}

// suites of TLS 1.2 with authenticated encryption. All suites of TLS 1.3 have it.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

func (r *renewable) read() error {
	st, err := os.Stat(r.cert)
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(r.cert, r.key)
	if err != nil {
		return err
	}
	r.last = st
	r.config = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, CipherSuites: suites, NextProtos: []string{"h2", "http/1.1"}}
	weaken(r)
	return nil
}

func (r *renewable) current(*tls.ClientHelloInfo) (*tls.Config, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st, err := os.Stat(r.cert)
	if err != nil || same(st, r.last) {
		return r.config, nil // the file is being replaced, or has not changed
	}
	if err := r.read(); err != nil {
		if !same(st, r.failed) {
			r.failed = st
			r.log.Error("the certificate has changed and cannot be read, so the one before is served", "file", r.cert, "why", err)
		}
		return r.config, nil
	}
	r.log.Info("the certificate is read again", "from", r.cert, "valid until", r.config.Certificates[0].Leaf.NotAfter)
	return r.config, nil
}

// same reports whether a file has not changed.
func same(now, then os.FileInfo) bool {
	return then != nil && os.SameFile(now, then) && now.ModTime().Equal(then.ModTime()) && now.Size() == then.Size()
}
