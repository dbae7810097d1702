package client

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/launchgate/launchgate/internal/words"
	"golang.org/x/net/http/httpproxy"
)

// throughProxy chooses the proxy that the environment names for the service, as every
// HTTP client does; nil if there is none. If a proxy cannot be used, the error says so:
// without it, the client would measure another path to the service than the users'.
func (c *Client) throughProxy() (func(*http.Request) (*url.URL, error), error) {
	target, err := url.Parse(c.base)
	if err != nil {
		return nil, nil // the first request reports it
	}
	asked := *target
	rpc := strings.HasPrefix(target.Scheme, "grpc")
	if rpc {
		asked.Scheme = strings.Replace(target.Scheme, "grpc", "http", 1)
	}
	find := httpproxy.FromEnvironment().ProxyFunc()
	proxy, err := find(&asked)
	switch {
	case err != nil:
		return nil, words.Errorf("the proxy in the environment (HTTP_PROXY, HTTPS_PROXY) is not a URL, expected one such as http://proxy:3128")
	case proxy == nil:
		return nil, nil
	case rpc:
		return nil, words.Errorf("the environment sets the proxy %s for %s, but gRPC does not go through proxies here; add the host to NO_PROXY", proxy.Redacted(), target.Host)
	case c.cfg.HTTP == "2" && target.Scheme == "http":
		return nil, words.Errorf("the environment sets the proxy %s for %s, but HTTP/2 without TLS cannot go through a proxy; add the host to NO_PROXY, or remove http: \"2\"", proxy.Redacted(), target.Host)
	case c.cfg.Via != "":
		return nil, words.Errorf("the environment sets the proxy %s for %s, but this gate breaks the network to the service and needs a direct connection; add the host to NO_PROXY", proxy.Redacted(), target.Host)
	}
	c.proxy = proxy.Redacted()
	return func(r *http.Request) (*url.URL, error) { return find(r.URL) }, nil
}

// Proxy is the proxy of requests; empty if they go to the service directly.
func (c *Client) Proxy() string { return c.proxy }
