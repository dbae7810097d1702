package api

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/launchgate/launchgate/reference-server/engine"
)

// metrics are the names that the production guide's alerts and dashboards use,
// and a few more.
type metrics struct {
	registry     *prometheus.Registry
	requests     *prometheus.CounterVec   // model, status
	duration     *prometheus.HistogramVec // model, operation
	first        *prometheus.HistogramVec // model
	gaps         *prometheus.HistogramVec // model
	used         *prometheus.CounterVec   // model, type
	httpRequests *prometheus.CounterVec   // method, path, status
	httpDuration *prometheus.HistogramVec // method, path
}

// latencyBuckets range from a cached answer to one for which no user would
// wait.
var latencyBuckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2, 5, 10, 30, 60, 120}

func newMetrics(pool *engine.Pool) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ai_requests_total", Help: "Completion requests, by how they ended: ok, an HTTP status, error or cancelled."}, []string{"model", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "ai_request_duration_seconds", Help: "From a request's arrival to the end of its answer.", Buckets: latencyBuckets}, []string{"model", "operation"}),
		first:    prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "ai_time_to_first_token_seconds", Help: "From a request's arrival to its first token.", Buckets: latencyBuckets}, []string{"model"}),
		gaps: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "ai_inter_token_latency_seconds", Help: "Between two tokens of a streamed answer.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 5}}, []string{"model"}),
		used:         prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ai_tokens_total", Help: "Tokens of answered requests: prompt, cached (part of prompt) and completion."}, []string{"model", "type"}),
		httpRequests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "http_requests_total", Help: "HTTP requests."}, []string{"method", "path", "status"}),
		httpDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "http_request_duration_seconds", Help: "From an HTTP request's arrival to the end of its answer.", Buckets: latencyBuckets}, []string{"method", "path"}),
	}
	m.registry.MustRegister(m.requests, m.duration, m.first, m.gaps, m.used, m.httpRequests, m.httpDuration, engineCollector{pool},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if c := newNVML(pool); c != nil {
		m.registry.MustRegister(c)
	}
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

func (m *metrics) answered(a answer, status string) {
	m.requests.WithLabelValues(a.model, status).Inc()
	m.duration.WithLabelValues(a.model, a.operation()).Observe(time.Since(a.began).Seconds())
}

func (m *metrics) firstToken(a answer) {
	m.first.WithLabelValues(a.model).Observe(time.Since(a.began).Seconds())
}

func (m *metrics) gap(a answer, d time.Duration) {
	m.gaps.WithLabelValues(a.model).Observe(d.Seconds())
}

func (m *metrics) tokens(a answer, u engine.Usage) {
	m.used.WithLabelValues(a.model, "prompt").Add(float64(u.Prompt))
	m.used.WithLabelValues(a.model, "cached").Add(float64(u.Cached))
	m.used.WithLabelValues(a.model, "completion").Add(float64(u.Output))
}

func (a answer) operation() string {
	if a.chat {
		return "chat"
	}
	return "completion"
}

// measured counts the requests to h. The path label is the route, so that a
// scanner cannot create unlimited labels.
func (m *metrics) measured(h *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		path := "other"
		if _, pattern := h.Handler(r); pattern != "/" && pattern != "" {
			path = pattern
		}
		seen := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			m.httpRequests.WithLabelValues(method(r), path, strconv.Itoa(seen.status)).Inc()
			m.httpDuration.WithLabelValues(method(r), path).Observe(time.Since(began).Seconds())
		}()
		h.ServeHTTP(seen, r)
	})
}

func method(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodPost, http.MethodHead, http.MethodOptions:
		return r.Method
	}
	return "other"
}

// statusWriter records the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController flush.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// engineCollector reads the engines' own numbers when it is scraped.
type engineCollector struct{ pool *engine.Pool }

// engineMetric is a number of an engine.
type engineMetric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(engine.Stats) float64
}

func gauge(name, help string, read func(engine.Stats) float64) engineMetric {
	return engineMetric{prometheus.NewDesc(name, help, []string{"model"}, nil), prometheus.GaugeValue, read}
}

func counter(name, help string, read func(engine.Stats) float64) engineMetric {
	return engineMetric{prometheus.NewDesc(name, help, []string{"model"}, nil), prometheus.CounterValue, read}
}

