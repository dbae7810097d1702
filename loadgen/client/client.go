// Package client is the only code that sends prompts. It asks one question and
// writes down when every part of the answer came, on the run's clock; it knows
// nothing of schedules and judges nothing.
package client

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

const (
	connectTimeout = 5 * time.Second
	maxWhole       = 32 << 20 // bytes of an answer that is not streamed
	maxExcerpt     = 4 << 10  // bytes that are read of an error
)

// The APIs that a prompt can go to.
const (
	APIChat        = "chat"
	APICompletions = "completions"
)

// Config says where to send prompts, and as whom.
type Config struct {
	BaseURL string // without the path of the API; a /v1 at its end is taken as meant
	Model   string // empty: Preflight asks for the first that is served
	APIKey  string
	Headers map[string]string
}

// Prompt is one question.
type Prompt struct {
	API         string
	System      string // of a chat
	Text        string
	MaxTokens   int
	Temperature float64
	Stream      bool
	Timeout     time.Duration
}

// Client sends prompts over kept connections. It is safe for concurrent use.
type Client struct {
	cfg  Config
	base string
	http *http.Client
}

// New makes a client. Nothing is sent yet.
func New(cfg Config) *Client {
	base := strings.TrimSuffix(strings.TrimRight(cfg.BaseURL, "/"), "/v1")
	return &Client{cfg: cfg, base: base, http: &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: connectTimeout}).DialContext,
			TLSHandshakeTimeout: connectTimeout,
			ForceAttemptHTTP2:   true,
			MaxIdleConns:        0, // no limit: a connection that is closed for lack of room costs the next request a handshake
			MaxIdleConnsPerHost: 1 << 16,
			IdleConnTimeout:     90 * time.Second,
			DisableCompression:  true, // a compressed stream arrives in lumps
		},
		// A redirected request would be measured as two.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Model is what is asked for.
func (c *Client) Model() string { return c.cfg.Model }

// Do sends a prompt that was due at the given time, and returns what happened.
func (c *Client) Do(ctx context.Context, p Prompt, clock recording.Clock, due time.Duration) recording.Request {
	row := recording.Request{Due: due, Streamed: p.Stream}
	limited, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	req, err := c.request(limited, p)
	if err != nil {
		row.Error, row.ErrorText = recording.ErrorNotSent, clip(err.Error())
		return row
	}
	row.Sent = clock.Now()
	resp, err := c.http.Do(req)
	if err != nil {
		row.End = clock.Now()
		row.Error, row.ErrorText = class(ctx, limited, err), clip(err.Error())
		return row
	}
	defer resp.Body.Close()
	row.FirstByte = clock.Now()
	row.Status = int32(resp.StatusCode)
	row.Replica = resp.Header.Get("X-Launchgate-Replica")
	retries, _ := strconv.Atoi(resp.Header.Get("X-Launchgate-Retries"))
	row.Retries = int32(retries)
	read(&row, resp, clock, p.Stream)
	row.End = clock.Now()
	if errors.Is(limited.Err(), context.DeadlineExceeded) && row.Error == recording.ErrorTruncated || ctx.Err() != nil && row.Error == recording.ErrorTruncated {
		row.Error = class(ctx, limited, limited.Err())
		row.ErrorText = clip(fmt.Sprintf("given up after %s with %d chunks", row.End-row.Sent, len(row.Chunks)))
	}
	return row
}

// class says why no answer came.
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

