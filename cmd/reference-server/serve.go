package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/launchgate/launchgate/reference-server/access"
	"github.com/launchgate/launchgate/reference-server/api"
	"github.com/launchgate/launchgate/reference-server/backend/cuda"
	"github.com/launchgate/launchgate/reference-server/device"
	"github.com/launchgate/launchgate/reference-server/engine"
	"github.com/launchgate/launchgate/reference-server/gateway"
	defaultmodel "github.com/launchgate/launchgate/reference-server/models/default"
	"github.com/launchgate/launchgate/reference-server/rpc"
)

// drainFor is how long requests under way may take when the server is asked to
// stop: below the 30 s that Kubernetes waits.
const drainFor = 25 * time.Second

// serveOptions are the flags of serve.
type serveOptions struct {
	addr, grpcAddr, metricsAddr string
	logLevel                    string
	models                      []string // [NAME=]PATH[,QUANTIZATION]
	name                        string
	kvMiB, deviceMiB            int64
	deviceFile                  string
	device                      string // auto, cpu or cuda:N
	fraction                    float64
	secretFile                  string
	hosts                       []string
	cert, key                   string
	engine                      engine.Config // what all models have in common
}

func serveCommand(errOut io.Writer) *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve one model or several",
		Long: `serve loads a model and serves it with the OpenAI API. /health answers at
once, /ready when the model is loaded. A model that is not there yet is waited
for. SIGTERM lets what is under way end.

Several models share the device: --model a=a.gguf --model b=b.gguf. A request
names its model; one that is not loaded is loaded then, and idle ones are
unloaded when there is no memory for it. The same weights can be served in
several ways, of which PATH may be left out for the small model that is built
in: --model exact=,none --model quick=,int8.

A replica is for its gateway: with --gateway-secret-file it answers nobody else,
and believes what the gateway says of tenant and class. Without a secret keep it
on an address that only this host reaches.

A GPU computes where one is found (--device). Its own memory is the budget:
--gpu-memory-fraction of what is free at the start. On the CPU, the memory that
servers on this host may take together is --device-memory-mib, accounted for in
a file that they share, so that they compete for it as they would on a GPU.

Flags can be given by the environment too: MODEL_PATH, MODEL_NAME,
MAX_BATCH_SIZE, MAX_SEQUENCE_LENGTH, GPU_MEMORY_FRACTION, GATEWAY_SECRET and
LOG_LEVEL.
OTEL_EXPORTER_OTLP_ENDPOINT sends OpenTelemetry traces there.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLog(errOut, o.logLevel)
			if err != nil {
				return err
			}
			gpu, err := chooseDevice(o.device, log)
			if err != nil {
				return err
			}
			if gpu != nil {
				defer gpu.Close()
				o.onGPU(gpu, cmd.Flags().Changed)
			}
			return serve(cmd.Context(), o, log)
		},
	}
	var paths []string
	if path := environment("MODEL_PATH", ""); path != "" {
		paths = []string{path}
	}
	f := cmd.Flags()
	f.StringVar(&o.addr, "addr", "127.0.0.1:8080", "address of the API: HTTP/1.1, and HTTP/2 without TLS")
	f.StringVar(&o.grpcAddr, "grpc-addr", "127.0.0.1:8081", "address of the gRPC service; empty for none")
	f.StringVar(&o.metricsAddr, "metrics-addr", "127.0.0.1:9090", "address of the Prometheus metrics")
	f.StringArrayVar(&o.models, "model", paths, "a GGUF file or a Hugging Face folder, as `[NAME=]PATH[,QUANTIZATION]`; may be repeated (default: the small model that is built in)")
	f.StringVar(&o.name, "model-name", environment("MODEL_NAME", ""), "what a single model is called in the API (default: by its file)")
	f.StringVar(&o.engine.Quantization, "quantization", engine.DefaultQuantization, "how weights are kept: none, fp16 or int8")
	f.IntVar(&o.engine.Threads, "threads", 0, "threads that compute (default: one for each core, or as many as the container may use)")
	f.IntVar(&o.engine.MaxBatch, "max-batch-size", number("MAX_BATCH_SIZE", engine.DefaultMaxBatch), "requests that are computed together")
	f.IntVar(&o.engine.MaxTokens, "max-step-tokens", engine.DefaultMaxTokens, "tokens that are computed in one step: more is faster for prompts, less is smoother for others")
	f.IntVar(&o.engine.MaxSequence, "max-sequence-length", number("MAX_SEQUENCE_LENGTH", engine.DefaultMaxSequence), "tokens of a prompt and its answer, at most the model's context")
	f.IntVar(&o.engine.MaxQueue, "max-queue", engine.DefaultMaxQueue, "requests that may wait; more are answered 429")
	f.Int64Var(&o.kvMiB, "kv-cache-mib", engine.DefaultKVBytes>>20, "the most memory for keys and values of a model, in MiB (default on a GPU: what the fraction leaves)")
	f.StringVar(&o.engine.KVCache, "kv-cache", engine.DefaultKVCache, "how keys and values are kept: auto (float32 on the CPU, 16 bits on a GPU) or int8, of which about 4 or 2 times as many fit")
	f.StringVar(&o.engine.Activations, "activations", engine.DefaultActivations, "what a GPU multiplies int8 weights by in steps with prompts: 16 (bits), int8, fp8 (Hopper), or auto: int8 where that is faster, else 16")
	f.Float64Var(&o.fraction, "gpu-memory-fraction", fraction("GPU_MEMORY_FRACTION", engine.DefaultFraction), "share of the device's free memory that a model and its cache may take")
	f.Int64Var(&o.deviceMiB, "device-memory-mib", defaultMiB(os.DirFS("/")), "memory of the device, shared by all servers on this host: 7/8 of the host's, or of its container's limit, where it is left out")
	f.StringVar(&o.device, "device", "auto", "what computes: cpu, cuda:N, or auto: the first GPU where one is found, else the CPU")
	f.StringVar(&o.deviceFile, "device-file", device.DefaultPath(), "the `file` that they share")
	f.BoolVar(&o.engine.NoPrefix, "no-prefix-cache", false, "compute every prompt anew, even where it begins like an earlier one")
	f.BoolVar(&o.engine.SharePrefix, "share-prefix-cache", false, "let tenants find what others' prompts left in the cache: faster where all begin alike, but each can tell what others ask")
	f.StringVar(&o.secretFile, "gateway-secret-file", "", "a `file` with the secret that the gateway has too; with one, only the gateway is answered (or GATEWAY_SECRET)")
	f.StringArrayVar(&o.hosts, "allow-host", nil, "a `name` under which this replica may be asked without a secret, beside addresses and localhost; may be repeated")
	f.StringVar(&o.cert, "tls-cert", "", "a certificate for the API and gRPC, read again when its file changes; without one they speak in clear")
	f.StringVar(&o.key, "tls-key", "", "its key")
	f.StringVar(&o.logLevel, "log-level", environment("LOG_LEVEL", "info"), "debug, info, warn or error")
	return cmd
}

func modelFileCommand(out io.Writer) *cobra.Command {
	return &cobra.Command{Use: "model-file", Short: "Print the path of the built-in model, unpacked", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			path, err := defaultmodel.Path()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(out, path)
			return err
		}}
}

// chooseDevice opens the GPU that is asked for; nil is the CPU. The log says
// which and why.
func chooseDevice(name string, log *slog.Logger) (*cuda.GPU, error) {
	index, named, err := parseDevice(name)
	if err != nil {
		return nil, err
	}
	if index < 0 {
		log.Info("device", "device", "cpu", "why", "--device cpu")
		return nil, nil
	}
	gpu, err := cuda.Open(index)
	if err != nil && named {
		return nil, fmt.Errorf("--device %s: %w", name, err)
	}
	if err != nil {
		log.Info("device", "device", "cpu", "why", fmt.Sprintf("no GPU can be used: %v", err))
		return nil, nil
	}
	log.Info("device", "device", gpu.Describe(), "why", "--device "+name)
	return gpu, nil
}

// parseDevice reads --device: which GPU is meant, -1 being the CPU, and whether
// it was named.
func parseDevice(name string) (index int, named bool, err error) {
	switch n, cut := strings.CutPrefix(name, "cuda:"); {
	case name == "auto":
		return 0, false, nil
	case name == "cpu":
		return -1, true, nil
	case cut:
		if index, err = strconv.Atoi(n); err == nil && index >= 0 {
			return index, true, nil
		}
	}
	return -1, true, fmt.Errorf("--device is %q; auto, cpu and cuda:0, cuda:1 … are possible", name)
}

// What a GPU does by default where nobody says otherwise: its steps take as long
// for many tokens as for a few.
const (
	gpuBatch = 256
	gpuStep  = 2048
	gpuQueue = 1024
)

// onGPU has the models computed on a GPU, with defaults for one.
func (o *serveOptions) onGPU(gpu *cuda.GPU, changed func(flag string) bool) {
	o.engine.GPU = gpu
	for _, d := range []struct {
		flag, variable string
		v              *int
		n              int
	}{{"max-batch-size", "MAX_BATCH_SIZE", &o.engine.MaxBatch, gpuBatch}, {"max-step-tokens", "", &o.engine.MaxTokens, gpuStep}, {"max-queue", "", &o.engine.MaxQueue, gpuQueue}} {
		if !changed(d.flag) && environment(d.variable, "") == "" {
			*d.v = d.n
		}
	}
	if !changed("kv-cache-mib") {
		o.kvMiB = math.MaxInt64 >> 20 // all that the fraction leaves
	}
}

// fraction is the number in an environment variable; what is not one makes the
// flag's check fail.
func fraction(name string, otherwise float64) float64 {
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	f, err := strconv.ParseFloat(v, 64)
	if err != nil {
		return -1
	}
	return f
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
	}{{"max-batch-size", o.engine.MaxBatch}, {"max-step-tokens", o.engine.MaxTokens}, {"max-sequence-length", o.engine.MaxSequence}, {"max-queue", o.engine.MaxQueue}, {"kv-cache-mib", int(o.kvMiB)}, {"device-memory-mib", int(o.deviceMiB)}} {
		if n.v < 1 {
			return fmt.Errorf("--%s must be a number from 1 on", n.name)
		}
	}
	if o.engine.Threads < 0 {
		return fmt.Errorf("--threads is %d; 1 and more, or 0 for one a core, are possible", o.engine.Threads)
	}
	if !(o.fraction > 0 && o.fraction <= 1) {
		return fmt.Errorf("--gpu-memory-fraction is %v; above 0 to 1 is possible", o.fraction)
	}
	o.engine.KVBytes, o.engine.Fraction = o.kvMiB<<20, o.fraction
	return nil
}

// configs are what each model is served with.
func (o serveOptions) configs() ([]engine.Config, error) {
	d, err := device.Open(o.deviceFile, o.deviceMiB<<20)
	if err != nil {
		return nil, err
	}
	models := o.models
	if len(models) == 0 {
		models = []string{defaultmodel.Name + "="}
	}
	var configs []engine.Config
	for _, m := range models {
		c := o.engine
		c.Device = d
		c.Path = m
		// A path may have = and , in it: then it is a file that is there.
		if _, err := os.Stat(m); err != nil {
			if name, path, ok := strings.Cut(m, "="); ok {
				c.Name, c.Path = name, path
			}
			_, err := os.Stat(c.Path)
			if at := strings.LastIndexByte(c.Path, ','); err != nil && at >= 0 {
				c.Path, c.Quantization = c.Path[:at], c.Path[at+1:]
			}
		}
		if c.Path == "" {
			if c.Path, err = defaultmodel.Path(); err != nil {
				return nil, err
			}
		}
		configs = append(configs, c)
	}
	if o.name != "" && len(configs) > 1 {
		return nil, errors.New("--model-name is for a single model; of several each is named: --model NAME=PATH")
	}
	if o.name != "" {
		configs[0].Name = o.name
	}
	return configs, nil
}

// access is whom the replica answers, and its certificate, nil where it speaks
// in clear.
func (o serveOptions) access(log *slog.Logger) (p access.Policy, certificate *tls.Config, err error) {
	p.Hosts = o.hosts
	p.Secret, err = gatewaySecret(o.secretFile)
	if err == nil && o.cert != "" {
		certificate, err = gateway.LoadTLS(o.cert, o.key, log)
	}
	if host, _, split := net.SplitHostPort(o.addr); p.Secret == "" && split == nil {
		if ip := net.ParseIP(host); host == "" || ip != nil && !ip.IsLoopback() {
			log.Warn("anybody who reaches this address may use the replica: give it and its gateway a secret (--gateway-secret-file)", "addr", o.addr)
		}
	}
	return p, certificate, err
}

// serve listens first, so that a taken port is told at once, then loads, then
// serves until ctx ends.
func serve(ctx context.Context, o serveOptions, log *slog.Logger) error {
	if err := o.check(); err != nil {
		return err
	}
	configs, err := o.configs()
	if err != nil {
		return err
	}
	policy, certificate, err := o.access(log)
	if err != nil {
		return err
	}
	flush, err := startTracing(ctx, "launchgate-reference-server")
	if err != nil {
		return err
	}
	defer flush()
	pool, err := engine.NewPool(configs, log)
	if err != nil {
		return err
	}
	s := api.New(pool, policy, log)
	front, err := listen(o.addr, s.Handler(), certificate)
	if err != nil {
		return err
	}
	defer front.Close()
	back, err := listen(o.metricsAddr, metricsMux(s.Metrics()), nil)
	if err != nil {
		return err
	}
	defer back.Close()
	stopRPC, err := serveRPC(o.grpcAddr, pool, policy, certificate)
	if err != nil {
		return err
	}
	defer stopRPC(false)
	log.Info("listening", "api", front.url(), "grpc", o.grpcAddr, "metrics", back.url()+"/metrics")

	defer func() { pool.Close(); s.Wait() }()
	if err := pool.WaitForFiles(ctx); ctx.Err() != nil {
		return nil // it was asked to stop, and serves nobody yet
	} else if err != nil {
		return err
	}
	if err := pool.Load(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case err := <-front.failed:
		return err
	case err := <-back.failed:
		return err
	}
	log.Info("stopping: requests under way may end", "within", drainFor)
	pool.Drain()
	stopRPC(true)
	return drain(front, drainFor)
}

// serveRPC serves gRPC, where it has an address. The function it returns stops
// it: at once, or when what is under way has ended.
func serveRPC(addr string, pool *engine.Pool, policy access.Policy, certificate *tls.Config) (stop func(gracefully bool), err error) {
	if addr == "" {
		return func(bool) {}, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s for gRPC: %w", addr, err)
	}
	var options []grpc.ServerOption
	if certificate != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(certificate)))
	}
	s, g := rpc.New(pool, policy, options...)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Watch(ctx) })
	running.Go(func() { _ = g.Serve(l) }) // ends with Stop
	return func(gracefully bool) {
		if gracefully {
			late := time.AfterFunc(drainFor, g.Stop)
			g.GracefulStop()
			late.Stop()
		}
		g.Stop()
		cancel()
		running.Wait()
	}, nil
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

const (
	// idleLimit is longer than callers keep a connection that nobody uses: who
	// closes one just when it is used again costs a request.
	idleLimit   = 2 * time.Minute
	headerLimit = 64 << 10
)

// listen serves over TLS where there is a certificate, and in clear otherwise.
func listen(addr string, h http.Handler, certificate *tls.Config) (*listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", addr, err)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	s := &listener{at: l.Addr(), failed: make(chan error, 1), Server: &http.Server{Handler: h, TLSConfig: certificate, Protocols: &protocols,
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: idleLimit, MaxHeaderBytes: headerLimit}}
	serve := s.Serve
	if certificate != nil {
		serve = func(l net.Listener) error { return s.ServeTLS(l, "", "") }
	}
	go func() { // ends with Close or Shutdown
		if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	}()
	return s, nil
}

func (l *listener) url() string { return "http://" + l.at.String() }

// drain lets requests under way end.
func drain(l interface{ Shutdown(context.Context) error }, within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if err := l.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}
