package rpc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/launchgate/launchgate/reference-server/access"
	"github.com/launchgate/launchgate/reference-server/engine"
	"github.com/launchgate/launchgate/reference-server/rpc/inferencepb"
)

// serving is a server over the default model, and a connection to it.
func serving(t *testing.T) (*engine.Pool, *grpc.ClientConn) {
	t.Helper()
	pool, err := engine.NewPool([]engine.Config{{Path: "../models/default/default.gguf", Name: "tiny"}}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := pool.Load(); err != nil {
		t.Fatal(err)
	}
	s, g := New(pool, access.Policy{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	watched := make(chan struct{})
	go func() { s.Watch(ctx); close(watched) }()
	go func() { _ = g.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); g.Stop(); cancel(); <-watched; pool.Close() })
	return pool, conn
}

func generate(t *testing.T, c inferencepb.InferenceClient, q *inferencepb.GenerateRequest) (text string, last *inferencepb.GenerateResponse, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	stream, err := c.Generate(ctx, q)
	if err != nil {
		return "", nil, err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return text, last, nil
		}
		if err != nil {
			return text, last, err
		}
		text, last = text+m.Text, m
	}
}

func TestGenerate(t *testing.T) {
	pool, conn := serving(t)
	c := inferencepb.NewInferenceClient(conn)
	zero := 0.0
	text, last, err := generate(t, c, &inferencepb.GenerateRequest{Prompt: "Once upon a time", MaxTokens: 12, Temperature: &zero})
	if err != nil || len(text) < 10 || last.FinishReason != "length" || last.Usage.OutputTokens != 12 {
		t.Errorf("%q %v %v", text, last, err)
	}
	// The answer is the same as the engine's without gRPC.
	e := pool.Loaded()[0]
	stream, err := e.Submit(context.Background(), engine.Request{Prompt: e.Tokenize("Once upon a time"), MaxTokens: 12})
	if err != nil {
		t.Fatal(err)
	}
	want := ""
	for {
		ev, err := stream.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		want += ev.Text
		if ev.Finish != "" {
			break
		}
	}
	if text != want {
		t.Errorf("%q, want %q", text, want)
	}
	if text, _, err := generate(t, c, &inferencepb.GenerateRequest{Messages: []*inferencepb.Message{{Role: "user", Content: "Hi"}}, MaxTokens: 5}); err != nil {
		t.Errorf("a chat: %q %v", text, err)
	}
	models, err := c.Models(context.Background(), &inferencepb.ModelsRequest{})
	if err != nil || len(models.Models) != 1 || models.Models[0].Name != "tiny" || !models.Models[0].Loaded {
		t.Errorf("%v %v", models, err)
	}
}

func TestErrorsHaveTheirCodes(t *testing.T) {
	pool, conn := serving(t)
	c := inferencepb.NewInferenceClient(conn)
	hot := 9.0
	for _, tt := range []struct {
		q    *inferencepb.GenerateRequest
		code codes.Code
	}{
		{&inferencepb.GenerateRequest{}, codes.InvalidArgument},
		{&inferencepb.GenerateRequest{Prompt: "x", Temperature: &hot}, codes.InvalidArgument},
		{&inferencepb.GenerateRequest{Prompt: "x", MaxTokens: -1}, codes.InvalidArgument},
		{&inferencepb.GenerateRequest{Prompt: "x", Messages: []*inferencepb.Message{{}}}, codes.InvalidArgument},
		{&inferencepb.GenerateRequest{Prompt: "x", Model: "other"}, codes.NotFound},
	} {
		if _, _, err := generate(t, c, tt.q); status.Code(err) != tt.code {
			t.Errorf("%v: %v, want %s", tt.q, err, tt.code)
		}
	}
	pool.Drain()
	if _, _, err := generate(t, c, &inferencepb.GenerateRequest{Prompt: "x"}); status.Code(err) != codes.Unavailable {
		t.Errorf("while stopping: %v", err)
	}
}

// A client that cancels frees its sequence.
func TestCancel(t *testing.T) {
	pool, conn := serving(t)
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := inferencepb.NewInferenceClient(conn).Generate(ctx, &inferencepb.GenerateRequest{Prompt: "Once", MaxTokens: 1000, IgnoreEos: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	for deadline := time.Now().Add(30 * time.Second); pool.Loaded()[0].Stats().Running > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the answer to nobody goes on")
		}
	}
}

func TestHealthAndReflection(t *testing.T) {
	pool, conn := serving(t)
	check := func() healthpb.HealthCheckResponse_ServingStatus {
		r, err := healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{Service: "launchgate.inference.v1.Inference"})
		if err != nil {
			t.Fatal(err)
		}
		return r.Status
	}
	if got := check(); got != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("%v", got)
	}
	pool.Drain()
	for deadline := time.Now().Add(30 * time.Second); check() == healthpb.HealthCheckResponse_SERVING; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("still healthy while it stops")
		}
	}
	r, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	if m, err := r.Recv(); err != nil || !strings.Contains(m.String(), "launchgate.inference.v1.Inference") {
		t.Errorf("%v %v", m, err)
	}
}

// The generated code matches the proto file.
func TestGeneratedCodeIsOfTheProto(t *testing.T) {
	if _, err := exec.LookPath("protoc"); err != nil {
		t.Skip("skipped: no protoc to generate with (apt-get install protobuf-compiler)")
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "inferencepb"), 0o755); err != nil {
		t.Fatal(err)
	}
	var path string
	for _, tool := range []string{"protoc-gen-go", "protoc-gen-go-grpc"} {
		out, err := exec.Command("go", "tool", "-n", tool).Output()
		if err != nil {
			t.Fatal(err)
		}
		path += filepath.Dir(strings.TrimSpace(string(out))) + ":"
	}
	cmd := exec.Command("protoc", "--go_out="+dir, "--go_opt=paths=source_relative", "--go-grpc_out="+dir, "--go-grpc_opt=paths=source_relative", "inference.proto")
	cmd.Env = append(os.Environ(), "PATH="+path+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"inference.pb.go", "inference_grpc.pb.go"} {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("inferencepb", name))
		// A comment has the version of protoc, which does not matter.
		if err != nil || withoutVersion(string(got)) != withoutVersion(string(want)) {
			t.Errorf("inferencepb/%s is not of inference.proto any more (%v): go generate ./reference-server/rpc", name, err)
		}
	}
}

func withoutVersion(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		if !strings.Contains(line, "protoc") {
			b.WriteString(line)
		}
	}
	return b.String()
}
