package security

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/launchgate/launchgate/internal/recording"
)

var authentication = Check{
	Name:    "authentication",
	Asks:    "whether a route answers a request without a key when its path, its method or the place of the key is spelled in an unusual way",
	Control: "the route serves the request with the key, and refuses the same request without it (401 or 403)",
	Flaw:    "without the key, the route twice answers 2xx with its real content (a completion with usage, a list with data, a response with an id); redirects are not followed",
	Planted: "test service: skip-auth, auth-double-slash, auth-options; reference server: skip-auth-for",
	Cap:     Cap{Requests: 1500, Seconds: 60, Bytes: 32 << 20},
	worst:   "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:L/A:H",
	run:     runAuthentication,
}

var authTags = []string{"OWASP API2:2023", "OWASP API8:2023", "CWE-306"}

func runAuthentication(ctx context.Context, t *trial) end {
	if t.target.Key == "" {
		return t.openToAll(ctx)
	}
	guarded := 0
	for _, r := range t.routes {
		with := t.ask(ctx, request{method: r.method, path: r.path, body: r.body, key: t.target.Key})
		if !r.means(with) {
			continue // the control of this route failed, although it worked before
		}
		plain := request{method: r.method, path: r.path, body: r.body}
		without := t.ask(ctx, plain)
		if r.means(without) {
			if again := t.ask(ctx, plain); r.api && r.means(again) {
				guarded++
				t.foundOpen(r, plain, again)
			}
			continue
		}
		if !without.refused() {
			continue
		}
		guarded++
		for _, v := range spellings(r, t.host) {
			if ctx.Err() != nil {
				break
			}
			a := t.ask(ctx, v.request)
			if a.err != nil || !r.means(a) {
				continue
			}
			if again := t.ask(ctx, v.request); r.means(again) {
				t.found(flaw{
					title: say("a route answers without a key when it is spelled differently"), kind: v.kind, where: r.method + " " + r.path,
					vector: t.check.worst, tags: authTags, evidence: []recording.Exchange{exchange(plain, without), exchange(v.request, again)},
					verified: say("the route refused the ordinary request, but twice served this spelling of it (%s)", v.kind),
					fix:      say("normalise the path and the method before checking the key, refuse what is not normal, and require the key before routing"),
				})
			}
		}
	}
	if guarded == 0 {
		return unproven("no route both serves the key and refuses requests without one")
	}
	return t.ended("%s routes serve requests with the key and no spelling of the request without it", number(int64(guarded)))
}

// openToAll ends the check of a service that is scanned without a key.
func (t *trial) openToAll(ctx context.Context) end {
	for _, r := range t.routes {
		if !r.api {
			continue
		}
		plain := request{method: r.method, path: r.path, body: r.body}
		if first, again := t.ask(ctx, plain), t.ask(ctx, plain); r.means(first) && r.means(again) {
			t.foundOpen(r, plain, again)
		}
	}
	return t.ended("no route of the API answers without a key")
}

func (t *trial) foundOpen(r route, sent request, came answer) {
	vector := t.check.worst
	if r.method == "GET" {
		vector = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:L/I:N/A:N"
	}
	title := say("the service requires no key")
	if isTokenizer(r.path) {
		title, vector = say("the tokenizer works without a key"), countsForAll
	}
	t.found(flaw{
		title: title, kind: "open", where: r.method + " " + r.path, vector: vector, tags: authTags,
		evidence: []recording.Exchange{exchange(sent, came)},
		verified: say("the route twice served the request without any key"),
		fix:      say("require an API key on every route except health checks; or put a gateway that does so in front, and let only the gateway reach the service"),
	})
}

// spelling is another way to request the same route.
type spelling struct {
	kind string
	request
}

