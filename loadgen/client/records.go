package client

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

// markKey is the key of a record's metadata that its mark is under.
const markKey = "launchgate_record"

// background is the JSON of a response that the service is to keep.
type background struct {
	body
	Background bool              `json:"background"`
	Metadata   map[string]string `json:"metadata"`
}

// kept is what is read of a response that the service keeps.
type kept struct {
	ID         string            `json:"id"`
	Status     string            `json:"status"`
	Background bool              `json:"background"`
	Metadata   map[string]string `json:"metadata"`
	Output     []struct {
		Content []struct {
			Text string `json:"text"`
		} `json:"content"`
	} `json:"output"`
	Error      json.RawMessage `json:"error"`
	Incomplete struct {
		Reason string `json:"reason"`
	} `json:"incomplete_details"`
	Usage *struct {
		Output     int32 `json:"output_tokens"`
		Completion int32 `json:"completion_tokens"`
	} `json:"usage"`
	request string // X-Request-Id
}

// WriteUsage has the service answer a prompt, and so keep what it used. Where the
// row has no error, the answer came whole, and Record is the X-Request-Id that its
// usage is kept by.
func (c *Client) WriteUsage(ctx context.Context, p Prompt, clock recording.Clock, due time.Duration) recording.Request {
	p.API, p.Stream = APIChat, false
	row, k := c.keep(ctx, http.MethodPost, paths[APIChat], c.body(p), p.Timeout, clock, due)
	switch {
	case row.Error != "":
	case k.request == "" || k.Usage == nil:
		fail(&row, recording.ErrorProtocol, "the answer has no X-Request-Id or no usage, so the service does not claim to store usage")
	default:
		row.Record, row.OutputTokens, row.TokensFrom = k.request, k.Usage.Completion, "usage"
	}
	return row
}

// usageNotFound is the code of a service that keeps usage, and none of a request.
const usageNotFound = "usage_not_found"

// ReadUsage asks for the usage of a request whose answer had so many tokens. It is
// settled when the answer says for good what became of it: there (no error), of
// another number of tokens (truncated), or gone.
func (c *Client) ReadUsage(ctx context.Context, request string, tokens int32, timeout time.Duration, clock recording.Clock) (row recording.Request, settled bool) {
	row, k := c.keep(ctx, http.MethodGet, "/usage/"+url.PathEscape(request), nil, timeout, clock, clock.Now())
	row.Record = request
	var e struct{ Code string }
	_ = json.Unmarshal(k.Error, &e) // what is no error of the gateway's has no code
	switch {
	case e.Code == usageNotFound:
		row.Error = recording.ErrorGone
	case row.Status == http.StatusNotFound: // a service that has no such path has lost nothing
		row.Error = recording.ErrorStatus
	case row.Error != "":
		return row, false
	case k.ID != request || k.Usage == nil:
		fail(&row, recording.ErrorGone, "requested the usage of %s, but the service returned that of %q", request, k.ID)
	case k.Usage.Completion != tokens:
		fail(&row, recording.ErrorTruncated, "the stored usage is %d tokens, but the answer had %d", k.Usage.Completion, tokens)
	default:
		row.OutputTokens, row.TokensFrom = tokens, "usage"
	}
	return row, true
}

// Write has the service take a prompt in as a background response. Where the
// row has no error, the service has acknowledged it, and Record is its id. The
// mark tells it from all others.
func (c *Client) Write(ctx context.Context, p Prompt, mark string, clock recording.Clock, due time.Duration) recording.Request {
	p.API, p.Stream = APIResponses, false
	b := background{body: c.body(p), Background: true, Metadata: map[string]string{markKey: mark}}
	b.Store = new(true)
	row, k := c.keep(ctx, http.MethodPost, paths[APIResponses], b, p.Timeout, clock, due)
	switch {
	case row.Error != "":
	case k.ID == "":
		fail(&row, recording.ErrorProtocol, "the service accepts a background response but returns no id")
	case !k.Background:
		fail(&row, recording.ErrorProtocol, "the service answers at once instead of in the background, so it does not claim to store anything")
	default:
		// What was acknowledged with its mark has to have it when it is read.
		row.Record, row.Answer = k.ID, k.Metadata[markKey]
	}
	return row
}

