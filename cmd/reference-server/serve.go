package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
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

// drainFor is how long requests under way may take when the server stops. It is
// less than the 30 s that Kubernetes waits.
const drainFor = 25 * time.Second

// serveOptions are the flags of serve.
type serveOptions struct {
	addr, grpcAddr, metricsAddr string
	logLevel                    string
	models                      []string // [NAME=]PATH[,QUANTIZATION]
	name                        string
	loadFormat                  string // auto or dummy
	kvMiB, deviceMiB, gpuMiB    int64
	deviceFile                  string
	device                      string // auto, cpu or cuda:N
	fraction                    float64
	secretFile                  string
	everybody                   bool
	hosts                       []string
	cert, key                   string
	engine                      engine.Config // settings of all models
}

func serveCommand(errOut io.Writer) *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve one or more models",
		Long: `serve loads a model and serves it through an OpenAI-compatible API. /health answers
at once, /ready when the model is loaded. If the model file does not exist yet, serve
waits for it. After SIGTERM, serve completes the requests under way and ends.

Several models can share the device: --model a=a.gguf --model b=b.gguf. Each request
names its model. serve loads a model on its first request and unloads idle models when
it needs their memory. The same weights can be served with different quantizations. An
empty PATH means the built-in model: --model exact=,none --model quick=,int8.

With --gateway-secret-file, serve answers only its gateway and takes tenant and class
from the gateway's headers. Without a secret, serve starts only on addresses that other
hosts cannot reach, unless --answer-everybody allows others.

serve uses a GPU if it finds one (--device). --gpu-memory-fraction limits the share of
its free memory that serve takes. On the CPU, --device-memory-mib limits the memory
that all servers on this host take together. They share it through --device-file, as
they would share a GPU.

These environment variables set the default of their flags: MODEL_PATH, MODEL_NAME,
MAX_BATCH_SIZE, MAX_SEQUENCE_LENGTH, GPU_MEMORY_FRACTION, GATEWAY_SECRET and LOG_LEVEL.
With OTEL_EXPORTER_OTLP_ENDPOINT, serve exports OpenTelemetry traces to that address.`,
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
	o.modelFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.addr, "addr", "127.0.0.1:8080", "address of the API (HTTP/1.1 and HTTP/2)")
	f.StringVar(&o.grpcAddr, "grpc-addr", "127.0.0.1:8081", "address of the gRPC service; empty: no gRPC")
	f.StringVar(&o.metricsAddr, "metrics-addr", "127.0.0.1:9090", "address of the Prometheus metrics")
	f.IntVar(&o.engine.Threads, "threads", 0, "number of compute threads (default: one for each core, or as many as the container may use)")
	f.StringVar(&o.engine.Activations, "activations", engine.DefaultActivations, "the type of activations that a GPU multiplies with int8 weights in steps with prompts: 16 (bits), int8, fp8 (Hopper), or auto (int8 where it is faster, else 16)")
	f.Float64Var(&o.fraction, "gpu-memory-fraction", fraction("GPU_MEMORY_FRACTION", engine.DefaultFraction), "the share of the device's free memory that a model and its KV cache may take")
	f.Int64Var(&o.gpuMiB, "gpu-memory-mib", 0, "the most memory of a GPU in MiB that a model and its KV cache may take, so that several servers can share the GPU; 0: what --gpu-memory-fraction says")
	f.Int64Var(&o.deviceMiB, "device-memory-mib", defaultMiB(os.DirFS("/")), "memory in MiB that all servers on this host share on the CPU; default: 7/8 of the memory of the host or of its container's limit")
	f.StringVar(&o.device, "device", "auto", "the compute device: cpu, cuda:N, or auto (the first GPU, or the CPU if there is none)")
	f.StringVar(&o.deviceFile, "device-file", device.DefaultPath(), "the `file` through which servers share --device-memory-mib")
	f.BoolVar(&o.engine.Deterministic, "deterministic", false, "make the answers to the same prompt, settings and seed the same to the last bit, whatever else is computed beside them; on a GPU this is slower, on the CPU it is always so")
	f.BoolVar(&o.engine.NoPrefix, "no-prefix-cache", false, "do not reuse the KV blocks of earlier prompts")
	f.BoolVar(&o.engine.SharePrefix, "share-prefix-cache", false, "share the prefix cache between tenants: faster if their prompts begin alike, but a tenant can find out what others ask")
	f.StringVar(&o.secretFile, "gateway-secret-file", "", "a `file` with the secret shared with the gateway; with it, only the gateway is served (or GATEWAY_SECRET)")
	f.BoolVar(&o.everybody, "answer-everybody", false, "serve without a secret on an address that other hosts may reach")
	f.StringArrayVar(&o.hosts, "allow-host", nil, "without a secret, another host `name` that requests may use besides IP addresses and localhost; may be repeated")
	f.StringVar(&o.cert, "tls-cert", "", "the certificate of the API and gRPC, reloaded when the file changes; without one there is no TLS")
	f.StringVar(&o.key, "tls-key", "", "the private key of --tls-cert")
	f.StringVar(&o.logLevel, "log-level", environment("LOG_LEVEL", "info"), "debug, info, warn or error")
	return cmd
}

