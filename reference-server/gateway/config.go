package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/launchgate/launchgate/reference-server/ledger"
)

// Config is the content of gateway.yaml: the limits of a gateway that asks for API
// keys. Keys that the file leaves out have the defaults of the production guide.
// Unknown keys are errors.
type Config struct {
	Network  Limit           `yaml:"network"`  // of each client address
	Networks []NetworkLimit  `yaml:"networks"` // exceptions; the first that holds the address counts
	Key      Limit           `yaml:"key"`      // of each API key
	Tenant   Budget          `yaml:"tenant"`   // of each tenant
	Tenants  map[string]Plan `yaml:"tenants"`  // exceptions, by name
	Classes  []string        `yaml:"classes"`  // the least important first
	Degrade  Degrade         `yaml:"degrade"`

	Connections Connections    `yaml:"connections"`
	Bodies      Bodies         `yaml:"bodies"`
	Background  Background     `yaml:"background"`
	Keep        Keep           `yaml:"keep"`
	Audit       Audit          `yaml:"audit"`
	Proxies     []netip.Prefix `yaml:"proxies"` // such as nginx, whose X-Forwarded-For is believed at /validate
}

// Limit is a token bucket of requests.
type Limit struct {
	Rate  float64 `yaml:"rate"` // per second
	Burst int     `yaml:"burst"`
}

// NetworkLimit is the limit of each address in a network.
type NetworkLimit struct {
	CIDR  netip.Prefix `yaml:"cidr"`
	Limit `yaml:",inline"`

	Connections int `yaml:"connections"` // open at once; 0: as many as any address
}

// classOf maps the class of a key to the number that replicas use, from 3 for the
// most important to 1 for the least.
func (c *Config) classOf(k ledger.Key) string {
	place := max(0, slices.Index(c.Classes, k.Class)) // an unknown class is the least
	return strconv.Itoa(max(1, 4-len(c.Classes)+place))
}

