package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/loadgen/client/inferencepb"
)

const good = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"length\"}]}\n\ndata: [DONE]\n\n"

// Each Connection has connections of its own, and the client counts those of all.
func TestWaysToAService(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		w.Header().Set("X-Launchgate-Replica", host+" "+r.RemoteAddr+" "+r.Proto)
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, good)
	}))
	defer srv.Close()
	c, err := New(Config{BaseURL: srv.URL, Model: "m"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ask := func(way Connection) string {
		row := c.Do(t.Context(), Prompt{API: APIChat, Messages: []Message{{Role: "user", Content: "?"}}, MaxTokens: 1, Stream: true, Timeout: 5 * time.Second, Connection: way}, recording.NewClock(), 0)
		if !row.OK() {
			t.Fatalf("%+v: %s %s", way, row.Error, row.ErrorText)
		}
		return row.Replica
	}
	usual := ask(Connection{})
	if again := ask(Connection{}); again != usual {
		t.Errorf("%s, and then %s", usual, again)
	}
	if a, b := ask(Connection{New: true}), ask(Connection{New: true}); a == usual || a == b {
		t.Errorf("a connection of its own is %s, then %s, beside %s", a, b, usual)
	}
	if runtime.GOOS != "linux" {
		t.Skip("not every address in 127.0.0.0/8 is this host's here")
	}
	other := ask(Connection{From: "127.0.0.2"})
	if !strings.HasPrefix(other, "127.0.0.2 ") || other != ask(Connection{From: "127.0.0.2"}) {
		t.Errorf("from 127.0.0.2 it came from %s", other)
	}
	if n := c.Connections(); n != 2 {
		t.Errorf("%d connections are known to be open, want 2", n)
	}
	if _, err := c.Prepare(Prompt{API: APIChat, Connection: Connection{From: "192.0.2.1"}}); err == nil || !strings.Contains(err.Error(), "192.0.2.1, which is not an address of this host") {
		t.Errorf("from an address of another host: %v", err)
	}
}

// transports are several ways to serve the same handler.
func TestTransports(t *testing.T) {
	for _, tt := range []struct {
		name, http string
		tls, own   bool
		proto      string
		opened     int32 // connections opened by three requests
		protocol   string
	}{
		{"HTTP/1.1 without TLS", "", false, false, "HTTP/1.1", 1, "HTTP/1.1 without TLS"},
		{"HTTP/1.1 with connections of their own", "1.1", false, true, "HTTP/1.1", 3, "HTTP/1.1 without TLS"},
		{"HTTP/2 at once", "2", false, false, "HTTP/2.0", 1, "HTTP/2 without TLS"},
		{"HTTP/2 at once, connections of their own", "2", false, true, "HTTP/2.0", 3, "HTTP/2 without TLS"},
		{"HTTP/2 negotiated", "", true, false, "HTTP/2.0", 1, "HTTP/2 over TLS 1.3"},
		{"HTTP/1.1 under TLS", "1.1", true, false, "HTTP/1.1", 1, "HTTP/1.1 over TLS 1.3"},
		{"HTTP/2 under TLS", "2", true, false, "HTTP/2.0", 1, "HTTP/2 over TLS 1.3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const pause = 30 * time.Millisecond
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Launchgate-Replica", r.Proto)
				w.Header().Set("Content-Type", "text/event-stream")
				w.(http.Flusher).Flush()
				time.Sleep(pause)
				_, _ = io.WriteString(w, good)
			}))
			var opened atomic.Int32
			srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
				if s == http.StateNew {
					opened.Add(1)
				}
			}
			srv.Config.Protocols = new(http.Protocols)
			srv.Config.Protocols.SetHTTP1(true)
			srv.Config.Protocols.SetHTTP2(true)
			srv.Config.Protocols.SetUnencryptedHTTP2(true)
			cfg := Config{Model: "m", HTTP: tt.http, NewConnections: tt.own}
			if tt.tls {
				srv.EnableHTTP2 = true
				srv.StartTLS()
				cfg.CAFile = caFile(t, srv)
			} else {
				srv.Start()
			}
			defer srv.Close()
			cfg.BaseURL = srv.URL
			c := made(cfg)
			defer c.Close()
			clock := recording.NewClock()
			for range 3 {
				row := c.Do(context.Background(), prompt, clock, clock.Now())
				if !row.OK() || row.Replica != tt.proto {
					t.Fatalf("%s: %s %s", row.Replica, row.Error, row.ErrorText)
				}
				if row.Sent >= row.FirstByte || row.FirstToken-row.FirstByte < pause/2 || row.End < row.LastToken {
					t.Errorf("the times are out of order: %+v", row)
				}
			}
			if n := opened.Load(); n != tt.opened {
				t.Errorf("%d connections for three requests, want %d", n, tt.opened)
			}
			if _, reads := c.ReadDelay(); reads < 3 {
				t.Errorf("%d reads were timed, of at least 3", reads)
			}
			if err := c.Preflight(context.Background(), prompt); err != nil || c.Protocol().String() != tt.protocol {
				t.Errorf("%q is spoken, want %q (%v)", c.Protocol(), tt.protocol, err)
			}
			c.Close()
			for deadline := time.Now().Add(30 * time.Second); c.Connections() != 0; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%d connections count as open after all were closed", c.Connections())
				}
			}
		})
	}
}