func (c *Client) request(ctx context.Context, p Prompt) (*http.Request, error) {
	body, err := json.Marshal(c.body(p))
	if err != nil {
		return nil, err
	}
	path := "/v1/chat/completions"
	if p.API == APICompletions {
		path = "/v1/completions"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	c.header(req)
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
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

// body is the JSON of a request.
type body struct {
	Model         string         `json:"model,omitempty"`
	Messages      []message      `json:"messages,omitempty"`
	Prompt        string         `json:"prompt,omitempty"`
	MaxTokens     int            `json:"max_tokens"`
	Temperature   float64        `json:"temperature"`
	Stream        bool           `json:"stream"`
	StreamOptions *streamOptions `json:"stream_options,omitempty"`
}

func (c *Client) body(p Prompt) body {
	b := body{Model: c.cfg.Model, MaxTokens: p.MaxTokens, Temperature: p.Temperature, Stream: p.Stream}
	if p.Stream {
		b.StreamOptions = &streamOptions{IncludeUsage: true}
	}
	if p.API == APICompletions {
		b.Prompt = p.Text
		return b
	}
	if p.System != "" {
		b.Messages = append(b.Messages, message{"system", p.System})
	}
	b.Messages = append(b.Messages, message{"user", p.Text})
	return b
}

// read takes the answer apart.
func read(row *recording.Request, resp *http.Response, clock recording.Clock, streamed bool) {
	s := &stream{row: row}
	content := resp.Body
	if resp.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(resp.Body)
		if err != nil {
			s.fail(recording.ErrorProtocol, "the answer says it is gzip and is not: "+err.Error())
			return
		}
		content = z
	}
	kind := resp.Header.Get("Content-Type")
	switch {
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		b, _ := io.ReadAll(io.LimitReader(content, maxExcerpt))
		row.Bytes = int64(len(b))
		s.fail(recording.ErrorStatus, fmt.Sprintf("%s: %s", resp.Status, errorText(b)))
	case strings.HasPrefix(kind, "text/event-stream") && streamed:
		readStream(s, content, clock)
	case strings.HasPrefix(kind, "application/json"):
		readWhole(s, content, clock, streamed)
	default:
		b, _ := io.ReadAll(io.LimitReader(content, maxExcerpt))
		row.Bytes = int64(len(b))
		s.fail(recording.ErrorProtocol, fmt.Sprintf("the answer is %s, and should be %s: %s", named(kind, b), wanted(streamed), excerpt(b)))
	}
}

func wanted(streamed bool) string {
	if streamed {
		return "a text/event-stream"
	}
	return "application/json"
}

// named is what an answer is, in a word that a person uses.
func named(kind string, b []byte) string {
	if strings.HasPrefix(kind, "text/html") || bytes.HasPrefix(bytes.ToLower(bytes.TrimSpace(b)), []byte("<!doctype html")) {
		return "HTML"
	}
	if kind == "" {
		return "of no content type"
	}
	return strconv.Quote(kind)
}

func excerpt(b []byte) string {
	s := clip(string(b))
	if len(s) > 120 {
		s = strings.ToValidUTF8(s[:120], "") + " …"
	}
	return s
}

// buffers are reused between answers; their size bounds a read.
var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

func readStream(s *stream, content io.Reader, clock recording.Clock) {
	buf := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buf)
	p := &eventParser{emit: s.event}
	for {
		n, err := content.Read(buf[:])
		at := clock.Now()
		s.row.Bytes += int64(n)
		if e := p.feed(buf[:n], at); e != nil {
			s.fail(recording.ErrorProtocol, e.Error())
			return
		}
		if errors.Is(err, io.EOF) {
			p.end(at)
			s.close()
			return
		}
		if err != nil {
			s.count()
			if !s.failed { // an error in band says more than the cut that follows it
				s.fail(recording.ErrorTruncated, fmt.Sprintf("the stream broke in the middle, after %d chunks: %v", len(s.row.Chunks), err))
			}
			return
		}
	}
}

// readWhole reads an answer that is one JSON object.
func readWhole(s *stream, content io.Reader, clock recording.Clock, streamed bool) {
	b, err := io.ReadAll(io.LimitReader(content, maxWhole))
	at := clock.Now()
	s.row.Bytes = int64(len(b))
	if err != nil {
		s.fail(recording.ErrorTruncated, "the answer broke in the middle: "+err.Error())
		return
	}
	var c chunk
	switch err := json.Unmarshal(b, &c); {
	case err != nil:
		s.fail(recording.ErrorProtocol, fmt.Sprintf("the answer is not JSON (%v): %s", err, excerpt(b)))
	case set(c.Error) || c.Object == "error":
		s.fail(recording.ErrorInBand, "the answer is an error with a status of success: "+errorText(b))
	case streamed:
		s.fail(recording.ErrorProtocol, "a stream was asked for, and the answer came whole: the service does not stream")
	default:
		s.whole(c, at)
	}
}

// whole judges an answer that was not streamed: its times are those of the
// last byte alone, so the first token's is not known.
func (s *stream) whole(c chunk, at time.Duration) {
	r := s.row
	output, reasoning := c.fragments()
	r.FinishReason = c.finish()
	if c.Usage != nil {
		s.told, s.prompt, s.counts = true, c.Usage.Prompt, c.Usage.Completion
	}
	s.count()
	switch {
	case r.FinishReason == "":
		s.fail(recording.ErrorTruncated, "the answer has no finish reason")
	case !output && !reasoning:
		s.fail(recording.ErrorEmpty, "the answer is empty")
	default:
		r.LastToken = at
	}
}
