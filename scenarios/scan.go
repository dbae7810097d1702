package scenarios

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Scan is a security scan of the target, made when the scenarios are over. Each
// of its checks ends as safe, flaw or unproven.
type Scan struct {
	// Only lists the checks to run; without it, all checks run whose input is
	// given here.
	Only []string `yaml:"only,omitempty" json:"only,omitempty"`
	// Skip lists checks to leave out.
	Skip []string `yaml:"skip,omitempty" json:"skip,omitempty"`
	// AllowDisruptive also runs the checks that may harm the service: costly
	// requests, crashes, slow connections, unread streams, many connections.
	AllowDisruptive bool `yaml:"allow_disruptive,omitempty" json:"allow_disruptive,omitempty"`
	// OtherKeyEnv names the environment variable with the key of another tenant.
	OtherKeyEnv string `yaml:"other_key_env,omitempty" json:"other_key_env,omitempty"`
	// ExpiredKeyEnv names the variable with a key that has expired.
	ExpiredKeyEnv string `yaml:"expired_key_env,omitempty" json:"expired_key_env,omitempty"`
	// RevokedKeyEnv names the variable with a key that was revoked.
	RevokedKeyEnv string `yaml:"revoked_key_env,omitempty" json:"revoked_key_env,omitempty"`
	// Usage is the path from which the usage of an answer is read, with {id} for
	// its X-Request-Id.
	Usage string `yaml:"usage,omitempty" json:"usage,omitempty"`
	// SystemCanary is a word of the service's own system prompt that no user may
	// see.
	SystemCanary string `yaml:"system_canary,omitempty" json:"system_canary,omitempty"`
	// Addresses are further addresses of the service that strangers can reach, such as
	// that of its metrics.
	Addresses []string `yaml:"addresses,omitempty" json:"addresses,omitempty"`
	// Logs are files or folders that the service writes its logs to.
	Logs []string `yaml:"logs,omitempty" json:"logs,omitempty"`
	// Manifests is a file or folder of Kubernetes manifests.
	Manifests string `yaml:"manifests,omitempty" json:"manifests,omitempty"`
	// Nginx is an nginx configuration file or a folder of them.
	Nginx string `yaml:"nginx,omitempty" json:"nginx,omitempty"`
	// Gateway is a configuration of the bundled gateway.
	Gateway string `yaml:"gateway,omitempty" json:"gateway,omitempty"`
	// Secrets are files or folders with keys, ledgers or logs, which only their
	// owner may read.
	Secrets []string `yaml:"secrets,omitempty" json:"secrets,omitempty"`
	// Binaries are deployed Go programs.
	Binaries []string `yaml:"binaries,omitempty" json:"binaries,omitempty"`
	// Vulnerabilities is the folder or URL of a Go vulnerability database.
	Vulnerabilities string `yaml:"vulnerabilities,omitempty" json:"vulnerabilities,omitempty"`
	// Waivers is a file of findings that do not count for a limited time.
	Waivers string `yaml:"waivers,omitempty" json:"waivers,omitempty"`
}

// ScanChecks are the checks of a scan by name; those of security.Checks, as a
// test there makes sure.
var ScanChecks = []string{
	"authentication", "key-validation", "key-lifetime", "tenant-objects", "rate-limit", "forwarded-headers",
	"billing", "prefix-cache", "chat-template", "cross-session", "system-prompt", "smuggling", "tls", "leaks",
	"open-doors", "headers-and-cors", "log-injection",
	"costly-requests", "crash", "slow-connections", "unread-streams", "load-shedding", "connection-exhaustion",
	"manifests", "nginx", "gateway-config", "permissions", "known-vulnerabilities",
}

const (
	// DefaultUsage is where the bundled gateway tells what an answer used.
	DefaultUsage = "/v1/usage/{id}"

	maxScanFiles = 100
)

// Scans reports whether the gate has a security scan.
func (g Gate) Scans() bool { return g.Scan != nil }

func (s Scan) resolved() *Scan {
	or(&s.Usage, DefaultUsage)
	return &s
}

// relativeTo has the files that a scan names lie beside the gate.
func (s *Scan) relativeTo(whole func(string) string) {
	for _, path := range []*string{&s.Manifests, &s.Nginx, &s.Gateway, &s.Waivers} {
		*path = whole(*path)
	}
	if !strings.Contains(s.Vulnerabilities, "://") {
		s.Vulnerabilities = whole(s.Vulnerabilities)
	}
	for _, list := range [][]string{s.Logs, s.Secrets, s.Binaries} {
		for i := range list {
			list[i] = whole(list[i])
		}
	}
}

func (c *checker) scan(g Gate) {
	s := g.Scan
	if s == nil {
		return
	}
	if e := g.Target.Endpoint; e != nil && strings.HasPrefix(e.URL, "grpc") {
		c.add("scan", "found it for %s, expected a service that speaks HTTP, at an address that begins with http", e.URL)
	}
	for _, list := range []struct {
		path  string
		names []string
	}{{"scan.only", s.Only}, {"scan.skip", s.Skip}} {
		for i, name := range list.names {
			if !slices.Contains(ScanChecks, name) {
				c.add(fmt.Sprintf("%s[%d]", list.path, i), "unknown check %s; %s", quoted(name), oneOf(name, ScanChecks))
			}
		}
	}
	for _, v := range []struct{ path, name string }{
		{"scan.other_key_env", s.OtherKeyEnv}, {"scan.expired_key_env", s.ExpiredKeyEnv}, {"scan.revoked_key_env", s.RevokedKeyEnv},
	} {
		if v.name != "" && !variableName.MatchString(v.name) {
			c.add(v.path, "expected the name of an environment variable, such as OTHER_KEY, and not the key itself")
		}
	}
	if s.Usage != "" && (!strings.HasPrefix(s.Usage, "/") || strings.Count(s.Usage, "{id}") != 1) {
		c.add("scan.usage", "found %s, expected a path with {id} in it, such as %s", quoted(s.Usage), DefaultUsage)
	}
	if len(s.SystemCanary) > 0 && (len(s.SystemCanary) < 6 || len(s.SystemCanary) > 200) {
		c.add("scan.system_canary", "found %d letters, expected a word of 6 to 200 that is in the service's system prompt and nowhere else", len(s.SystemCanary))
	}
	for i, address := range s.Addresses {
		path := fmt.Sprintf("scan.addresses[%d]", i)
		u, err := url.Parse(address)
		switch {
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil:
			c.add(path, "found %s, expected a URL such as http://127.0.0.1:9090", quoted(address))
		case g.Stop != nil && len(g.Stop.Hosts) > 0 && !slices.Contains(g.Stop.Hosts, u.Hostname()):
			c.add(path, "it is on %s, and this gate may only be played against %s (stop.hosts)", quoted(u.Hostname()), strings.Join(g.Stop.Hosts, ", "))
		}
	}
	for _, list := range []struct {
		path  string
		files []string
	}{{"scan.logs", s.Logs}, {"scan.secrets", s.Secrets}, {"scan.binaries", s.Binaries}, {"scan.addresses", s.Addresses}} {
		if len(list.files) > maxScanFiles {
			c.add(list.path, "found %d, expected at most %d; a folder stands for all in it", len(list.files), maxScanFiles)
		}
	}
	for _, f := range []struct{ path, file string }{
		{"scan.manifests", s.Manifests}, {"scan.nginx", s.Nginx}, {"scan.gateway", s.Gateway}, {"scan.waivers", s.Waivers}, {"scan.vulnerabilities", s.Vulnerabilities},
	} {
		c.length(f.path, f.file, maxText)
	}
}
