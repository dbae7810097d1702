// Package api speaks the OpenAI protocol for an engine: chat and text
// completions, streamed or whole, the list of models, health and readiness,
// and Prometheus metrics on a port of their own.
package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/launchgate/launchgate/reference-server/engine"
)

const (
	maxBody = 8 << 20 // bytes of a request
	// stalledAfter is how long a step may take before the server no longer calls
	// itself ready: a load balancer should not send work to an engine that hangs.
	stalledAfter = 20 * time.Second
)

// Server answers requests with an engine, once there is one.
type Server struct {
	log      *slog.Logger
	engine   atomic.Pointer[engine.Engine]
	loaded   atomic.Uint64 // percent
	draining atomic.Bool
	ids      atomic.Uint64
	metrics  *metrics
}

// New is a server whose model is still being loaded: it is healthy and not
// ready.
func New(log *slog.Logger) *Server {
	s := &Server{log: log}
	s.metrics = newMetrics(s)
	return s
}

// Loading tells how much of the model is loaded.
func (s *Server) Loading(done float64) { s.loaded.Store(uint64(done * 100)) }

// Serve makes the server ready.
func (s *Server) Serve(e *engine.Engine) { s.engine.Store(e) }

// Drain makes the server not ready, so that load balancers look elsewhere,
// while requests under way go on.
func (s *Server) Drain() { s.draining.Store(true) }

// Handler serves the API.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /ready", s.ready)
	mux.HandleFunc("GET /v1/models", s.withEngine(s.models))
	mux.HandleFunc("GET /v1/models/{model}", s.withEngine(s.model))
	mux.HandleFunc("POST /v1/chat/completions", s.withEngine(s.chat))
	mux.HandleFunc("POST /v1/completions", s.withEngine(s.completion))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, problem{http.StatusNotFound, "not_found", fmt.Sprintf("%s %s is not served; POST /v1/chat/completions, POST /v1/completions, GET /v1/models, GET /health and GET /ready are", r.Method, r.URL.Path), 0})
	})
	return s.metrics.measured(mux)
}

// Metrics serves Prometheus metrics.
func (s *Server) Metrics() http.Handler { return s.metrics.handler() }

// ready answers whether a request sent now would be computed.
func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	e := s.engine.Load()
	switch {
	case s.draining.Load():
		s.notReady(w, "stopping")
	case e == nil:
		s.notReady(w, fmt.Sprintf("loading the model: %d%%", s.loaded.Load()))
	case e.Stalled() > stalledAfter:
		s.notReady(w, fmt.Sprintf("the engine has not finished a step for %s", e.Stalled().Round(time.Second)))
	default:
		writeJSON(w, http.StatusOK, map[string]string{"status": "ready", "model": e.Info().Model})
	}
}

func (s *Server) notReady(w http.ResponseWriter, why string) {
	w.Header().Set("Retry-After", "1")
	writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "not ready", "why": why})
}

// withEngine refuses requests until the model is loaded.
func (s *Server) withEngine(h func(http.ResponseWriter, *http.Request, *engine.Engine)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		e := s.engine.Load()
		if e == nil {
			fail(w, problem{http.StatusServiceUnavailable, "loading", fmt.Sprintf("the model is being loaded (%d%%)", s.loaded.Load()), time.Second})
			return
		}
		h(w, r, e)
	}
}

func (s *Server) models(w http.ResponseWriter, _ *http.Request, e *engine.Engine) {
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": []any{describe(e)}})
}

func (s *Server) model(w http.ResponseWriter, r *http.Request, e *engine.Engine) {
	if name := r.PathValue("model"); name != e.Info().Model {
		fail(w, unknownModel(name, e))
		return
	}
	writeJSON(w, http.StatusOK, describe(e))
}

func describe(e *engine.Engine) map[string]any {
	i := e.Info()
	return map[string]any{
		"id": i.Model, "object": "model", "created": i.Loaded.Unix(), "owned_by": "launchgate",
		"max_model_len": i.MaxSequence, "architecture": i.Architecture, "quantization": i.Quantization, "backend": i.Backend,
	}
}

func unknownModel(name string, e *engine.Engine) problem {
	return problem{http.StatusNotFound, "model_not_found", fmt.Sprintf("the model %q is not served here; %q is", name, e.Info().Model), 0}
}

// problem is an error in OpenAI's shape.
type problem struct {
	status int
	code   string
	text   string
	retry  time.Duration // 0: trying again will not help
}

func (p problem) Error() string { return p.text }

func (p problem) body() map[string]any {
	kind := "invalid_request_error"
	if p.status >= 500 {
		kind = "server_error"
	} else if p.status == http.StatusTooManyRequests {
		kind = "rate_limit_error"
	}
	return map[string]any{"error": map[string]any{"message": p.text, "type": kind, "param": nil, "code": p.code}}
}

// problemOf says how an engine's error is told to a client.
func problemOf(err error) problem {
	var full *engine.QueueFullError
	var long *engine.TooLongError
	var p problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &full):
		return problem{http.StatusTooManyRequests, "queue_full", err.Error(), full.RetryAfter}
	case errors.As(err, &long):
		return problem{http.StatusBadRequest, "context_length_exceeded", err.Error(), 0}
	case errors.Is(err, engine.ErrDraining):
		return problem{http.StatusServiceUnavailable, "stopping", err.Error(), time.Second}
	}
	return problem{http.StatusBadRequest, "invalid_request", err.Error(), 0}
}

func fail(w http.ResponseWriter, p problem) {
	if p.retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(max(1, p.retry.Seconds()))))
	}
	writeJSON(w, p.status, p.body())
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}
