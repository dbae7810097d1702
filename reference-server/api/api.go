// Package api speaks the OpenAI protocol for an engine: chat and text
// completions, streamed or whole, the list of models, health and readiness,
// and Prometheus metrics on a port of their own.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/launchgate/launchgate/internal/flaws"
	"github.com/launchgate/launchgate/reference-server/access"
	"github.com/launchgate/launchgate/reference-server/device"
	"github.com/launchgate/launchgate/reference-server/engine"
)

const maxBody = 8 << 20 // bytes of a request

// Server answers requests with the engines of a pool.
type Server struct {
	log     *slog.Logger
	pool    *engine.Pool
	metrics *metrics
	policy  access.Policy

	responses responses // those in the background
	accounts  accounts
}

// New is a server over a pool, whose models may still be loading. It answers
// the callers that the policy allows.
func New(pool *engine.Pool, policy access.Policy, log *slog.Logger) *Server {
	s := &Server{log: log, pool: pool, policy: policy, responses: responses{byID: map[string]*response{}}}
	s.metrics = newMetrics(pool)
	return s
}

// Handler serves the API.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", s.health)
	mux.HandleFunc("GET /ready", s.ready)
	mux.HandleFunc("GET /v1/models", s.models)
	mux.HandleFunc("GET /v1/models/{model}", s.model)
	mux.HandleFunc("POST /v1/chat/completions", s.chat)
	mux.HandleFunc("POST /v1/completions", s.completion)
	mux.HandleFunc("POST /v1/responses", s.respond)
	mux.HandleFunc("GET /v1/responses/{id}", s.getResponse)
	mux.HandleFunc("POST /v1/responses/{id}/cancel", s.cancelResponse)
	mux.HandleFunc("DELETE /v1/responses/{id}", s.deleteResponse)
	mux.HandleFunc("POST /tokenize", s.tokenize)
	mux.HandleFunc("POST /detokenize", s.detokenize)
	mux.HandleFunc("GET /usage/{request}", s.used)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, problem{http.StatusNotFound, "not_found", fmt.Sprintf("%s %s is not served; POST /v1/chat/completions, POST /v1/completions, POST /v1/responses, POST /tokenize, POST /detokenize, GET /v1/models, GET /health and GET /ready are", r.Method, r.URL.Path), 0})
	})
	return s.guarded(s.metrics.measured(mux))
}

// guarded answers only the callers that the policy allows, and sets the
// security headers for browsers. A panic ends only its own request.
func (s *Server) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secure(w.Header())
		seen := &statusWriter{ResponseWriter: w}
		w = seen
		defer s.survive(seen, r)
		if probe := r.Method == http.MethodGet && (r.URL.Path == "/health" || r.URL.Path == "/ready"); !probe {
			if no := s.policy.Check(r); no != nil {
				fail(w, problem{no.Status, no.Code, no.Text, 0})
				return
			}
		}
		caller, err := s.policy.Caller(r.Header.Get)
		if err != nil {
			fail(w, problemOf(err))
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, caller)))
	})
}

// secure sets the headers of every answer.
func secure(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
}

// HeaderPrompt gives a gateway the number of prompt tokens before the answer
// begins. The client may leave before the end of the answer, which has the
// whole usage.
const HeaderPrompt = "X-Launchgate-Prompt-Tokens"

// HeaderFault tells a gateway that the request, and not the replica, caused the
// failure, so that another replica would fail too.
const HeaderFault = "X-Launchgate-Fault"

// survive answers a request whose handler panicked.
func (s *Server) survive(w *statusWriter, r *http.Request) {
	switch p := recover(); p {
	case nil:
	case http.ErrAbortHandler:
		panic(p) // net/http's own way to end a connection
	default:
		s.log.Error("a request was not answered: the server failed at it", "path", r.URL.Path, "panic", fmt.Sprintf("%.200v", p), "stack", string(debug.Stack()))
		if w.status != 0 || flaws.On("panic-on-max-tokens") {
			panic(http.ErrAbortHandler) // the answer has begun, so the client must see that it is incomplete
		}
		fail(w, problemOf(engine.ErrFault))
	}
}

