package security

import (
	"context"
	"strings"

	"github.com/launchgate/launchgate/internal/recording"
)

var headersAndCORS = Check{
	Name:    "headers-and-cors",
	Asks:    "whether foreign web pages may use the service with a visitor's credentials (CORS), and whether answers carry the headers that stop browsers from guessing the content type",
	Control: "the same request without Origin is answered",
	Flaw:    "two random Origins come back in Access-Control-Allow-Origin with credentials allowed; a service that requires no key allows any origin; a JSON answer lacks nosniff",
	Planted: "test service: cors-reflect, no-nosniff; reference server: cors-reflect, no-security-headers",
	Cap:     Cap{Requests: 60, Seconds: 20, Bytes: 4 << 20},
	worst:   "CVSS:3.1/AV:N/AC:L/PR:N/UI:R/S:U/C:H/I:L/A:N",
	run:     runHeaders,
}

func runHeaders(ctx context.Context, t *trial) end {
	tried := 0
	var nosniff []string
	var example recording.Exchange
	for _, r := range t.routes {
		if !r.api {
			continue
		}
		plain := request{method: r.method, path: r.path, body: r.body, key: t.target.Key}
		a := t.ask(ctx, plain)
		if !r.means(a) {
			continue
		}
		tried++
		if !strings.EqualFold(a.header.Get("X-Content-Type-Options"), "nosniff") {
			nosniff = append(nosniff, r.path)
			example = exchange(plain, a)
		}
		for _, method := range []string{r.method, "OPTIONS"} {
			t.tryOrigin(ctx, r, method)
		}
	}
	if tried == 0 {
		return unproven("no route of OpenAI's API answered")
	}
	if len(nosniff) > 0 {
		t.found(flaw{
			title: say("browsers may guess the content type of answers (no X-Content-Type-Options: nosniff)"), kind: "nosniff", where: "X-Content-Type-Options",
			vector: "CVSS:3.1/AV:N/AC:H/PR:N/UI:R/S:U/C:N/I:L/A:N", tags: []string{"OWASP API8:2023", "CWE-693"}, evidence: []recording.Exchange{example},
			verified: say("the header was missing on %s of %s routes that answered: %s", number(int64(len(nosniff))), number(int64(tried)), strings.Join(nosniff, ", ")),
			fix:      say("send X-Content-Type-Options: nosniff with every answer, because users influence what a model writes"),
		})
	}
	return t.ended("on %s routes, no random Origin was allowed with credentials, and answers carry nosniff", number(int64(tried)))
}

// tryOrigin requests a route as web pages of two foreign origins would.
func (t *trial) tryOrigin(ctx context.Context, r route, method string) {
	var came [2]answer
	var sent request
	for i := range came {
		origin := "https://" + t.random.letters(16) + ".example"
		sent = request{method: method, path: r.path, body: r.body, key: t.target.Key, headers: []string{"Origin: " + origin}}
		if method == "OPTIONS" {
			sent.body, sent.key = "", ""
			sent.headers = append(sent.headers, "Access-Control-Request-Method: "+r.method, "Access-Control-Request-Headers: authorization,content-type")
		}
		came[i] = t.ask(ctx, sent)
		allowed := came[i].header.Get("Access-Control-Allow-Origin")
		credentials := strings.EqualFold(came[i].header.Get("Access-Control-Allow-Credentials"), "true")
		reflected := allowed == origin && credentials
		anybody := (allowed == "*" || allowed == origin) && t.target.Key == ""
		if came[i].err != nil || !reflected && !anybody {
			return
		}
	}
	f := flaw{kind: "origin", where: method + " " + r.path, tags: []string{"OWASP API8:2023", "CWE-942"}, evidence: []recording.Exchange{exchange(sent, came[1])},
		title: say("pages of any origin may use the service with a visitor's credentials"), vector: t.check.worst,
		verified: say("two random origins came back in Access-Control-Allow-Origin, with credentials allowed"),
		fix:      say("allow only the origins of your own pages by name, or no origin")}
	if t.target.Key == "" {
		f.title = say("the service requires no key, so any web page that a person visits may use it")
		f.vector = "CVSS:3.1/AV:N/AC:L/PR:N/UI:R/S:U/C:L/I:L/A:L"
		f.verified = say("two random origins were allowed by Access-Control-Allow-Origin")
	}
	t.found(f)
}