// spellings are requests without the key that a careless access check lets through.
func spellings(r route, host string) []spelling {
	last := r.path[strings.LastIndexByte(r.path, '/')+1:]
	first := strings.TrimPrefix(r.path, "/")
	var of []spelling
	path := func(kind, path string) {
		of = append(of, spelling{kind, request{method: r.method, path: path, body: r.body}})
	}
	path("double slash", "/"+r.path)
	path("triple slash", "//"+r.path)
	path("inner double slash", strings.Replace(r.path, "/"+last, "//"+last, 1))
	path("dot segment", "/."+r.path)
	path("inner dot segment", strings.Replace(r.path, "/"+last, "/./"+last, 1))
	path("dot dot", "/health/.."+r.path)
	path("dot dot of a public path", "/health/../"+first)
	path("encoded dot dot", "/health/%2e%2e"+r.path)
	path("encoded letter", strings.Replace(r.path, "/"+last, "/%"+fmt.Sprintf("%02x", last[0])+last[1:], 1))
	path("encoded slash", "/"+strings.ReplaceAll(first, "/", "%2f"))
	path("trailing slash", r.path+"/")
	path("trailing dot", r.path+"/.")
	path("trailing blank", r.path+"%20")
	path("trailing tab", r.path+"%09")
	path("trailing NUL", r.path+"%00")
	path("trailing line feed", r.path+"%0a")
	path("path parameter", r.path+";a=b")
	path("path parameter inside", strings.Replace(r.path, "/"+last, ";/"+last, 1))
	path("upper case", strings.ToUpper(r.path))
	path("backslash", strings.ReplaceAll(r.path, "/", `\`))
	path("fragment", r.path+"#/health")
	path("public path in the query", r.path+"?/health")
	path("suffix of a file", r.path+".json")
	path("absolute URI", "http://"+host+r.path)
	path("absolute URI of another host", "http://localhost"+r.path)
	if rest, ok := strings.CutPrefix(r.path, "/v1"); ok {
		path("without /v1", rest)
		path("twice /v1", "/v1/v1"+rest)
	}
	path("key in the query", r.path+"?api_key=launchgate&key=launchgate&access_token=launchgate")

	for _, method := range []string{"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "get", "post", "FOO"} {
		if method != r.method {
			of = append(of, spelling{"method " + method, request{method: method, path: r.path, body: r.body}})
		}
	}
	headers := func(kind string, lines ...string) {
		of = append(of, spelling{kind, request{method: r.method, path: r.path, body: r.body, headers: lines}})
	}
	for _, h := range []string{"X-Original-URL: /health", "X-Rewrite-URL: /health", "X-Forwarded-Uri: /health", "X-Original-Method: OPTIONS", "X-HTTP-Method-Override: OPTIONS",
		"X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1", "X-Launchgate-Tenant: launchgate", "X-Tenant-Id: 1", "X-User: admin", "X-Forwarded-User: admin", "X-Remote-User: admin",
		"X-Api-Key: launchgate", "Api-Key: launchgate", "Cookie: session=admin; api_key=launchgate", "Upgrade: websocket", "Connection: Authorization", "Connection: X-Forwarded-For"} {
		headers(h, h)
	}
	for _, value := range []string{"", "Bearer", "Bearer ", "Bearer null", "Bearer undefined", "Bearer EMPTY", "Bearer none", "Bearer *", "Bearer ' OR '1'='1", "Basic YWRtaW46YWRtaW4=", "Basic Og==", "Bearer \x00", "Token launchgate", "Digest username=admin"} {
		headers("Authorization: "+printable(value), "Authorization: "+value)
	}
	headers("two empty keys", "Authorization: Bearer ", "Authorization: Bearer ")
	headers("host of the machine itself", "X-Forwarded-Host: localhost", "X-Forwarded-Proto: https", "X-Forwarded-Prefix: /health")
	of = append(of, spelling{"HTTP/1.0", request{method: r.method, path: r.path, body: r.body, version: "HTTP/1.0"}})
	of = append(of, spelling{"a public path first in an encoded query", request{method: r.method, path: "/health?" + url.QueryEscape(r.path), body: r.body}})
	return of
}
