package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/reference-server/api"
	"github.com/launchgate/launchgate/reference-server/engine"
	defaultmodel "github.com/launchgate/launchgate/reference-server/models/default"
)

// drainFor is how long requests under way may take when the server is asked to
// stop: below the 30 s that Kubernetes waits.
const drainFor = 25 * time.Second

// serveOptions are the flags of serve.
type serveOptions struct {
	addr, metricsAddr string
	logLevel          string
	kvMiB             int64
	engine            engine.Config
}

func serveCommand(errOut io.Writer) *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve a model",
		Long: `serve loads a model and serves it with the OpenAI API. /health answers at
once, /ready when the model is loaded. SIGTERM lets what is under way end.

Flags can be given by the environment too: MODEL_PATH, MODEL_NAME,
MAX_BATCH_SIZE, MAX_SEQUENCE_LENGTH and LOG_LEVEL.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLog(errOut, o.logLevel)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), o, log)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.addr, "addr", "127.0.0.1:8080", "address of the API")
	f.StringVar(&o.metricsAddr, "metrics-addr", "127.0.0.1:9090", "address of the Prometheus metrics")
	f.StringVar(&o.engine.Path, "model", environment("MODEL_PATH", ""), "a GGUF file or a Hugging Face folder (default: the small model that is built in)")
	f.StringVar(&o.engine.Name, "model-name", environment("MODEL_NAME", ""), "what the model is called in the API (default: by its file)")
	f.StringVar(&o.engine.Quantization, "quantization", engine.DefaultQuantization, "how weights are kept: none, fp16 or int8")
	f.IntVar(&o.engine.Threads, "threads", 0, "threads that compute (default: one for each core)")
	f.IntVar(&o.engine.MaxBatch, "max-batch-size", number("MAX_BATCH_SIZE", engine.DefaultMaxBatch), "requests that are computed together")
	f.IntVar(&o.engine.MaxTokens, "max-step-tokens", engine.DefaultMaxTokens, "tokens that are computed in one step: more is faster for prompts, less is smoother for others")
	f.IntVar(&o.engine.MaxSequence, "max-sequence-length", number("MAX_SEQUENCE_LENGTH", engine.DefaultMaxSequence), "tokens of a prompt and its answer, at most the model's context")
	f.IntVar(&o.engine.MaxQueue, "max-queue", engine.DefaultMaxQueue, "requests that may wait; more are answered 429")
	f.Int64Var(&o.kvMiB, "kv-cache-mib", engine.DefaultKVBytes>>20, "memory for keys and values, in MiB")
	f.BoolVar(&o.engine.NoPrefix, "no-prefix-cache", false, "compute every prompt anew, even where it begins like an earlier one")
	f.StringVar(&o.logLevel, "log-level", environment("LOG_LEVEL", "info"), "debug, info, warn or error")
	return cmd
}

// number is the whole number in an environment variable; what is not one makes
// the flag's check fail.
func number(name string, otherwise int) int {
	n, err := strconv.Atoi(environment(name, strconv.Itoa(otherwise)))
	if err != nil {
		return -1
	}
	return n
}

func (o *serveOptions) check() error {
	for _, n := range []struct {
		name string
		v    int
	}{{"max-batch-size", o.engine.MaxBatch}, {"max-step-tokens", o.engine.MaxTokens}, {"max-sequence-length", o.engine.MaxSequence}, {"max-queue", o.engine.MaxQueue}, {"kv-cache-mib", int(o.kvMiB)}} {
		if n.v < 1 {
			return fmt.Errorf("--%s must be a number from 1 on", n.name)
		}
	}
	if o.engine.Threads < 0 {
		return fmt.Errorf("--threads is %d; 1 and more, or 0 for one a core, are possible", o.engine.Threads)
	}
	o.engine.KVBytes = o.kvMiB << 20
	return nil
}

// serve listens first, so that a taken port is told at once, then loads, then
// serves until ctx ends.
func serve(ctx context.Context, o serveOptions, log *slog.Logger) error {
	if err := o.check(); err != nil {
		return err
	}
	s := api.New(log)
	front, err := listen(o.addr, s.Handler())
	if err != nil {
		return err
	}
	defer front.Close()
	back, err := listen(o.metricsAddr, metricsMux(s.Metrics()))
	if err != nil {
		return err
	}
	defer back.Close()
	log.Info("listening", "api", front.url(), "metrics", back.url()+"/metrics")

	e, err := load(o.engine, s, log)
	if err != nil {
		return err
	}
	defer e.Close()
	computing, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { e.Run(computing); close(done) }()
	defer func() { stop(); <-done }()
	s.Serve(e)

	select {
	case <-ctx.Done():
	case err := <-front.failed:
		return err
	case err := <-back.failed:
		return err
	}
	log.Info("stopping: requests under way may end", "within", drainFor)
	s.Drain()
	e.Drain()
	return front.drain(drainFor)
}

func load(c engine.Config, s *api.Server, log *slog.Logger) (*engine.Engine, error) {
	if c.Path == "" {
		path, err := defaultmodel.Path()
		if err != nil {
			return nil, err
		}
		c.Path = path
		if c.Name == "" {
			c.Name = defaultmodel.Name
		}
	}
	c.Progress = s.Loading
	e, err := engine.Open(c)
	if err != nil {
		return nil, err
	}
	i := e.Info()
	log.Info("model is loaded", "model", i.Model, "architecture", i.Architecture, "backend", i.Backend, "quantization", i.Quantization,
		"weights_mib", i.WeightBytes>>20, "kv_mib", i.KVBytes>>20, "kv_tokens", i.KVTokens, "took", i.LoadTook.Round(time.Millisecond))
	return e, nil
}

func metricsMux(h http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", h)
	return mux
}

// listener is an HTTP server that runs.
type listener struct {
	*http.Server
	at     net.Addr
	failed chan error
}

func listen(addr string, h http.Handler) (*listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", addr, err)
	}
	s := &listener{Server: &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}, at: l.Addr(), failed: make(chan error, 1)}
	go func() { // ends with Close or Shutdown
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	}()
	return s, nil
}

func (l *listener) url() string { return "http://" + l.at.String() }

// drain lets requests under way end.
func (l *listener) drain(within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if err := l.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}
