// Package client is the only code that sends prompts. It sends one prompt and records
// when every part of the answer came, on the run's clock. It knows nothing of schedules
// and judges nothing.
package client

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/tokenizer"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen/client/inferencepb"
)

const (
	connectTimeout = 5 * time.Second
	maxWhole       = 32 << 20 // bytes of an answer that is not streamed
	maxGrown       = 1 << 20  // bytes to allocate because of a Content-Length
	maxExcerpt     = 4 << 10  // bytes that are read of an error's body
	maxHeaders     = 1 << 20  // bytes of the headers of an answer
	maxStreamed    = 1 << 30  // bytes of an answer that is streamed
	maxChunks      = 1 << 20  // chunks of an answer: the times of all are kept
	maxAfter       = 64 << 10 // bytes that are read after the end of an answer

	// idleFor is how long an idle connection is kept. It is shorter than common servers
	// keep it (uvicorn and Node 5 s), so that the client closes it first.
	idleFor = 4 * time.Second
	// lingerFor is how long the body may stay open after the answer has ended, so that
	// the connection can be used again. Then the connection is closed.
	lingerFor = 25 * time.Millisecond
	// staleWithin and two round trips bound the time after a send in which a failed
	// kept connection counts as closed before the request came.
	staleWithin = 50 * time.Millisecond
	// mostStale is how many such connections one request may meet before it fails.
	mostStale = 4
)

// The APIs that a prompt can be sent to.
const (
	APIChat        = "chat"
	APICompletions = "completions"
	APIResponses   = "responses"
	APIGRPC        = "grpc"
)

// Config says where prompts are sent, and with which identity.
type Config struct {
	// BaseURL is the address without the path of the API. A path in it is kept; without
	// one, /v1 is appended.
	BaseURL string
	Model   string // empty: Preflight takes the first model that is served
	APIKey  string
	Headers map[string]string
	Query   map[string]string // added to every URL
	Fields  map[string]string // put into the JSON of every request: see encode
	Secrets []string          // hidden in everything the service says, as APIKey is
	// HTTP is the version of the protocol: 1.1, 2 (without TLS: with prior knowledge),
	// or empty for negotiation under TLS and 1.1 without.
	HTTP string
	// CAFile is a PEM file of the authority that signed the service's
	// certificate; empty trusts the system's.
	CAFile string
	// CertFile and KeyFile are PEM files of the certificate that the client shows, and of
	// its private key; empty: it shows none.
	CertFile, KeyFile string
	// NewConnections gives every request a connection of its own.
	NewConnections bool
	// Via is an address to connect to in place of BaseURL's, such as a proxy that
	// forwards bytes to it; empty: BaseURL's own.
	Via string
	// From is the address of this host that connections come from; empty: the
	// system's choice.
	From string
}

// Connection is how a prompt reaches the service, if not like the client's other
// prompts. Empty fields are as for those.
type Connection struct {
	From string // the address of this host that it comes from
	HTTP string // 1.1 or 2
	New  bool   // a connection for this prompt alone
}

// Message of a conversation.
type Message struct {
	Role    string `json:"role"` // system, user or assistant
	Content string `json:"content"`
}

// Prompt is one request to be sent.
type Prompt struct {
	API         string
	Model       string // empty: the client's
	APIKey      string // the key of a tenant; empty: the client's
	Connection  Connection
	Messages    []Message         // the conversation so far; completions sends the text of the last message only
	Fields      map[string]string // put into the JSON: see encode
	MaxTokens   int
	Temperature float64
	IgnoreEOS   bool     // generate MaxTokens tokens, if the service supports it
	Finish      []string // the accepted finish reasons; empty: see recording.MayEnd
	// Mark is in the prompt. The answer is searched for the marks of other requests,
	// and what is found is kept in the row.
	Mark Mark
	// Question is the hash of the question, without its mark and salt.
	Question int64
	Stream   bool
	Timeout  time.Duration
}

