package client

import (
	"context"
	"io"
	"net/http"

	"github.com/launchgate/launchgate/internal/words"
)

const (
	maxMetrics    = 16 << 20 // most bytes of the metrics page that are read
	mostRedirects = 3
)

// ErrNoMetrics is for a service that has no metrics beside its API.
var ErrNoMetrics = words.Errorf("the service has no /metrics")

// Metrics is the service's page /metrics, beside its API, in the text format of
// Prometheus. It is requested like the load: with the same certificates, key, headers
// and proxy. A redirect within the host is followed, because some servers have the page
// at /metrics/.
func (c *Client) Metrics(ctx context.Context) ([]byte, error) {
	if c.rpc != nil {
		return nil, words.Errorf("%s (it is reached over gRPC)", ErrNoMetrics)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/metrics"+c.query, nil)
	if err != nil {
		return nil, err
	}
	c.header(req)
	req.Header.Set("Accept", "text/plain;version=0.0.4")
	follow := &http.Client{Transport: c.transport, CheckRedirect: func(next *http.Request, before []*http.Request) error {
		if next.URL.Host != before[0].URL.Host || next.URL.Scheme != before[0].URL.Scheme || len(before) > mostRedirects {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	resp, err := follow.Do(req)
	if err != nil {
		return nil, words.Errorf("GET /metrics: %s", why(err))
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxMetrics))
	switch {
	case err != nil:
		return nil, words.Errorf("GET /metrics: %s", err)
	case absent(resp.StatusCode):
		return nil, words.Errorf("%s (%s)", ErrNoMetrics, clip(resp.Status))
	case resp.StatusCode != http.StatusOK:
		return nil, words.Errorf("GET /metrics answers %s: %s", clip(resp.Status), errorText(c.hidden.hide(b[:min(len(b), maxExcerpt)])))
	case isHTML(b):
		return nil, words.Errorf("%s (it answers with a page: %s)", ErrNoMetrics, errorText(c.hidden.hide(b[:min(len(b), maxExcerpt)])))
	}
	return b, nil
}