// isProxy reports whether an address is that of a proxy that is trusted.
func (c *Config) isProxy(a netip.Addr) bool {
	return slices.ContainsFunc(c.Proxies, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Budget bounds a tenant over all its keys; 0 is no bound.
type Budget struct {
	Concurrency     int `yaml:"concurrency"`
	TokensPerMinute int `yaml:"tokens_per_minute"`
}

// Plan overrides the defaults for one tenant.
type Plan struct {
	Budget `yaml:",inline"`
	Key    *Limit `yaml:"key"` // of each of its keys
}

// Bodies bounds the megabytes of request bodies in memory. A body is held until its
// answer begins; 0 is no bound.
type Bodies struct {
	Tenant int `yaml:"tenant"`
	All    int `yaml:"all"`
}

// Background bounds the stored background responses.
type Background struct {
	Tenant Stored `yaml:"tenant"`
	All    Stored `yaml:"all"`
}

// Stored bounds the responses that wait or are being computed, and the size of all
// stored texts; 0 is no bound.
type Stored struct {
	Responses int `yaml:"responses"`
	Megabytes int `yaml:"megabytes"`
}

func (s Stored) bound() ledger.Bound {
	return ledger.Bound{Responses: int64(s.Responses), Bytes: int64(s.Megabytes) * megabyte}
}

// Keep is how long rows of the ledger are kept; 0 keeps them for ever.
type Keep struct {
	Responses time.Duration `yaml:"responses"` // that have ended
	Usage     time.Duration `yaml:"usage"`
}

// Audit is the audit log.
type Audit struct {
	Unwritable string `yaml:"unwritable"` // refuse or serve: what happens to requests while it cannot be written
	Megabytes  int    `yaml:"megabytes"`  // after which the file is rotated
	Files      int    `yaml:"files"`      // rotated files that are kept; 0: it is never rotated
}

// Degrade is the load shedding when replicas have more than Queue requests under
// way each. Requests of the class at index i of Classes are refused above
// Queue·(i+1), but those of the most important class never, and those of a tenant with
// less than its share of that only if more important classes make the load. Answers of a class in
// Shorten are shortened above half of that.
type Degrade struct {
	Queue     int      `yaml:"queue"`      // 0: nothing ever gives way
	MaxTokens int      `yaml:"max_tokens"` // of an answer past the mark; 0: as asked
	Shorten   []string `yaml:"shorten"`    // the classes that allow it
}

// budgetOf is the budget of a tenant.
func (c *Config) budgetOf(tenant string) Budget {
	if plan, special := c.Tenants[tenant]; special {
		return plan.Budget
	}
	return c.Tenant
}

// keyLimit is the limit of each key of a tenant.
func (c *Config) keyLimit(tenant string) Limit {
	if plan := c.Tenants[tenant]; plan.Key != nil {
		return *plan.Key
	}
	return c.Key
}

// DefaultConfig has the limits of the production guide.
func DefaultConfig() Config {
	return Config{
		Network: Limit{10, 20}, Key: Limit{100, 100}, Tenant: Budget{Concurrency: 256},
		Classes:     []string{"batch", "standard", "interactive"},
		Degrade:     Degrade{Queue: 30, MaxTokens: 64, Shorten: []string{"batch"}},
		Connections: Connections{Address: 256, Tenant: 1024},
		Bodies:      Bodies{Tenant: 128, All: 512},
		Background:  Background{Stored{1000, 64}, Stored{10_000, 512}},
		Keep:        Keep{24 * time.Hour, 400 * 24 * time.Hour},
		Audit:       Audit{"refuse", 64, 8},
	}
}

// ReadConfig reads a gateway.yaml. Errors name the file and the line.
func ReadConfig(path string) (Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("the gateway's configuration: %w", err)
	}
	return parseConfig(path, b)
}

func parseConfig(name string, b []byte) (Config, error) {
	c := DefaultConfig()
	if err := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict()).Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		var at yaml.Error
		if errors.As(err, &at) && at.GetToken() != nil {
			return Config{}, fmt.Errorf("%s:%d: %s", name, at.GetToken().Position.Line, at.GetMessage())
		}
		return Config{}, fmt.Errorf("%s: %w", name, err)
	}
	if err := c.check(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

func (c Config) check() error {
	limits := map[string]Limit{"network": c.Network, "key": c.Key}
	for i, n := range c.Networks {
		if !n.CIDR.IsValid() {
			return fmt.Errorf("networks[%d].cidr is missing, expected one such as 127.0.0.2/32", i)
		}
		if n.Connections < 0 {
			return fmt.Errorf("networks[%d].connections: found %d, expected 0 (as many as any address) or more", i, n.Connections)
		}
		limits[fmt.Sprintf("networks[%d]", i)] = n.Limit
	}
	for name, plan := range c.Tenants {
		if plan.Key != nil {
			limits["tenants."+name+".key"] = *plan.Key
		}
		if plan.Concurrency < 0 || plan.TokensPerMinute < 0 {
			return fmt.Errorf("tenants.%s: found a negative budget, expected 0 (none) or more", name)
		}
	}
	for name, l := range limits {
		if !(l.Rate > 0) || l.Burst < 1 {
			return fmt.Errorf("%s: found rate %v and burst %d, expected a rate above 0 and a burst of 1 or more", name, l.Rate, l.Burst)
		}
	}
	for i, p := range c.Proxies {
		if !p.IsValid() {
			return fmt.Errorf("proxies[%d]: found no network, expected one such as 127.0.0.1/32", i)
		}
	}
	if c.Audit.Unwritable != "refuse" && c.Audit.Unwritable != "serve" {
		return fmt.Errorf("audit.unwritable: found %q, expected refuse or serve", c.Audit.Unwritable)
	}
	if min(c.Bodies.Tenant, c.Bodies.All, c.Background.Tenant.Responses, c.Background.Tenant.Megabytes, c.Background.All.Responses, c.Background.All.Megabytes, c.Audit.Megabytes, c.Audit.Files) < 0 || min(c.Keep.Responses, c.Keep.Usage) < 0 {
		return errors.New("bodies, background, keep and audit: found a negative number, expected 0 (no bound) or more")
	}
	if c.Connections.Address < 1 || c.Connections.Tenant < 0 || c.Connections.All < 0 {
		return fmt.Errorf("connections: found address %d, tenant %d and all %d, expected 1 or more of an address and 0 (no bound of its own) or more of the others", c.Connections.Address, c.Connections.Tenant, c.Connections.All)
	}
	if len(c.Classes) == 0 {
		return errors.New("classes: found none, expected at least one")
	}
	if c.Degrade.Queue < 0 || c.Degrade.MaxTokens < 0 || c.Tenant.Concurrency < 0 || c.Tenant.TokensPerMinute < 0 {
		return errors.New("degrade and tenant: found a negative number, expected 0 (no bound) or more")
	}
	return nil
}