// Bytes is the length of the prompt's text.
func (p Prompt) Bytes() (n int) {
	for _, m := range p.Messages {
		n += len(m.Content)
	}
	return n
}

// Client sends prompts over kept connections. It is safe for concurrent use.
type Client struct {
	cfg    Config
	base   string // without the version of the API, such as /v1
	api    string // with the version of the API
	query  string // appended to every URL, with its question mark
	proxy  string // the proxy of requests; empty: none
	hidden secrets
	// A Transport and not an http.Client, because a redirected request would be
	// measured as two. Nothing else of http.Client is needed.
	transport *http.Transport
	rpc       *rpcClient           // if the address is of gRPC
	protocol  words.Sentence       // as Preflight found it
	tokenizer *tokenizer.Tokenizer // of a file; nil: the service counts tokens
	countedBy words.Sentence
	*watched

	mu     sync.Mutex
	others map[Connection]*Client // for prompts that reach the service in other ways
}

// watched holds the counters that a client shares with its clients for other
// connections.
type watched struct {
	open   atomic.Int64
	opened atomic.Int32 // connections so far
	delays delays
	// left is how many connections stayed open after the answer on them had ended, and
	// after how many answers sent more data after their end.
	left, after atomic.Int64
	stale       atomic.Int64 // kept connections that the service had already closed
}

// New makes a client. Nothing is sent yet. It fails for a bad CA file, or an address
// From that is not of this host.
func New(cfg Config) (*Client, error) { return newClient(cfg, &watched{}) }

func newClient(cfg Config, w *watched) (*Client, error) {
	if err := cfg.ours(); err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, watched: w, hidden: cfg.Secrets}
	if cfg.APIKey != "" {
		c.hidden = append(append(secrets(nil), cfg.Secrets...), cfg.APIKey)
	}
	c.base, c.api = addresses(cfg.BaseURL)
	if len(cfg.Query) > 0 {
		values := url.Values{}
		for name, value := range cfg.Query {
			values.Set(name, value)
		}
		c.query = "?" + values.Encode()
	}
	proxy, err := c.throughProxy()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy:               proxy,
		DialContext:         c.dial,
		TLSHandshakeTimeout: connectTimeout,
		ForceAttemptHTTP2:   true,
		MaxIdleConns:        0, // no limit: closing a connection would cost the next request a handshake
		MaxIdleConnsPerHost: 1 << 16,
		IdleConnTimeout:     idleFor,
		DisableCompression:  true, // a compressed stream arrives in large pieces
		DisableKeepAlives:   cfg.NewConnections,

		MaxResponseHeaderBytes: maxHeaders,
	}
	if cfg.HTTP != "" {
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetHTTP1(cfg.HTTP == "1.1")
		transport.Protocols.SetHTTP2(cfg.HTTP == "2")
		transport.Protocols.SetUnencryptedHTTP2(cfg.HTTP == "2")
	}
	secured, err := cfg.tls()
	if err != nil {
		return nil, err
	}
	transport.TLSClientConfig = secured
	c.transport = transport
	if address, secure, ok := rpcAddress(strings.TrimRight(cfg.BaseURL, "/")); ok {
		c.rpc, err = newRPC(c, address, secure, secured.Clone())
	}
	return c, err
}

// addresses are the address of the service and that of its APIs. A path in the URL is
// kept.
func addresses(base string) (service, api string) {
	base = strings.TrimRight(base, "/")
	if service, has := strings.CutSuffix(base, "/v1"); has {
		return service, base
	}
	if u, err := url.Parse(base); err == nil && strings.Trim(u.Path, "/") != "" {
		return base, base
	}
	return base, base + "/v1"
}

// Anew is a client of the same service that opens a connection for every request.
func (c *Client) Anew() (*Client, error) {
	cfg := c.cfg
	cfg.NewConnections = true
	return New(cfg)
}