var engineMetrics = []engineMetric{
	gauge("ai_queue_size", "Requests that wait to be computed.", func(s engine.Stats) float64 { return float64(s.Waiting) }),
	gauge("inference_queue_size", "The same, under the name that autoscaling uses.", func(s engine.Stats) float64 { return float64(s.Waiting) }),
	gauge("ai_batch_size", "Requests that are computed together.", func(s engine.Stats) float64 { return float64(s.Running) }),
	gauge("ai_kv_blocks_used", "KV blocks that requests hold.", func(s engine.Stats) float64 { return float64(s.KVInUse) }),
	gauge("ai_kv_blocks_free", "KV blocks that no request holds; what they keep of earlier prompts is given up when they are needed.", func(s engine.Stats) float64 { return float64(s.KVBlocks - s.KVInUse) }),
	gauge("ai_kv_blocks_leaked", "KV blocks that were held when nothing ran: always 0, or a fault of the engine.", func(s engine.Stats) float64 { return float64(s.KVLeaked) }),
	gauge("ai_kv_used_ratio", "Share of the KV blocks that requests hold.", func(s engine.Stats) float64 { return s.KVUsed }),
	counter("ai_prefix_cache_hit_tokens_total", "Prompt tokens whose keys and values the cache had.", func(s engine.Stats) float64 { return float64(s.CachedTokens) }),
	counter("ai_prefix_cache_queried_tokens_total", "Prompt tokens that were looked up.", func(s engine.Stats) float64 { return float64(s.PromptTokens) }),
	counter("ai_preemptions_total", "Requests that gave up their KV blocks to others and were computed again.", func(s engine.Stats) float64 { return float64(s.Preemptions) }),
	counter("ai_out_of_memory_total", "Times that the device had no memory for the cache to grow.", func(s engine.Stats) float64 { return float64(s.OutOfMemory) }),
	counter("ai_steps_total", "Steps of the engine.", func(s engine.Stats) float64 { return float64(s.Steps) }),
	counter("ai_step_tokens_total", "Tokens computed, of prompts and answers.", func(s engine.Stats) float64 { return float64(s.StepTokens) }),
	counter("ai_step_seconds_total", "Time spent in steps.", func(s engine.Stats) float64 { return s.StepSeconds }),
	counter("ai_device_idle_seconds_total", "Time a GPU had no work between two steps while requests ran, by its own clock; 0 on the CPU.", func(s engine.Stats) float64 { return s.IdleSeconds }),
}

var (
	memoryUsed  = prometheus.NewDesc("nvidia_gpu_memory_used_bytes", "Memory of the device in use that is taken, by everybody.", []string{"gpu", "kind"}, nil)
	determined  = prometheus.NewDesc("ai_deterministic", "1 if answers to the same prompt, settings and seed are the same to the last bit whatever else is computed, 0 if not.", []string{"model"}, nil)
	loadTook    = prometheus.NewDesc("ai_model_load_seconds", "Time from the start of a model's loading until it was ready.", []string{"model"}, nil)
	memoryTotal = prometheus.NewDesc("nvidia_gpu_memory_total_bytes", "Memory of the device in use.", []string{"gpu", "kind"}, nil)
)

func (c engineCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range engineMetrics {
		ch <- m.desc
	}
	ch <- determined
	ch <- loadTook
	ch <- memoryUsed
	ch <- memoryTotal
}

// Collect reports the loaded models. Models that are not loaded have no values,
// not zeros.
func (c engineCollector) Collect(ch chan<- prometheus.Metric) {
	for _, e := range c.pool.Loaded() {
		stats, model := e.Stats(), e.Info().Model
		for _, m := range engineMetrics {
			ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.read(stats), model)
		}
		promised := 0.
		if e.Info().Deterministic {
			promised = 1
		}
		ch <- prometheus.MustNewConstMetric(determined, prometheus.GaugeValue, promised, model)
		ch <- prometheus.MustNewConstMetric(loadTook, prometheus.GaugeValue, e.Info().LoadTook.Seconds(), model)
	}
	if u, ok := c.pool.Memory(); ok {
		gpu, kind := "0", "cpu"
		if uuid := c.pool.GPU(); uuid != "" { // as NVML's metrics name it
			gpu, kind = uuid, "cuda"
		}
		ch <- prometheus.MustNewConstMetric(memoryUsed, prometheus.GaugeValue, float64(u.Used), gpu, kind)
		ch <- prometheus.MustNewConstMetric(memoryTotal, prometheus.GaugeValue, float64(u.Total), gpu, kind)
	}
}
