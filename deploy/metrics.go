package deploy

import (
	"context"
	"io"
	"net/http"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/launchgate/launchgate/internal/words"
)

const mostMetrics = 16 << 20 // the most bytes of an answer that are read

// Metrics are the URLs of the metrics of all processes of the deployment.
func (l *Local) Metrics() []Source {
	all := make([]Source, len(l.scraped))
	for i, s := range l.scraped {
		all[i] = Source{Name: s.Name, URL: "http://" + s.Address + "/metrics"}
	}
	return all
}

// Scrape reads the metrics of a process of a deployment from a URL, by their
// names. It is not for a service that launchgate did not deploy: reaching that
// may need a certificate, a key or a proxy, which its client has.
func Scrape(ctx context.Context, url string) (map[string]*dto.MetricFamily, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/plain;version=0.0.4")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, words.Errorf("%s answers %s", url, resp.Status)
	}
	return ReadMetrics(io.LimitReader(resp.Body, mostMetrics))
}

// ReadMetrics reads metrics in Prometheus's text format, by their names.
func ReadMetrics(page io.Reader) (map[string]*dto.MetricFamily, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(page)
}
