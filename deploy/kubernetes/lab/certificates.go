package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"strings"
	"time"
)

// users are the users of the API server: their names in Kubernetes and the
// files of their kubeconfigs.
func users() map[string]user {
	all := map[string]user{
		"kubeconfig":                 {name: "admin", group: "system:masters"},
		"pki/controllers.kubeconfig": {name: "system:kube-controller-manager"},
		"pki/scheduler.kubeconfig":   {name: "system:kube-scheduler"},
		"pki/proxy.kubeconfig":       {name: "system:kube-proxy"},
	}
	for i := 1; i <= maxNodes; i++ {
		all["pki/"+nodeName(i)+".kubeconfig"] = user{name: "system:node:" + nodeName(i), group: "system:nodes"}
	}
	return all
}

type user struct{ name, group string }

// certify makes the authority, the certificates and a token for each user, if
// they do not exist yet.
func (c *cluster) certify() error {
	if _, err := os.Stat(c.kubeconfig()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	if err := c.keep("ca.crt", pemOf("CERTIFICATE", ca.der)); err != nil {
		return err
	}
	server := &x509.Certificate{Subject: pkix.Name{CommonName: "kube-apiserver"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.ParseIP(hostIP), net.ParseIP(servicesIP)},
		DNSNames: []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	kubelet := &x509.Certificate{Subject: pkix.Name{CommonName: "kube-apiserver-kubelet-client", Organization: []string{"system:masters"}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for name, template := range map[string]*x509.Certificate{"apiserver": server, "kubelet-client": kubelet} {
		crt, key, err := ca.issue(template)
		if err != nil {
			return err
		}
		if err := errors.Join(c.keep(name+".crt", crt), c.keep(name+".key", key)); err != nil {
			return err
		}
	}
	accounts, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := x509.MarshalECPrivateKey(accounts)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&accounts.PublicKey)
	if err != nil {
		return err
	}
	if err := errors.Join(c.keep("accounts.key", pemOf("EC PRIVATE KEY", private)), c.keep("accounts.pub", pemOf("PUBLIC KEY", public))); err != nil {
		return err
	}
	var tokens strings.Builder
	for file, u := range users() {
		secret := make([]byte, 16)
		if _, err := rand.Read(secret); err != nil {
			return err
		}
		token := hex.EncodeToString(secret)
		fmt.Fprintf(&tokens, "%s,%s,%s", token, u.name, u.name)
		if u.group != "" {
			fmt.Fprintf(&tokens, ",%s", u.group)
		}
		tokens.WriteByte('\n')
		config := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "https://%s:%s", certificate-authority-data: %s}}]
users: [{name: lab, user: {token: %s}}]
contexts: [{name: lab, context: {cluster: lab, user: lab}}]
current-context: lab
`, hostIP, apiPort, base64.StdEncoding.EncodeToString(pemOf("CERTIFICATE", ca.der)), token)
		if err := os.WriteFile(c.path(file), []byte(config), 0o600); err != nil {
			return err
		}
	}
	return c.keep("tokens.csv", []byte(tokens.String()))
}

func (c *cluster) keep(name string, b []byte) error {
	return os.WriteFile(c.path("pki", name), b, 0o600)
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// authority signs the certificates of a cluster.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	der         []byte
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "launchgate lab"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	valid(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	return &authority{certificate, key, der}, err
}

func (a *authority) issue(template *x509.Certificate) (crt, key []byte, err error) {
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	valid(template)
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &own.PublicKey, a.key)
	if err != nil {
		return nil, nil, err
	}
	private, err := x509.MarshalECPrivateKey(own)
	return pemOf("CERTIFICATE", der), pemOf("EC PRIVATE KEY", private), err
}

func valid(template *x509.Certificate) {
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)
}
