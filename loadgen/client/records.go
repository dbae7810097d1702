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

// markKey is the metadata key of a record's mark.
const markKey = "launchgate_record"

// background is the JSON of a background response.
type background struct {
	body
	Background bool              `json:"background"`
	Metadata   map[string]string `json:"metadata"`
}

// kept is the part of a stored response that is read.
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

// WriteUsage sends a prompt, so that the service records its usage. If the row has no
// error, the whole answer came, and Record is the X-Request-Id under which the usage is
// stored.
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

// usageNotFound is the error code of a service that stores usage, but not that of the
// request.
const usageNotFound = "usage_not_found"

// ReadUsage reads the stored usage of a request whose answer had so many tokens. It is
// settled when the result is final: stored (no error), with another number of tokens
// (truncated), or gone.
func (c *Client) ReadUsage(ctx context.Context, request string, tokens int32, timeout time.Duration, clock recording.Clock) (row recording.Request, settled bool) {
	row, k := c.keep(ctx, http.MethodGet, "/usage/"+url.PathEscape(request), nil, timeout, clock, clock.Now())
	row.Record = request
	var e struct{ Code string }
	_ = json.Unmarshal(k.Error, &e) // errors of other servers have no code
	switch {
	case e.Code == usageNotFound:
		row.Error = recording.ErrorGone
	case row.Status == http.StatusNotFound: // a service without such a path has lost nothing
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

// Write sends a prompt as a background response. If the row has no error, the service
// has acknowledged it, and Record is its id. The mark distinguishes it from all other
// records.
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
		// The mark that was acknowledged is compared when the record is read.
		row.Record, row.Answer = k.ID, k.Metadata[markKey]
	}
	return row
}

// Read reads an acknowledged record by its id. tokens is the limit of its prompt, and
// acknowledged is the mark in the acknowledgement. It is settled when the result is
// final: complete (no error), truncated, or gone.
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

// keep sends a request about a stored response. A write on a kept connection that the
// service had closed is sent again, like the load. A second copy does no harm, because
// only an acknowledged write counts as a record.
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
		_ = json.Unmarshal(b, &k) // an error in JSON has a code
	case json.Unmarshal(b, &k) != nil:
		fail(&row, recording.ErrorProtocol, "the answer is not a response object: %s", excerpt(b))
	}
	return row, k
}

// ErrNoReplicaCount is for a service that does not say how many replicas it has.
var ErrNoReplicaCount = words.Errorf("GET /ready does not say how many replicas are ready")

// Replicas is the number of ready replicas according to the service's /ready, as a
// gateway has it; 0 if the service says that it is not ready.
func (c *Client) Replicas(ctx context.Context) (int, error) {
	if c.rpc != nil {
		return 0, ErrNoReplicaCount
	}
	limited, cancel := context.WithTimeout(ctx, answerFor)
	defer cancel()
	resp, err := c.page(limited, "/ready")
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
		return 0, words.Errorf("%s (%s)", ErrNoReplicaCount, resp.Status)
	}
	return *status.Replicas, nil
}