// By is the client for prompts with another Connection. It is made on the first call,
// and closed with c.
func (c *Client) By(way Connection) (*Client, error) {
	if way == (Connection{}) {
		return c, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if other := c.others[way]; other != nil {
		return other, nil
	}
	cfg := c.cfg
	cfg.From, cfg.HTTP = cmp.Or(way.From, cfg.From), cmp.Or(way.HTTP, cfg.HTTP)
	cfg.NewConnections = cfg.NewConnections || way.New
	other, err := newClient(cfg, c.watched)
	if err != nil {
		return nil, err
	}
	if c.others == nil {
		c.others = map[Connection]*Client{}
	}
	c.others[way] = other
	return other, nil
}

// ours checks that From is an address of this host.
func (cfg Config) ours() error {
	if cfg.From == "" {
		return nil
	}
	lis, err := net.Listen("tcp", net.JoinHostPort(cfg.From, "0"))
	if err != nil {
		return words.Errorf("cannot connect from %s, which is not an address of this host: %s", cfg.From, err)
	}
	return lis.Close()
}

// tls is the authorities that are trusted, and the certificate that is shown.
func (cfg Config) tls() (*tls.Config, error) {
	roots, err := cfg.roots()
	if err != nil || cfg.CertFile == "" {
		return &tls.Config{RootCAs: roots}, err
	}
	own, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
	if err != nil {
		return nil, words.Errorf("read the client certificate %s and its key %s: %s", cfg.CertFile, cfg.KeyFile, err)
	}
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}}, nil
}