func modelFileCommand(out io.Writer) *cobra.Command {
	return &cobra.Command{Use: "model-file", Short: "Unpack the built-in model and print its path", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			path, err := defaultmodel.Path()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(out, path)
			return err
		}}
}

// chooseDevice opens the GPU that the flag asks for. nil is the CPU. The log
// says which device is used and why.
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

// parseDevice reads --device. index is the GPU, or -1 for the CPU; named says
// whether the flag names a device.
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
	return -1, true, fmt.Errorf("--device: found %q, expected auto, cpu, or cuda:0, cuda:1 …", name)
}

// The defaults for a GPU. Its steps take as long for many tokens as for a few.
const (
	gpuBatch = 256
	gpuStep  = 2048
	gpuQueue = 1024
)

// onGPU sets the options to compute on a GPU, with its defaults.
func (o *serveOptions) onGPU(gpu *cuda.GPU, changed func(flag string) bool) {
	o.engine.GPU = gpu
	o.gpuDefaults(changed)
}

// The values of --load-format.
const (
	loadAuto  = "auto"
	loadDummy = "dummy"
)

// fraction is the number in an environment variable. If it is not a number, the
// flag's check fails.
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

// number is the whole number in an environment variable. If it is not one, the
// flag's check fails.
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
			return fmt.Errorf("--%s: expected a number of 1 or more", n.name)
		}
	}
	if o.loadFormat != loadAuto && o.loadFormat != loadDummy {
		return fmt.Errorf("--load-format: found %q, expected %s or %s", o.loadFormat, loadAuto, loadDummy)
	}
	if o.engine.Threads < 0 {
		return fmt.Errorf("--threads: found %d, expected 1 or more, or 0 for one thread per core", o.engine.Threads)
	}
	if !(o.fraction > 0 && o.fraction <= 1) {
		return fmt.Errorf("--gpu-memory-fraction: found %v, expected more than 0 and at most 1", o.fraction)
	}
	if o.gpuMiB < 0 {
		return fmt.Errorf("--gpu-memory-mib: found %d, expected a number of MiB, or 0 for what --gpu-memory-fraction says", o.gpuMiB)
	}
	o.engine.KVBytes, o.engine.Fraction, o.engine.GPUBytes = o.kvMiB<<20, o.fraction, o.gpuMiB<<20
	return nil
}