// caFile writes the self-signed certificate of a test server.
func caFile(t *testing.T, srv *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The client connects to Via, and asks the service under its own name.
func TestVia(t *testing.T) {
	var host string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host = r.Host
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
	}))
	defer srv.Close()
	c, err := New(Config{BaseURL: "http://service.invalid:8000", Model: "m", Via: srv.Listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	row := c.Do(t.Context(), Prompt{API: APIChat, Messages: []Message{{"user", "Hello!"}}, MaxTokens: 1, Stream: true, Timeout: 10 * time.Second}, recording.NewClock(), 1)
	if !row.OK() || host != "service.invalid:8000" {
		t.Errorf("asked as %q: %+v", host, row)
	}
}

func TestCertificates(t *testing.T) {
	srv := httptest.NewTLSServer(sse(good))
	defer srv.Close()
	if row := made(Config{BaseURL: srv.URL}).Do(context.Background(), prompt, recording.NewClock(), 1); row.OK() || !strings.Contains(row.ErrorText, "certificate") {
		t.Errorf("a certificate that nobody trusts: %q (%s)", row.Error, row.ErrorText)
	}
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{empty, empty + ".gone"} {
		if _, err := New(Config{BaseURL: srv.URL, CAFile: file}); err == nil {
			t.Errorf("%s was taken for an authority", file)
		}
	}
}

// A service that asks for a client certificate is shown one, over HTTP 1.1 and 2.
func TestClientCertificate(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := x509.Certificate{SerialNumber: big.NewInt(7), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	certificate, err := x509.CreateCertificate(rand.Reader, &about, &about, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name, kind string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, key := file("client.pem", "CERTIFICATE", certificate), file("client.key", "PRIVATE KEY", secret)

	srv := httptest.NewUnstartedServer(sse(good))
	srv.EnableHTTP2 = true
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	ca := file("ca.pem", "CERTIFICATE", srv.Certificate().Raw)
	for _, version := range []string{"1.1", "2"} {
		if row := made(Config{BaseURL: srv.URL, CAFile: ca, HTTP: version}).Do(t.Context(), prompt, recording.NewClock(), 1); row.OK() {
			t.Errorf("HTTP/%s: a service that asks for a certificate was used without one", version)
		}
		if row := made(Config{BaseURL: srv.URL, CAFile: ca, HTTP: version, CertFile: cert, KeyFile: key}).Do(t.Context(), prompt, recording.NewClock(), 1); !row.OK() {
			t.Errorf("HTTP/%s: %s (%s)", version, row.Error, row.ErrorText)
		}
	}
	for _, wrong := range [][2]string{{cert, ca}, {key, key}, {cert, key + ".gone"}} {
		if _, err := New(Config{BaseURL: srv.URL, CertFile: wrong[0], KeyFile: wrong[1]}); err == nil || !strings.Contains(err.Error(), "client certificate") {
			t.Errorf("%v: %v", wrong, err)
		}
	}
}

// The times of chunks do not depend on when the client read them.
func TestTimesAreOfArrival(t *testing.T) {
	const late = 60 * time.Millisecond
	wrote := make(chan time.Time, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "x")
		wrote <- time.Now()
	}))
	defer srv.Close()
	c := made(Config{BaseURL: srv.URL})
	// The kernel begins to stamp packets a moment after the first socket has asked for
	// it.
	first, err := c.dial(context.Background(), "tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	time.Sleep(100 * time.Millisecond)
	dialled, err := c.dial(context.Background(), "tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer dialled.Close()
	ours := under(dialled)
	if ours == nil || !ours.receiver.stamped() {
		t.Skip("the kernel stamps no packets here")
	}
	if _, err := io.WriteString(dialled, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	sent := <-wrote
	time.Sleep(late)
	if _, err := dialled.Read(make([]byte, 1024)); err != nil {
		t.Fatal(err)
	}
	// The answer is sent after its handler returns, so the time is measured from the
	// write.
	at := epoch.Add(time.Duration(ours.arrived.Load()))
	if d := at.Sub(sent); d < -time.Millisecond || d > late/2 {
		t.Errorf("what arrived when it was sent, and was read %s later, is said to have arrived %s later", late, d)
	}
}

// Each API has its own format of an answer that is not streamed.
func TestWholeResponses(t *testing.T) {
	p := prompt
	p.API, p.Stream = APIResponses, false
	answer := `{"id":"resp_1","object":"response","status":%s,"error":null,"incomplete_details":%s,"output":[{"type":"reasoning","summary":[]},{"type":"message","content":[{"type":"output_text","text":"Hello"}]}],"usage":{"input_tokens":3,"output_tokens":7}}`
	for _, tt := range []struct{ status, details, finish, class string }{
		{`"completed"`, "null", "stop", ""},
		{`"incomplete"`, `{"reason":"max_output_tokens"}`, "length", ""},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v1/responses" {
				http.NotFound(w, r)
			}
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, answer, tt.status, tt.details)
		}))
		row, said := made(Config{BaseURL: srv.URL}).Ask(context.Background(), p, recording.NewClock(), 1)
		srv.Close()
		if row.Error != tt.class || row.FinishReason != tt.finish || row.OutputTokens != 7 || row.PromptTokens != 3 || said != "Hello" {
			t.Errorf("%q: %+v", said, row)
		}
	}
}