// roots are the trusted authorities; nil stands for the system's.
func (cfg Config) roots() (*x509.CertPool, error) {
	if cfg.CAFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(cfg.CAFile)
	if err != nil {
		return nil, words.Errorf("read the CA file: %s", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, words.Errorf("%s contains no PEM certificate", cfg.CAFile)
	}
	return roots, nil
}

// Close closes idle connections.
func (c *Client) Close() {
	c.mu.Lock()
	for _, other := range c.others {
		other.Close()
	}
	c.mu.Unlock()
	c.transport.CloseIdleConnections()
	if c.rpc != nil {
		_ = c.rpc.shared.Close()
	}
}

// Model is the model that is asked for, safe to show.
func (c *Client) Model() string { return words.Harmless(c.cfg.Model) }

// Prepared is a request that only has to be sent.
type Prepared struct {
	by      *Client // the client that sends it
	request *http.Request
	rpc     *inferencepb.GenerateRequest // in place of request, if the API is gRPC
	secrets secrets
	head    metadata.MD // metadata for rpc
	stream  bool
	expect  int      // most tokens of the answer
	finish  []string // accepted finish reasons
	mark    Mark
	about   int64 // hash of the question
	timeout time.Duration
}

// Prepare makes everything that can be made before a prompt is due: its JSON, URL and
// headers.
func (c *Client) Prepare(p Prompt) (pr *Prepared, err error) {
	by, err := c.By(p.Connection)
	if err != nil {
		return nil, err
	}
	return by.prepare(p)
}

func (c *Client) prepare(p Prompt) (pr *Prepared, err error) {
	pr = &Prepared{by: c, stream: p.Stream, expect: p.MaxTokens, finish: p.Finish, mark: p.Mark, about: p.Question, timeout: p.Timeout, secrets: c.secrets(p.APIKey)}
	if p.API == APIGRPC {
		if c.rpc == nil {
			return nil, words.Errorf("found the address %q for the API grpc, expected one such as grpc://host:port", c.cfg.BaseURL)
		}
		pr.rpc, pr.head, err = c.rpc.prepare(p)
		return pr, err
	}
	pr.request, err = c.request(p)
	return pr, err
}

// secrets are the texts to hide, with the key of a tenant.
func (c *Client) secrets(key string) secrets {
	if key == "" {
		return c.hidden
	}
	return append(append(secrets(nil), c.hidden...), key)
}

// Send sends a prepared request that was due at the given time, and returns its row. A
// Prepared is sent only once.
func (c *Client) Send(ctx context.Context, p *Prepared, clock recording.Clock, due time.Duration) recording.Request {
	row, _ := p.by.send(ctx, p, clock, due, nil)
	return row
}

// Do sends a prompt that was due at the given time, and returns its row.
func (c *Client) Do(ctx context.Context, p Prompt, clock recording.Clock, due time.Duration) recording.Request {
	row, _ := c.ask(ctx, p, clock, due, nil)
	return row
}

// Ask is Do that returns the text of the answer too.
func (c *Client) Ask(ctx context.Context, p Prompt, clock recording.Clock, due time.Duration) (recording.Request, string) {
	var answer strings.Builder
	return c.ask(ctx, p, clock, due, &answer)
}

func (c *Client) ask(ctx context.Context, p Prompt, clock recording.Clock, due time.Duration, answer *strings.Builder) (recording.Request, string) {
	prepared, err := c.Prepare(p)
	if err != nil {
		row := recording.Request{Due: due, Streamed: p.Stream}
		fail(&row, recording.ErrorNotSent, "%s", err)
		return row, ""
	}
	row, _ := prepared.by.send(ctx, prepared, clock, due, answer)
	if answer == nil {
		return row, ""
	}
	return row, answer.String()
}

// send sends a request. Its error means that no answer came; it is in the row too.
func (c *Client) send(ctx context.Context, p *Prepared, clock recording.Clock, due time.Duration, answer *strings.Builder) (recording.Request, error) {
	row := recording.Request{Due: due, Streamed: p.stream, LimitTokens: int32(p.expect)}
	if answer == nil && !p.mark.IsZero() {
		answer = new(strings.Builder)
	}
	s := &stream{row: &row, answer: answer, expect: p.expect, finish: p.finish, secrets: p.secrets}
	limited, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	a := &arrivals{clock: clock, delays: &c.delays, stop: cancel}
	var err error // set if no answer came
	if p.rpc != nil {
		err = c.rpc.exchange(limited, s, p, a)
	} else {
		err = c.exchange(limited, s, p, a)
	}
	if row.End == 0 {
		row.End = clock.Now()
	}
	if a.conn != nil {
		row.Connection, row.OnConnection = a.conn.number, a.nth
	}
	switch {
	case err != nil:
		fail(&row, class(ctx, limited, err), "%s", why(err))
	case s.cut && limited.Err() != nil:
		fail(&row, class(ctx, limited, limited.Err()), "timed out after %s with %d chunks", row.End-row.Sent, len(row.Chunks))
	}
	if !p.mark.IsZero() {
		row.Foreign = p.mark.foreign(answer.String())
		if row.OK() {
			row.QuestionHash = p.about
			Look(&row, answer.String())
		}
	}
	return row, err
}

// exchange sends a request and reads the answer. Its error means that no answer came. A
// kept connection that the service had closed before the request came is not an error:
// the request is sent again, as every HTTP client does. The lost time stays in the
// measurement.
func (c *Client) exchange(ctx context.Context, s *stream, p *Prepared, a *arrivals) error {
	row, req := s.row, p.request.WithContext(httptrace.WithClientTrace(ctx, a.trace()))
	row.Sent = a.clock.Now()
	resp, err := c.roundTrip(req, a)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	row.FirstByte = max(a.last(), row.Sent)
	row.Status = int32(resp.StatusCode)
	row.Replica = clipTo(resp.Header.Get("X-Launchgate-Replica"), maxName)
	if retries := resp.Header.Get("X-Launchgate-Retries"); retries != "" {
		n, _ := strconv.ParseUint(retries, 10, 31)
		row.Retries = int32(n)
	}
	read(s, resp, a)
	if s.after > 0 {
		c.after.Add(1)
	}
	if s.left {
		c.left.Add(1)
	}
	return nil
}

// roundTrip sends a request, and sends it again if the service had closed the kept
// connection before it answered a byte.
func (c *Client) roundTrip(req *http.Request, a *arrivals) (*http.Response, error) {
	for {
		sent := a.clock.Now()
		resp, err := c.transport.RoundTrip(req)
		if err == nil || req.Context().Err() != nil || !a.closedBefore(err, a.clock.Now()-sent) {
			return resp, err
		}
		if c.stale.Add(1); a.stale >= mostStale {
			return nil, words.Errorf("%d kept connections in turn were closed when a request was sent on them: %s", a.stale+1, err)
		}
		a.stale++
		if req.GetBody == nil {
			continue // the request has no body
		}
		if req.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
}

// trace makes the arrivals of a request know its connection.
func (a *arrivals) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn: func(got httptrace.GotConnInfo) {
			a.conn, a.kept = under(got.Conn), got.Reused && got.WasIdle
			if a.conn != nil {
				a.nth = a.conn.requests.Add(1)
			}
		},
		GotFirstResponseByte: func() { a.began.Store(true) },
	}
}

