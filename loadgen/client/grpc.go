package client

//go:generate sh -c "PATH=$(dirname $(go tool -n protoc-gen-go)):$(dirname $(go tool -n protoc-gen-go-grpc)):$PATH protoc --go_out=inferencepb --go_opt=paths=source_relative --go-grpc_out=inferencepb --go-grpc_opt=paths=source_relative inference.proto"

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen/client/inferencepb"
)

// rpcClient speaks the gRPC protocol of the bundled service. Like any gRPC client it
// has one connection for all streams, unless each request has to have its own.
type rpcClient struct {
	cfg     Config
	address string
	safe    credentials.TransportCredentials
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	shared  *rpcConn
}

// rpcAddress is the host and port of an address like grpc://host:port, or grpcs:// for
// TLS.
func rpcAddress(base string) (address string, secure, ok bool) {
	if address, ok = strings.CutPrefix(base, "grpcs://"); ok {
		return address, true, true
	}
	address, ok = strings.CutPrefix(base, "grpc://")
	return address, false, ok
}

func newRPC(c *Client, address string, secure bool, secured *tls.Config) (*rpcClient, error) {
	r := &rpcClient{cfg: c.cfg, address: "passthrough:///" + address}
	safe := insecure.NewCredentials()
	if secure {
		safe = credentials.NewTLS(secured)
	}
	r.safe, r.dial = safe, c.dial
	var err error
	r.shared, err = r.connect()
	return r, err
}

// rpcConn is a gRPC connection, and the conn below it once it is connected.
type rpcConn struct {
	*grpc.ClientConn
	under atomic.Pointer[conn]
}

func (r *rpcClient) connect() (*rpcConn, error) {
	c := new(rpcConn)
	var err error
	c.ClientConn, err = grpc.NewClient(r.address,
		grpc.WithTransportCredentials(r.safe),
		grpc.WithUserAgent("launchgate"),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			dialled, err := r.dial(ctx, "tcp", address)
			if ours, ok := dialled.(*conn); ok {
				c.under.Store(ours)
			}
			return dialled, err
		}))
	return c, err
}

// prepare makes the request and its metadata, with the key.
func (r *rpcClient) prepare(p Prompt) (*inferencepb.GenerateRequest, metadata.MD, error) {
	if !p.Stream {
		return nil, nil, words.Errorf("the API grpc supports only streams; request one")
	}
	q := &inferencepb.GenerateRequest{Model: p.Model, MaxTokens: int32(p.MaxTokens), Temperature: &p.Temperature, IgnoreEos: p.IgnoreEOS}
	if q.Model == "" {
		q.Model = r.cfg.Model
	}
	for _, m := range p.Messages {
		q.Messages = append(q.Messages, &inferencepb.Message{Role: m.Role, Content: m.Content})
	}
	head := metadata.MD{}
	for k, v := range r.cfg.Headers {
		head.Set(k, v)
	}
	if key := cmp.Or(p.APIKey, r.cfg.APIKey); key != "" {
		head.Set("authorization", "Bearer "+key)
	}
	return q, head, nil
}

// exchange sends the request and reads the answer. Its error means that no answer came.
func (r *rpcClient) exchange(ctx context.Context, s *stream, p *Prepared, a *arrivals) error {
	shared := r.shared
	if r.cfg.NewConnections {
		own, err := r.connect()
		if err != nil {
			return err
		}
		defer own.Close()
		shared = own
	}
	s.row.Sent = a.clock.Now()
	answer, err := inferencepb.NewInferenceClient(shared).Generate(metadata.NewOutgoingContext(ctx, p.head), p.rpc)
	if err != nil {
		return err
	}
	for {
		m, err := answer.Recv()
		a.conn = shared.under.Load()
		at := a.last()
		switch {
		case errors.Is(err, io.EOF):
			s.done = true
			s.row.End = at
			s.close()
			return nil
		case err != nil:
			return s.rpcError(err)
		}
		if s.row.FirstByte == 0 {
			s.row.FirstByte, s.row.Status = at, http.StatusOK
		}
		s.message(m, at)
		a.parsed(at)
	}
}

// message takes the next message of a stream.
func (s *stream) message(m *inferencepb.GenerateResponse, at time.Duration) {
	s.row.Bytes += int64(len(m.Text))
	s.hasUsage = s.hasUsage || m.Tokens > 0
	s.counts += m.Tokens
	if m.Text != "" {
		s.token(at, true, sightOfText(m.Text), len(m.Text))
		if s.answer != nil {
			s.answer.WriteString(m.Text)
		}
	}
	if m.FinishReason != "" {
		s.row.FinishReason = m.FinishReason
	}
	if u := m.Usage; u != nil {
		s.hasUsage, s.prompt, s.counts = true, u.PromptTokens, u.OutputTokens
		s.row.CachedReported, s.row.CachedTokens = true, u.CachedTokens
	}
}

// rpcError sets the error class of a stream's error. It returns an error if no answer
// came.
func (s *stream) rpcError(err error) error {
	st := status.Convert(err)
	said := string(s.secrets.hide([]byte(st.Message())))
	lost := st.Code() == codes.Unavailable || st.Code() == codes.Canceled
	switch {
	case st.Code() == codes.DeadlineExceeded: // the deadline is ours: the service knows it and may have reached it first
		s.fail(recording.ErrorTimeout, "timed out with %d chunks", len(s.row.Chunks))
	case lost && len(s.row.Chunks) == 0:
		return err
	case lost:
		s.cut = true
		s.fail(recording.ErrorTruncated, "the stream ended early, after %d chunks: %s", len(s.row.Chunks), said)
	case len(s.row.Chunks) > 0:
		s.fail(recording.ErrorInBand, "the stream sent an error: %s", said)
	default:
		s.row.Status = httpStatus(st.Code())
		s.fail(refusedWith(s.row.Status), "%s: %s", st.Code(), said)
	}
	s.count()
	return nil
}

// httpStatus is the HTTP status for a gRPC code.
func httpStatus(c codes.Code) int32 {
	switch c {
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.NotFound:
		return http.StatusNotFound
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Unimplemented:
		return http.StatusNotImplemented
	default:
		return http.StatusInternalServerError
	}
}
