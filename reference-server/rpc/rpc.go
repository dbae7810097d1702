// Package rpc serves an engine over gRPC: a streaming service (inference.proto)
// with the standard health service and reflection, so that grpcurl works
// without other files.
package rpc

//go:generate sh -c "PATH=$(dirname $(go tool -n protoc-gen-go)):$(dirname $(go tool -n protoc-gen-go-grpc)):$PATH protoc --go_out=inferencepb --go_opt=paths=source_relative --go-grpc_out=inferencepb --go-grpc_opt=paths=source_relative inference.proto"

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"github.com/launchgate/launchgate/reference-server/access"
	"github.com/launchgate/launchgate/reference-server/device"
	"github.com/launchgate/launchgate/reference-server/engine"
	"github.com/launchgate/launchgate/reference-server/rpc/inferencepb"
	"github.com/launchgate/launchgate/reference-server/sample"
)

// healthEvery is how often the health service checks whether the pool is ready.
const healthEvery = 250 * time.Millisecond

// Server is the service over a pool.
type Server struct {
	inferencepb.UnimplementedInferenceServer
	pool   *engine.Pool
	policy access.Policy
	health *health.Server
}

// open are the methods that anybody may call: probes.
const open = "/grpc.health.v1.Health/"

// admit refuses calls that do not come from the gateway, if there is a secret.
func (s *Server) admit(ctx context.Context, method string) error {
	if s.policy.Secret != "" && !strings.HasPrefix(method, open) && !s.policy.Proven(header(ctx)(access.HeaderSecret)) {
		return status.Error(codes.Unauthenticated, "this replica answers its gateway only; ask the gateway")
	}
	return nil
}

// header finds the metadata of a call.
func header(ctx context.Context) func(name string) string {
	return func(name string) string {
		if values := metadata.ValueFromIncomingContext(ctx, strings.ToLower(name)); len(values) > 0 {
			return values[0]
		}
		return ""
	}
}

// survive turns a panic in a call into an error of that call, so that others go
// on.
func survive(err *error) {
	if recover() != nil {
		*err = status.Error(codes.Internal, "the server failed at this request; others are not affected")
	}
}