type callerKey struct{}

// callerOf is the caller of a request.
func callerOf(ctx context.Context) engine.Caller {
	c, _ := ctx.Value(callerKey{}).(engine.Caller)
	return c
}

// Metrics serves Prometheus metrics.
func (s *Server) Metrics() http.Handler { return s.metrics.handler() }

// health answers whether inference works: HTTP is served, and no engine hangs
// in a step.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	for _, e := range s.pool.Loaded() {
		if d := e.Stalled(); d > engine.StalledAfter {
			writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "stalled", "why": fmt.Sprintf("a step has not finished for %s", d.Round(time.Second))})
			return
		}
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// ready answers whether a request sent now would be computed.
func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	if err := s.pool.Ready(); err != nil {
		w.Header().Set("Retry-After", "1")
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "not ready", "why": err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"status": "ready", "models": s.pool.Names()})
}

// use is the engine of a request's model. While the server is starting it
// refuses, so that nobody waits for loading that may fail.
func (s *Server) use(r *http.Request, model string) (*engine.Engine, func(), error) {
	if err := s.pool.Ready(); errors.Is(err, engine.ErrLoading) {
		return nil, nil, err
	}
	return s.pool.Use(r.Context(), model)
}

func (s *Server) models(w http.ResponseWriter, _ *http.Request) {
	list := []any{}
	for _, name := range s.pool.Names() {
		list = append(list, s.describe(name))
	}
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": list})
}

func (s *Server) model(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("model")
	if !slices.Contains(s.pool.Names(), name) {
		fail(w, problemOf(&engine.UnknownModelError{Name: name, Served: s.pool.Names()}))
		return
	}
	writeJSON(w, http.StatusOK, s.describe(name))
}

func (s *Server) describe(name string) map[string]any {
	d := map[string]any{"id": name, "object": "model", "created": started.Unix(), "owned_by": "launchgate"}
	for _, e := range s.pool.Loaded() {
		if i := e.Info(); i.Model == name {
			d["created"], d["max_model_len"] = i.Loaded.Unix(), i.MaxSequence
			if flaws.On("echo-inside") {
				d["architecture"], d["quantization"], d["backend"] = i.Architecture, i.Quantization, i.Backend
			}
		}
	}
	return d
}

var started = time.Now()

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

// problemOf is the error that a client gets for an engine's error.
func problemOf(err error) problem {
	var full *engine.QueueFullError
	var unknown *engine.UnknownModelError
	var oom *device.OutOfMemoryError
	var long *engine.TooLongError
	var p problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &full):
		return problem{http.StatusTooManyRequests, "queue_full", err.Error(), full.RetryAfter}
	case errors.As(err, &long):
		return problem{http.StatusBadRequest, "context_length_exceeded", err.Error(), 0}
	case errors.As(err, &unknown):
		return problem{http.StatusNotFound, "model_not_found", err.Error(), 0}
	case errors.As(err, &oom), errors.Is(err, engine.ErrNoMemory):
		return problem{http.StatusServiceUnavailable, "out_of_memory", engine.ErrNoMemory.Error(), time.Second}
	case errors.Is(err, engine.ErrFault):
		return problem{http.StatusInternalServerError, "internal", err.Error(), 0}
	case errors.Is(err, engine.ErrLoading):
		return problem{http.StatusServiceUnavailable, "loading", err.Error(), time.Second}
	case errors.Is(err, engine.ErrDraining):
		return problem{http.StatusServiceUnavailable, "stopping", err.Error(), time.Second}
	}
	return problem{http.StatusBadRequest, "invalid_request", err.Error(), 0}
}

func fail(w http.ResponseWriter, p problem) {
	if p.status == http.StatusInternalServerError {
		w.Header().Set(HeaderFault, "request")
	}
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