// configs are the engine configurations of the models.
func (o serveOptions) configs() ([]engine.Config, error) {
	d, err := device.Open(o.deviceFile, o.deviceMiB<<20)
	if err != nil {
		return nil, err
	}
	models := o.models
	if o.loadFormat == loadDummy && len(models) == 0 {
		return nil, errors.New("--load-format dummy: found no --model, expected the shape of the random weights, such as --model llama-8b")
	}
	if len(models) == 0 {
		models = []string{defaultmodel.Name + "="}
	}
	var configs []engine.Config
	for _, m := range models {
		c := o.engine
		c.Device = d
		if c.Dummy = o.loadFormat == loadDummy; c.Dummy {
			if c.Tokenizer, err = defaultmodel.Path(); err != nil {
				return nil, err
			}
		}
		c.Path = m
		// An existing file may have = and , in its path.
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
			c.Dummy = false // the built-in model has its weights
			if c.Path, err = defaultmodel.Path(); err != nil {
				return nil, err
			}
		}
		configs = append(configs, c)
	}
	if o.name != "" && len(configs) > 1 {
		return nil, errors.New("--model-name names a single model; with several models, use --model NAME=PATH")
	}
	if o.name != "" {
		configs[0].Name = o.name
	}
	return configs, nil
}

// access is the policy of the replica and its certificate, which is nil without
// TLS.
func (o serveOptions) access(ctx context.Context, log *slog.Logger) (p access.Policy, certificate *tls.Config, err error) {
	p.Hosts = o.hosts
	p.Secret, err = gatewaySecret(o.secretFile)
	if err == nil && o.cert != "" {
		certificate, err = gateway.LoadTLS(o.cert, o.key, log)
	}
	if err == nil && p.Secret == "" && !o.everybody {
		err = errors.Join(onlyThisHost(ctx, "--addr", o.addr), onlyThisHost(ctx, "--grpc-addr", o.grpcAddr))
	}
	return p, certificate, err
}

// onlyThisHost refuses an address that other hosts may reach.
func onlyThisHost(ctx context.Context, flag, addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil { // an empty or invalid address
		return nil
	}
	reach := "any address"
	if host != "" {
		ips, err := net.DefaultResolver.LookupIP(ctx, "ip", host)
		if err != nil {
			return fmt.Errorf("%s %s: %w", flag, addr, err)
		}
		i := slices.IndexFunc(ips, func(ip net.IP) bool { return !ip.IsLoopback() })
		if i < 0 {
			return nil
		}
		reach = ips[i].String()
	}
	return fmt.Errorf("%s %s: found %s and no secret, so anybody who reaches it could use the replica; give it and its gateway a secret (--gateway-secret-file or GATEWAY_SECRET), listen on 127.0.0.1, or say --answer-everybody", flag, addr, reach)
}

// serve first listens, so that a taken port is an error at once. Then it loads
// the models, and serves until ctx ends.
func serve(ctx context.Context, o serveOptions, log *slog.Logger) error {
	if err := o.check(); err != nil {
		return err
	}
	configs, err := o.configs()
	if err != nil {
		return err
	}
	policy, certificate, err := o.access(ctx, log)
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
	front, err := gateway.Listen(o.addr, s.Handler(), certificate, log)
	if err != nil {
		return err
	}
	defer front.Close()
	back, err := gateway.Listen(o.metricsAddr, metricsMux(s.Metrics()), nil, log)
	if err != nil {
		return err
	}
	defer back.Close()
	stopRPC, err := serveRPC(o.grpcAddr, pool, policy, certificate)
	if err != nil {
		return err
	}
	defer stopRPC(false)
	log.Info("listening", "api", urlOf(front, certificate), "grpc", o.grpcAddr, "metrics", urlOf(back, nil)+"/metrics")

	defer func() { pool.Close(); s.Wait() }()
	if err := pool.WaitForFiles(ctx); ctx.Err() != nil {
		return nil // stopped before it served
	} else if err != nil {
		return err
	}
	if err := pool.Load(); err != nil {
		return err
	}
	<-ctx.Done()
	log.Info("stopping: requests under way may end", "within", drainFor)
	pool.Drain()
	stopRPC(true)
	return drain(front, drainFor)
}

// serveRPC serves gRPC if there is an address. The function that it returns
// stops it: at once, or when the calls under way have ended.
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

// urlOf is the URL of a listener.
func urlOf(d *gateway.Listener, certificate *tls.Config) string {
	if certificate != nil {
		return "https://" + d.Addr().String()
	}
	return "http://" + d.Addr().String()
}

// drain lets requests under way end.
func drain(l *gateway.Listener, within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if err := l.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}