func (s *Server) unary(ctx context.Context, q any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (answer any, err error) {
	defer survive(&err)
	if err := s.admit(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return next(ctx, q)
}

func (s *Server) stream(srv any, out grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer survive(&err)
	if err := s.admit(out.Context(), info.FullMethod); err != nil {
		return err
	}
	return next(srv, out)
}

// maxMessage is the largest size of a request.
const maxMessage = 8 << 20

// New registers the service, health and reflection with a gRPC server. It
// answers the callers that the policy allows.
func New(pool *engine.Pool, policy access.Policy, options ...grpc.ServerOption) (*Server, *grpc.Server) {
	s := &Server{pool: pool, policy: policy, health: health.NewServer()}
	g := grpc.NewServer(append(options, grpc.MaxRecvMsgSize(maxMessage), grpc.ChainUnaryInterceptor(s.unary), grpc.ChainStreamInterceptor(s.stream))...)
	inferencepb.RegisterInferenceServer(g, s)
	healthpb.RegisterHealthServer(g, s.health)
	reflection.Register(g)
	s.look()
	return s, g
}

// Watch updates the health service until ctx ends.
func (s *Server) Watch(ctx context.Context) {
	for ctx.Err() == nil {
		s.look()
		select {
		case <-ctx.Done():
		case <-time.After(healthEvery):
		}
	}
	s.health.Shutdown()
}

func (s *Server) look() {
	now := healthpb.HealthCheckResponse_SERVING
	if s.pool.Ready() != nil {
		now = healthpb.HealthCheckResponse_NOT_SERVING
	}
	for _, service := range []string{"", inferencepb.Inference_ServiceDesc.ServiceName} {
		s.health.SetServingStatus(service, now)
	}
}

// Models lists what is served.
func (s *Server) Models(context.Context, *inferencepb.ModelsRequest) (*inferencepb.ModelsResponse, error) {
	var out inferencepb.ModelsResponse
	for _, name := range s.pool.Names() {
		m := &inferencepb.Model{Name: name}
		for _, e := range s.pool.Loaded() {
			if i := e.Info(); i.Model == name {
				m.Loaded, m.MaxSequenceLength = true, int32(i.MaxSequence)
			}
		}
		out.Models = append(out.Models, m)
	}
	return &out, nil
}

// Generate streams an answer.
func (s *Server) Generate(q *inferencepb.GenerateRequest, out grpc.ServerStreamingServer[inferencepb.GenerateResponse]) error {
	if err := s.pool.Ready(); err != nil {
		return problem(err)
	}
	e, release, err := s.pool.Use(out.Context(), q.Model)
	if err != nil {
		return problem(err)
	}
	defer release()
	req, err := request(out.Context(), q, e)
	if err == nil {
		req.Caller, err = s.policy.Caller(header(out.Context()))
	}
	if err != nil {
		return problem(err)
	}
	stream, err := e.Submit(out.Context(), req)
	if err != nil {
		return problem(err)
	}
	for {
		ev, err := stream.Next(out.Context())
		if err == nil {
			err = ev.Err
		}
		if err != nil {
			return problem(err)
		}
		m := &inferencepb.GenerateResponse{Text: ev.Text, Tokens: int32(ev.Tokens), FinishReason: ev.Finish}
		if ev.Finish != "" {
			m.Usage = &inferencepb.Usage{PromptTokens: int32(ev.Usage.Prompt), CachedTokens: int32(ev.Usage.Cached), OutputTokens: int32(ev.Usage.Output)}
		}
		if err := out.Send(m); err != nil || ev.Finish != "" {
			return err
		}
	}
}

// The bounds of the HTTP API.
const (
	maxStops = 16
	maxStop  = 256 // bytes of each
)

// request is the engine's form of a request.
func request(ctx context.Context, q *inferencepb.GenerateRequest, e *engine.Engine) (engine.Request, error) {
	r := engine.Request{
		MaxTokens: int(q.MaxTokens), Stop: q.Stop, IgnoreEOS: q.IgnoreEos,
		Sampling: sample.Params{Temperature: 1, TopP: q.TopP, TopK: int(q.TopK), MinP: q.MinP, Seed: rand.Uint64()},
	}
	if q.Temperature != nil {
		r.Sampling.Temperature = *q.Temperature
	}
	if q.Seed != nil {
		r.Sampling.Seed = *q.Seed
	}
	switch {
	case len(q.Stop) > maxStops:
		return r, fmt.Errorf("stop has %d strings; up to %d are possible", len(q.Stop), maxStops)
	case slices.ContainsFunc(q.Stop, func(s string) bool { return s == "" || len(s) > maxStop }):
		return r, fmt.Errorf("a stop string has 1 to %d bytes", maxStop)
	case q.MaxTokens < 0:
		return r, errors.New("max_tokens must not be negative")
	case len(q.Messages) > 0 && q.Prompt != "":
		return r, errors.New("messages or a prompt, not both")
	case len(q.Messages) == 0:
		var err error
		r.Prompt, err = e.Prompt(ctx, q.Prompt)
		return r, err
	}
	if len(q.Messages) > engine.MaxMessages {
		return r, fmt.Errorf("there are %d messages; up to %d are possible", len(q.Messages), engine.MaxMessages)
	}
	var messages []engine.Message
	for _, m := range q.Messages {
		messages = append(messages, engine.Message{Role: m.Role, Content: m.Content})
	}
	var err error
	r.Prompt, err = e.ChatPrompt(ctx, messages)
	return r, err
}

// problem gives an engine's error its gRPC code.
func problem(err error) error {
	var full *engine.QueueFullError
	var unknown *engine.UnknownModelError
	var oom *device.OutOfMemoryError
	code := codes.InvalidArgument
	switch {
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.As(err, &full), errors.As(err, &oom), errors.Is(err, engine.ErrNoMemory):
		code = codes.ResourceExhausted
	case errors.As(err, &unknown):
		code = codes.NotFound
	case errors.Is(err, engine.ErrFault):
		code = codes.Internal
	case errors.Is(err, engine.ErrLoading), errors.Is(err, engine.ErrDraining):
		code = codes.Unavailable
	}
	return status.Error(code, err.Error())
}
