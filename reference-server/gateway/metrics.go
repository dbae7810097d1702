package gateway

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are the Prometheus metrics of the gateway.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec   // method, path, status
	duration *prometheus.HistogramVec // method, path
	retried  *prometheus.CounterVec   // replica
	broken   *prometheus.CounterVec   // replica
	refused  *prometheus.CounterVec   // code
	degraded *prometheus.CounterVec   // how

	unaudited prometheus.Counter
}

func newMetrics(b *balancer) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "http_requests_total", Help: "HTTP requests."}, []string{"method", "path", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "http_request_duration_seconds", Help: "From an HTTP request's arrival to the end of its answer.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2, 5, 10, 30, 60, 120}}, []string{"method", "path"}),
		retried:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gateway_retries_total", Help: "Requests that a replica failed before its first byte."}, []string{"replica"}),
		broken:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gateway_broken_streams_total", Help: "Answers that a replica broke off in the middle."}, []string{"replica"}),
		refused:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gateway_refused_total", Help: "Requests that the guard did not let in, by the code of the error."}, []string{"code"}),
		degraded: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gateway_degraded_total", Help: "Requests that were shed or shortened because replicas were overloaded."}, []string{"how"}),
	}
	m.unaudited = prometheus.NewCounter(prometheus.CounterOpts{Name: "gateway_unaudited_total", Help: "Lines that the audit log did not take when they were due."})
	m.registry.MustRegister(m.unaudited, m.requests, m.duration, m.retried, m.broken, m.refused, m.degraded, replicaCollector{b},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	// The series that alerts use exist from the start. A rate needs two samples, so
	// a series that first appeared during an outage would show no increase.
	for _, status := range []int{http.StatusOK, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable} {
		m.requests.WithLabelValues(http.MethodPost, "/v1/", strconv.Itoa(status))
	}
	for _, r := range b.replicas {
		m.retried.WithLabelValues(r.Name)
		m.broken.WithLabelValues(r.Name)
	}
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// measured counts what passes through h, by the routes' own paths.
func (m *metrics) measured(h *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		_, path := h.Handler(r)
		method := "other"
		if r.Method == http.MethodGet || r.Method == http.MethodPost {
			method = r.Method
		}
		seen := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		defer func() { // also when the proxy cuts a broken stream by a panic
			m.requests.WithLabelValues(method, path, strconv.Itoa(seen.status)).Inc()
			m.duration.WithLabelValues(method, path).Observe(time.Since(began).Seconds())
		}()
		h.ServeHTTP(seen, r)
	})
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets the proxy flush.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// replicaCollector reads the balancer when it is scraped.
type replicaCollector struct{ b *balancer }

var (
	readyDesc    = prometheus.NewDesc("gateway_replica_ready", "Whether requests are sent to the replica.", []string{"replica"}, nil)
	inFlightDesc = prometheus.NewDesc("gateway_replica_in_flight", "Requests under way at the replica.", []string{"replica"}, nil)
)

func (c replicaCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- readyDesc
	ch <- inFlightDesc
}

func (c replicaCollector) Collect(ch chan<- prometheus.Metric) {
	for _, r := range c.b.status().Replicas {
		ready := 0.0
		if r.Ready {
			ready = 1
		}
		ch <- prometheus.MustNewConstMetric(readyDesc, prometheus.GaugeValue, ready, r.Name)
		ch <- prometheus.MustNewConstMetric(inFlightDesc, prometheus.GaugeValue, float64(r.InFlight), r.Name)
	}
}
