package client

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/launchgate/launchgate/internal/words"
)

// healthPaths are the paths of health checks: of vLLM, SGLang, TGI, llama.cpp and the
// bundled service; of services on Kubernetes; of Triton.
var healthPaths = []string{"/health", "/healthz", "/livez", "/v2/health/ready"}

const healthFor = 2 * time.Second

// HealthPath is the path of the service's health check; false if it has none.
func (c *Client) HealthPath(ctx context.Context) (string, bool) {
	if c.rpc != nil {
		return "", false
	}
	for _, path := range healthPaths {
		switch status, _ := c.status(ctx, path); {
		case status >= 200 && status < 300, status >= 500 && status != http.StatusNotImplemented:
			return path, true
		}
	}
	return "", false
}

// Health makes the health check. It returns an error if the service is not healthy, and
// the status that it answered.
func (c *Client) Health(ctx context.Context, path string) (status string, err error) {
	code, err := c.status(ctx, path)
	switch {
	case err != nil:
		return err.Error(), err
	case code < 200 || code > 299:
		return http.StatusText(code), words.Errorf("%s answers with status %d", path, code)
	}
	return http.StatusText(code), nil
}

// page requests a page of the service outside its API, such as /health.
func (c *Client) page(ctx context.Context, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path+c.query, nil)
	if err != nil {
		return nil, err
	}
	c.header(req)
	return c.transport.RoundTrip(req)
}

// status requests a page and returns its status.
func (c *Client) status(ctx context.Context, path string) (int, error) {
	limited, cancel := context.WithTimeout(ctx, healthFor)
	defer cancel()
	resp, err := c.page(limited, path)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxExcerpt)) // so that the connection can be used again
	return resp.StatusCode, nil
}