// Ask returns the text, and only that of the assistant.
func TestAsk(t *testing.T) {
	for file, want := range map[string]string{"vllm.sse": "Hello!", "vllm-reasoning.sse": "AB", "openai-responses.sse": "Hello!"} {
		b, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		_, body, _ := strings.Cut(string(b), "\n")
		srv := httptest.NewServer(sse(body))
		row, said := made(Config{BaseURL: srv.URL}).Ask(context.Background(), prompt, recording.NewClock(), 1)
		srv.Close()
		if !row.OK() || said != want {
			t.Errorf("%s: %q, want %q (%s)", file, said, want, row.ErrorText)
		}
	}
}

// service is the part of the bundled service's gRPC that a client uses.
type service struct {
	inferencepb.UnimplementedInferenceServer
	t    *testing.T
	asks []*inferencepb.GenerateRequest
	keys []string
}

func (s *service) Generate(q *inferencepb.GenerateRequest, out grpc.ServerStreamingServer[inferencepb.GenerateResponse]) error {
	md, _ := metadata.FromIncomingContext(out.Context())
	s.asks, s.keys = append(s.asks, q), append(s.keys, md.Get("authorization")...)
	for i, m := range []*inferencepb.GenerateResponse{
		{Tokens: 1}, // half a character
		{Text: "é", Tokens: 1},
		{Text: "tude", Tokens: 2},
		{FinishReason: "length", Usage: &inferencepb.Usage{PromptTokens: 3, OutputTokens: 4}},
	} {
		switch {
		case q.Model == "full":
			return status.Error(codes.ResourceExhausted, "the queue is full")
		case q.Model == "breaks" && i == 2:
			return status.Error(codes.Internal, "out of memory")
		case q.Model == "gone" && i == 2:
			return status.Error(codes.Unavailable, "draining")
		case q.Model == "hangs" && i == 2:
			<-out.Context().Done()
			return out.Context().Err()
		}
		time.Sleep(5 * time.Millisecond)
		if err := out.Send(m); err != nil {
			return err
		}
	}
	return nil
}

func TestGRPC(t *testing.T) {
	for _, secure := range []bool{false, true} {
		for _, own := range []bool{false, true} {
			t.Run(fmt.Sprintf("TLS %t, own connections %t", secure, own), func(t *testing.T) { testGRPC(t, secure, own) })
		}
	}
}