// closedIdle is the error of net/http for a connection whose end it read before any
// answer byte. The service had closed it before the request came.
const closedIdle = "http: server closed idle connection"

// closedBefore reports whether a request that failed so long after its send was sent on
// a kept connection that the service had already closed.
func (a *arrivals) closedBefore(err error, after time.Duration) bool {
	switch {
	case a.began.Load():
		return false
	case strings.Contains(err.Error(), closedIdle):
		return true
	case !a.kept:
		return false
	}
	roundTrip := time.Duration(0)
	if a.conn != nil {
		roundTrip = a.conn.dialled
	}
	return after < staleWithin+2*roundTrip
}

// arrivals knows when the bytes of an answer arrived at this machine.
type arrivals struct {
	clock  recording.Clock
	conn   *conn // nil if it is not a conn
	delays *delays
	stop   func()      // stops the reading
	kept   bool        // the connection had been used before, and was idle
	nth    int32       // number of the request on its connection
	began  atomic.Bool // whether a byte of the answer came
	stale  int         // kept connections that turned out to be closed
}

// last is when the newest bytes came. If several streams share a connection, it may
// have read more since; then last is between the arrival and now.
func (a *arrivals) last() time.Duration {
	if a.conn != nil {
		if at := a.conn.arrived.Load(); at > 0 {
			return a.clock.At(epoch.Add(time.Duration(at)))
		}
	}
	return a.clock.Now()
}

// parsed records the delay between arrival and parsing.
func (a *arrivals) parsed(came time.Duration) { a.delays.add(a.clock.Now() - came) }

// class is the error class of a request without an answer.
func class(run, limited context.Context, err error) string {
	var op *net.OpError
	switch {
	case run.Err() != nil:
		return recording.ErrorCancelled
	case errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.EADDRNOTAVAIL):
		return recording.ErrorNotSent // the client ran out of descriptors or ports
	case errors.As(err, &op) && op.Op == "dial":
		return recording.ErrorConnect
	case limited.Err() != nil:
		return recording.ErrorTimeout
	}
	return recording.ErrorConnect
}

// paths are the paths of the APIs.
var paths = map[string]string{APIChat: "/chat/completions", APICompletions: "/completions", APIResponses: "/responses"}