// Read asks for a record that was acknowledged with an id, of a prompt with so
// many tokens at most; acknowledged is the mark that the service told then. It is settled when the answer says for good what became
// of the record: there and complete (no error), truncated, or gone.
func (c *Client) Read(ctx context.Context, id, mark, acknowledged string, tokens int, timeout time.Duration, clock recording.Clock) (row recording.Request, settled bool) {
	row, k := c.keep(ctx, http.MethodGet, paths[APIResponses]+"/"+url.PathEscape(id), nil, timeout, clock, clock.Now())
	row.Record = id
	unread := func(class string, why words.Phrase, args ...any) (recording.Request, bool) {
		fail(&row, class, why, args...)
		return row, class != recording.ErrorTimeout
	}
	var said strings.Builder
	for _, item := range k.Output {
		for _, part := range item.Content {
			said.WriteString(part.Text)
		}
	}
	text := said.Len()
	Look(&row, said.String())
	if k.Usage != nil {
		row.OutputTokens, row.TokensFrom = k.Usage.Output, "usage"
	}
	row.FinishReason = k.Status
	got, marked := k.Metadata[markKey]
	switch {
	case row.Status == http.StatusNotFound || row.Status == http.StatusGone:
		return unread(recording.ErrorGone, "%s", row.Why())
	case row.Error != "":
		return row, false
	case acknowledged == mark && !marked:
		return unread(recording.ErrorGone, "the record %s was acknowledged with the metadata %q, and has none of that name any more", id, mark)
	case k.ID != id || marked && got != mark:
		return unread(recording.ErrorGone, "requested the record %s with the mark %q, but the service returned %s with %q", id, mark, k.ID, got)
	case k.Status == "queued" || k.Status == "in_progress":
		return unread(recording.ErrorTimeout, "the record is still %s", k.Status)
	case k.Status == "completed" && text == 0:
		return unread(recording.ErrorTruncated, "the record is complete but has no text")
	case k.Status == "incomplete" && k.Incomplete.Reason == "max_output_tokens" && k.Usage != nil && int(k.Usage.Output) < tokens:
		return unread(recording.ErrorTruncated, "the record claims to have reached its token limit, but has %d of %d tokens", k.Usage.Output, tokens)
	case k.Status == "completed", k.Status == "incomplete" && k.Incomplete.Reason == "max_output_tokens":
		return row, true
	}
	return unread(recording.ErrorTruncated, "the record was acknowledged and then %s: %s%s", k.Status, k.Incomplete.Reason, errorText([]byte(`{"error":`+string(k.Error)+`}`)))
}

// keep sends a request about a response that the service keeps. A write that meets
// a kept connection which the service had closed is sent again, as the load is: a
// record is what was acknowledged, so what came of the first does not matter.
func (c *Client) keep(ctx context.Context, method, path string, content any, timeout time.Duration, clock recording.Clock, due time.Duration) (row recording.Request, k kept) {
	row.Due = due
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	a := &arrivals{clock: clock, delays: &c.delays}
	traced := httptrace.WithClientTrace(limited, a.trace())
	var sent io.Reader
	if content != nil {
		b, err := c.encode(content, nil)
		if err != nil {
			fail(&row, recording.ErrorNotSent, "%s", err)
			return row, k
		}
		sent = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(traced, method, c.api+path+c.query, sent)
	if err != nil {
		fail(&row, recording.ErrorNotSent, "%s", err)
		return row, k
	}
	c.header(req)
	req.Header.Set("Content-Type", "application/json")
	row.Sent = clock.Now()
	resp, err := c.roundTrip(req, a)
	if err != nil {
		row.End = clock.Now()
		fail(&row, class(ctx, limited, err), "%s", why(err))
		return row, k
	}
	defer resp.Body.Close()
	row.FirstByte = max(a.last(), row.Sent)
	row.Status, row.Replica = int32(resp.StatusCode), resp.Header.Get("X-Launchgate-Replica")
	k.request = resp.Header.Get("X-Request-Id")
	if n, err := strconv.Atoi(resp.Header.Get("X-Launchgate-Retries")); err == nil {
		row.Retries = int32(n)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxWhole))
	row.End, row.Bytes = max(a.last(), row.FirstByte), int64(len(b))
	switch {
	case err != nil:
		fail(&row, recording.ErrorTruncated, "the answer ended early: %s", err)
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		kind, why := refusal(&row, resp, b)
		fail(&row, kind, "%s", why)
		_ = json.Unmarshal(b, &k) // its error has a code, where it is one in JSON
	case json.Unmarshal(b, &k) != nil:
		fail(&row, recording.ErrorProtocol, "the answer is not a response object: %s", excerpt(b))
	}
	return row, k
}

// ErrUntold is of a service that does not say how many replicas it has.
var ErrUntold = words.Errorf("GET /ready does not say how many replicas are ready")

// Replicas asks the service how many replicas are ready: those that its /ready
// tells, as a gateway's does, and none where it says that it is not ready.
func (c *Client) Replicas(ctx context.Context) (int, error) {
	if c.rpc != nil {
		return 0, ErrUntold
	}
	limited, cancel := context.WithTimeout(ctx, answerFor)
	defer cancel()
	req, err := http.NewRequestWithContext(limited, http.MethodGet, c.base+"/ready"+c.query, nil)
	if err != nil {
		return 0, err
	}
	c.header(req)
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxExcerpt))
	if err != nil {
		return 0, err
	}
	var status struct {
		Replicas *int `json:"replicas"`
	}
	switch {
	case resp.StatusCode == http.StatusServiceUnavailable:
		return 0, nil
	case resp.StatusCode != http.StatusOK, json.Unmarshal(b, &status) != nil, status.Replicas == nil:
		return 0, words.Errorf("%s (%s)", ErrUntold, resp.Status)
	}
	return *status.Replicas, nil
}