func testGRPC(t *testing.T, secure, own bool) {
	var options []grpc.ServerOption
	cfg := Config{Model: "m", APIKey: "secret", NewConnections: own}
	scheme := "grpc://"
	if secure {
		certified := httptest.NewTLSServer(nil) // for its certificate
		defer certified.Close()
		cfg.CAFile, scheme = caFile(t, certified), "grpcs://"
		options = append(options, grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: certified.TLS.Certificates})))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv, s := grpc.NewServer(options...), &service{t: t}
	inferencepb.RegisterInferenceServer(srv, s)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	cfg.BaseURL = scheme + l.Addr().String()
	c := made(cfg)
	p := prompt
	p.API, p.Messages = APIGRPC, []Message{{"system", "Be kind."}, {"user", "Hi"}}
	p.IgnoreEOS = true
	clock := recording.NewClock()
	if err := c.Preflight(context.Background(), p); err != nil {
		t.Errorf("preflight: %v", err)
	}
	row, said := c.Ask(context.Background(), p, clock, clock.Now())
	if !row.OK() || said != "étude" || len(row.Chunks) != 2 || row.OutputTokens != 4 || row.PromptTokens != 3 || row.FirstChunkTokens != 2 ||
		row.FinishReason != "length" || row.TokensFrom != "usage" || row.Status != 200 {
		t.Errorf("%q %+v", said, row)
	}
	if row.Sent >= row.FirstByte || row.FirstByte >= row.FirstToken || row.LastToken-row.FirstToken < 4*time.Millisecond || row.End < row.LastToken {
		t.Errorf("the times are out of order: %+v", row)
	}
	if q := s.asks[len(s.asks)-1]; q.Model != "m" || len(q.Messages) != 2 || q.Messages[1].Content != "Hi" || q.MaxTokens != 8 || !q.IgnoreEos || q.GetTemperature() != 0 || q.Temperature == nil {
		t.Errorf("asked %v", q)
	}
	tenant := p
	tenant.APIKey = "tenant"
	c.Do(context.Background(), tenant, clock, clock.Now())
	if n := len(s.keys); n < 2 || s.keys[n-2] != "Bearer secret" || s.keys[n-1] != "Bearer tenant" {
		t.Errorf("keys %q", s.keys)
	}
	for model, want := range map[string]string{"full": recording.ErrorLimited, "breaks": recording.ErrorInBand, "gone": recording.ErrorTruncated, "hangs": recording.ErrorTimeout} {
		q := p
		q.Model, q.Timeout = model, 300*time.Millisecond
		row := c.Do(context.Background(), q, clock, clock.Now())
		if row.Error != want || model == "full" && row.Status != http.StatusTooManyRequests {
			t.Errorf("%s: %q %d (%s), want %q", model, row.Error, row.Status, row.ErrorText, want)
		}
	}
	whole := p
	whole.Stream = false
	if row := c.Do(context.Background(), whole, clock, clock.Now()); row.Error != recording.ErrorNotSent {
		t.Errorf("not streamed: %q (%s)", row.Error, row.ErrorText)
	}
	srv.Stop()
	<-served
	if row := c.Do(context.Background(), p, clock, clock.Now()); row.Error != recording.ErrorConnect {
		t.Errorf("nobody there: %q (%s)", row.Error, row.ErrorText)
	}
	c.Close()
}

// The harness and the server share no code, so each has a copy of the proto file. The
// copies differ only in the package of the generated code.
func TestProtoIsTheServers(t *testing.T) {
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return regexp.MustCompile(`option go_package = .*`).ReplaceAllString(string(b), "")
	}
	if ours := read("inference.proto"); ours != read("../../reference-server/rpc/inference.proto") {
		t.Error("inference.proto is not the server's any more; copy it, keep go_package, and run go generate")
	}
}

func TestDelays(t *testing.T) {
	var h delays
	for d := time.Duration(0); d < 1<<40; d = d*17/16 + 1 {
		if e := edge(bucket(d)); e < d || e > d+d/8 {
			t.Fatalf("%d lies in a bucket up to %d", d, e)
		}
	}
	if d, n := h.take(0.99); d != 0 || n != 0 {
		t.Errorf("nothing: %s of %d", d, n)
	}
	for i := range 1000 {
		h.add(time.Duration(i+1) * time.Microsecond)
	}
	if d, n := h.take(0.99); n != 1000 || d < 990*time.Microsecond || d > 990*time.Microsecond*9/8 {
		t.Errorf("p99 of 1 to 1000 µs is %s of %d", d, n)
	}
	if _, n := h.take(0.99); n != 0 {
		t.Errorf("%d are left", n)
	}
}