func (c *Client) request(p Prompt) (*http.Request, error) {
	path, known := paths[p.API]
	if !known {
		return nil, words.Errorf("prompts to the API %q cannot be sent over HTTP", p.API)
	}
	body, err := c.encode(c.body(p), p.Fields)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequest(http.MethodPost, c.api+path+c.query, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	c.header(req)
	if p.APIKey != "" {
		req.Header.Set("Authorization", "Bearer "+p.APIKey)
	}
	req.Header.Set("Content-Type", "application/json")
	if p.Stream {
		req.Header.Set("Accept", "text/event-stream")
	}
	return req, nil
}

func (c *Client) header(req *http.Request) {
	req.Header.Set("User-Agent", "launchgate")
	for k, v := range c.cfg.Headers {
		req.Header.Set(k, v)
	}
	if c.cfg.APIKey != "" {
		req.Header.Set("Authorization", "Bearer "+c.cfg.APIKey)
	}
	if u := req.URL.User; u != nil && req.Header.Get("Authorization") == "" {
		password, _ := u.Password()
		req.SetBasicAuth(u.Username(), password)
	}
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

// body is the JSON body of a request.
type body struct {
	Model         string         `json:"model,omitempty"`
	Messages      []Message      `json:"messages,omitempty"` // chat
	Prompt        string         `json:"prompt,omitempty"`   // completions
	Input         []Message      `json:"input,omitempty"`    // responses
	MaxTokens     int            `json:"max_tokens,omitempty"`
	MaxOutput     int            `json:"max_output_tokens,omitempty"` // responses
	Temperature   float64        `json:"temperature"`
	IgnoreEOS     bool           `json:"ignore_eos,omitempty"`
	Stream        bool           `json:"stream"`
	StreamOptions *streamOptions `json:"stream_options,omitempty"`
	Store         *bool          `json:"store,omitempty"` // responses: not stored, because nobody reads them again
}

func (c *Client) body(p Prompt) body {
	b := body{Model: p.Model, MaxTokens: p.MaxTokens, Temperature: p.Temperature, IgnoreEOS: p.IgnoreEOS, Stream: p.Stream}
	if b.Model == "" {
		b.Model = c.cfg.Model
	}
	if p.API == APIResponses {
		b.Input, b.MaxOutput, b.MaxTokens, b.Store = p.Messages, p.MaxTokens, 0, new(false)
		return b
	}
	if p.Stream {
		b.StreamOptions = &streamOptions{IncludeUsage: true}
	}
	if p.API == APICompletions {
		b.Prompt = p.Messages[len(p.Messages)-1].Content
		return b
	}
	b.Messages = p.Messages
	return b
}

// read parses the answer.
func read(s *stream, resp *http.Response, a *arrivals) {
	row, streamed := s.row, s.row.Streamed
	content := resp.Body
	if resp.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(resp.Body)
		if err != nil {
			s.fail(recording.ErrorProtocol, "the answer claims to be gzip but is not: %s", err)
			return
		}
		content = z
	}
	kind := resp.Header.Get("Content-Type")
	switch {
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		b, _ := io.ReadAll(io.LimitReader(content, maxExcerpt))
		row.Bytes = int64(len(b))
		b = s.secrets.hide(b)
		kind, why := refusal(row, resp, b)
		s.fail(kind, "%s", why)
	case strings.HasPrefix(kind, "text/event-stream") && streamed:
		readStream(s, content, a)
	case strings.HasPrefix(kind, "application/json"):
		readWhole(s, content, resp.ContentLength, a)
	default:
		b, _ := io.ReadAll(io.LimitReader(content, maxExcerpt))
		row.Bytes = int64(len(b))
		b = s.secrets.hide(b)
		s.fail(recording.ErrorProtocol, "the content type of the answer is %s, expected %s: %s", named(kind, b), wanted(streamed), clipTo(errorText(b), 120))
	}
}

func wanted(streamed bool) string {
	if streamed {
		return "text/event-stream"
	}
	return "application/json"
}

// named is a short name for the kind of an answer.
func named(kind string, b []byte) words.Sentence {
	if strings.HasPrefix(kind, "text/html") || isHTML(b) {
		return words.Say("HTML")
	}
	if kind == "" {
		return words.Say("of no content type")
	}
	return words.Verbatim(strconv.Quote(clipTo(kind, maxName)))
}

// buffers are reused between answers. Each open stream holds one, so they are small.
// Most services send even less at once.
var buffers = sync.Pool{New: func() any { return new([4 << 10]byte) }}

// readStream reads a stream up to the end of the answer, as the API defines it, and
// then for a short time up to the end of the body.
func readStream(s *stream, content io.Reader, a *arrivals) {
	buf := buffers.Get().(*[4 << 10]byte)
	defer buffers.Put(buf)
	p := &eventParser{emit: s.event, stray: s.stray}
	row, after := s.row, 0
	var linger *time.Timer
	for {
		n, err := content.Read(buf[:])
		at := a.last()
		row.Bytes += int64(n)
		if linger != nil {
			after += n
		}
		if e := p.feed(buf[:n], at); e != nil && !s.over() {
			s.fail(recording.ErrorProtocol, "%s", e)
		}
		if n > 0 {
			a.parsed(at)
		}
		if !s.over() && (row.Bytes > maxStreamed || s.any.chunks > maxChunks) {
			s.fail(recording.ErrorProtocol, "the stream has no end: %d chunks and %d bytes so far", s.any.chunks, row.Bytes)
		}
		if s.over() && linger == nil {
			row.End = at
			linger = time.AfterFunc(lingerFor, a.stop)
			defer linger.Stop()
		}
		switch {
		case err == nil && after <= maxAfter:
			continue
		case errors.Is(err, io.EOF):
			p.end(at)
			if row.End == 0 {
				row.End = at
			}
			s.close()
		case s.over():
			s.left = true
			s.close()
		default:
			s.count()
			s.cut = true
			s.fail(recording.ErrorTruncated, "the stream ended early, after %d chunks: %v", len(row.Chunks), err)
		}
		return
	}
}

// readWhole reads an answer that is one JSON object. length is its Content-Length, if
// it has one.
func readWhole(s *stream, content io.Reader, length int64, a *arrivals) {
	var all bytes.Buffer
	all.Grow(int(min(max(length, 0), maxGrown)) + bytes.MinRead)
	_, err := all.ReadFrom(io.LimitReader(content, maxWhole+1))
	b, at := all.Bytes(), a.last()
	s.row.Bytes = int64(len(b))
	if len(b) > maxWhole {
		s.fail(recording.ErrorProtocol, "the answer is larger than %d MiB", maxWhole>>20)
		return
	}
	if err != nil {
		s.cut = true
		s.fail(recording.ErrorTruncated, "the answer ended early: %s", err)
		return
	}
	s.row.End = at
	switch c, ok := scanChunk(b); {
	case !ok:
		s.fail(recording.ErrorProtocol, "the answer is not JSON, or not an object: %s", excerpt(s.secrets.hide(b)))
	case set(c.err) || string(c.object) == `"error"`:
		s.fail(recording.ErrorInBand, "the answer is an error, although its status is a success: %s", errorText(s.secrets.hide(b)))
	case s.row.Streamed:
		s.fail(recording.ErrorProtocol, "a stream was requested, but the answer came as a whole: the service does not stream")
	default:
		s.whole(c, at)
	}
	a.parsed(at)
}

// whole takes an answer that was not streamed. Only the time of its last byte is known,
// and not that of the first token.
func (s *stream) whole(c chunk, at time.Duration) {
	r := s.row
	some := c.choices.output || c.choices.reasoning || c.whole.output.output || c.whole.output.reasoning
	s.keep(c.choices.text)
	s.keep(c.choices.said.content)
	s.keep(c.whole.output.said)
	s.usage(c.usage)
	s.count()
	switch {
	case c.choices.finish != nil:
		r.FinishReason = finish(c.choices.finish)
	case string(c.object) == `"response"`:
		r.FinishReason = c.whole.finish()
	}
	switch {
	case r.FinishReason == "":
		s.fail(recording.ErrorTruncated, "the answer has no finish reason")
	case s.brokeOff():
	case !some:
		s.fail(recording.ErrorEmpty, "the answer is empty")
	default:
		r.LastToken = at
	}
}
