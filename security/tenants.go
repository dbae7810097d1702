package security

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

var tenantObjects = Check{
	Name:    "tenant-objects",
	Asks:    "whether a tenant can read, cancel or delete what another tenant made: responses, files, stored completions, usage records",
	Control: "the first tenant reads its object, which contains a random canary, before and afterwards; an id that never existed is requested too",
	Flaw:    "the other tenant's answer contains the canary or the object's data, or the object is gone or cancelled for its owner after the attempt; repeated with another object",
	Planted: "test service and reference server: responses-without-tenant",
	Needs:   "a key of another tenant (other_key_env)",
	Cap:     Cap{Requests: 200, Seconds: 60, Bytes: 8 << 20},
	worst:   "CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:N",
	run:     runTenantObjects,
}

var tenantTags = []string{"OWASP API1:2023", "CWE-639"}

// object is something that a tenant creates and later reads by its id.
type object struct {
	kind   string
	create func(t *trial, canary string) request
	read   string // path with {id}
	idOf   func(a answer) string
	// attempts are the requests that the other tenant tries: method and path with {id}.
	attempts [][2]string
}

var objects = []object{
	{
		kind: "response",
		create: func(t *trial, canary string) request {
			return request{method: "POST", path: "/v1/responses", body: fmt.Sprintf(`{"model":%s,"input":%s,"background":true,"store":true,"max_output_tokens":16,"metadata":{"note":%s}}`, quoted(t.model), quoted("Remember "+canary), quoted(canary))}
		},
		read: "/v1/responses/{id}", idOf: idMember,
		attempts: [][2]string{
			{"GET", "/v1/responses/{id}"}, {"GET", "/v1/responses/{id}/"}, {"GET", "/v1/responses/{id}/input_items"}, {"GET", "//v1/responses/{id}"}, {"GET", "/v1/responses/{ID}"},
			{"GET", "/v1/responses/{id}?tenant=&stream=false"}, {"GET", "/v1/responses"}, {"GET", "/v1/responses/x%2f..%2f{id}"},
			{"POST", "/v1/responses/{id}/cancel"}, {"POST", "/v1/responses/{id}"}, {"DELETE", "/v1/responses/{id}"},
		},
	},
	{
		kind: "stored completion",
		create: func(t *trial, canary string) request {
			return request{method: "POST", path: "/v1/chat/completions", body: t.message("Remember "+canary, `"store":true,"max_tokens":2,"metadata":{"note":`+quoted(canary)+`}`)}
		},
		read: "/v1/chat/completions/{id}", idOf: idMember,
		attempts: [][2]string{{"GET", "/v1/chat/completions/{id}"}, {"GET", "/v1/chat/completions/{id}/messages"}, {"GET", "/v1/chat/completions"}, {"DELETE", "/v1/chat/completions/{id}"}},
	},
	{
		kind: "file",
		create: func(t *trial, canary string) request {
			const edge = "launchgate-edge"
			return request{method: "POST", path: "/v1/files", headers: []string{"Content-Type: multipart/form-data; boundary=" + edge},
				body: "--" + edge + "\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--" + edge + "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"" + canary + ".jsonl\"\r\nContent-Type: application/jsonl\r\n\r\n{\"note\":\"" + canary + "\"}\r\n--" + edge + "--\r\n"}
		},
		read: "/v1/files/{id}", idOf: idMember,
		attempts: [][2]string{{"GET", "/v1/files/{id}"}, {"GET", "/v1/files/{id}/content"}, {"GET", "/v1/files"}, {"DELETE", "/v1/files/{id}"}},
	},
	{
		kind: "usage",
		create: func(t *trial, canary string) request {
			return request{method: "POST", path: "/v1/chat/completions", body: t.message("Say hi "+canary, `"max_tokens":2`)}
		},
		read: "", idOf: func(a answer) string { return a.header.Get("X-Request-Id") },
		attempts: [][2]string{{"GET", ""}},
	},
}

func idMember(a answer) string {
	c, _ := a.parsed()
	return c.ID
}

func runTenantObjects(ctx context.Context, t *trial) end {
	if t.target.OtherKey == "" {
		return unproven("no second key: the variable of other_key_env is empty or not named")
	}
	var looked []string
	for _, o := range objects {
		ok, broken := t.steal(ctx, o)
		if !ok {
			continue
		}
		looked = append(looked, o.kind)
		for _, b := range broken { // once more, with another object
			_, again := t.steal(ctx, o)
			for _, a := range again {
				if a.attempt == b.attempt {
					t.found(flaw{
						title: b.title, kind: o.kind, where: strings.Join(b.attempt[:], " "), vector: b.vector, tags: tenantTags, evidence: a.evidence,
						verified: say("this was seen with two objects, each with its own canary, which the owner could read; an id that never existed gets %s", a.unknown),
						fix:      say("look up every object by its id and its tenant together, and answer for objects of others exactly as for objects that never existed"),
					})
				}
			}
			break // one repetition covers all of them
		}
	}
	if len(looked) == 0 {
		return unproven("the service stores nothing that a tenant can request by id, or refuses it to its owner too")
	}
	return t.ended("the other tenant could not read, cancel or delete what the first one made: %s", strings.Join(looked, ", "))
}

// theft is an attempt that worked.
type theft struct {
	attempt  [2]string
	title    words.Sentence
	vector   string
	evidence []recording.Exchange
	unknown  string
}

// steal creates an object as the first tenant and tries to get at it as the other one;
// ok is false if the owner cannot read it back.
func (t *trial) steal(ctx context.Context, o object) (ok bool, worked []theft) {
	read := o.read
	attempts := o.attempts
	if o.kind == "usage" {
		read = orElse(t.Scan.Usage, "/v1/usage/{id}")
		attempts = [][2]string{{"GET", read}}
	}
	canary := t.random.letters(24)
	make := func() (string, answer) {
		r := o.create(t, canary)
		r.key = t.target.Key
		made := t.ask(ctx, r)
		id := o.idOf(made)
		if !made.ok() || id == "" {
			return "", made
		}
		return id, made
	}
	mine := func(id string) answer {
		var a answer
		for range 15 { // the object may appear a moment later
			a = t.ask(ctx, request{method: "GET", path: strings.ReplaceAll(read, "{id}", url.PathEscape(id)), key: t.target.Key})
			if a.ok() || !sleep(ctx, 200*time.Millisecond) {
				break
			}
		}
		return a
	}
	id, _ := make()
	if id == "" {
		return false, nil
	}
	before := mine(id)
	if !before.ok() || members(before) == nil {
		return false, nil
	}
	never := sameShape(id, t)
	for _, attempt := range attempts {
		path := func(id string) string {
			p := strings.ReplaceAll(attempt[1], "{id}", url.PathEscape(id))
			return strings.ReplaceAll(p, "{ID}", url.PathEscape(strings.ToUpper(id)))
		}
		r := request{method: attempt[0], path: path(id), key: t.target.OtherKey}
		unknown := t.ask(ctx, request{method: attempt[0], path: path(never), key: t.target.OtherKey})
		came := t.ask(ctx, r)
		if came.err != nil {
			continue
		}
		shows := came.ok() && (bytes.Contains(came.body, []byte(canary)) || bytes.Contains(came.body, []byte(id)) && !unknown.ok() || o.kind == "usage" && meansUsage(came) && !meansUsage(unknown))
		after := mine(id)
		harmed := attempt[0] != "GET" && (!after.ok() || statusOf(after) == "cancelled" && statusOf(before) != "cancelled")
		switch {
		case harmed:
			worked = append(worked, theft{attempt, say("a tenant can cancel or delete what another tenant made"), t.check.worst, []recording.Exchange{exchange(r, came)}, number(int64(unknown.status))})
		case shows:
			worked = append(worked, theft{attempt, say("a tenant can read what another tenant made"), "CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:U/C:H/I:N/A:N", []recording.Exchange{exchange(r, came)}, number(int64(unknown.status))})
		}
		if harmed {
			if id, _ = make(); id == "" {
				break
			}
			before = mine(id)
		}
	}
	if id != "" && o.kind != "usage" {
		t.ask(ctx, request{method: "DELETE", path: strings.ReplaceAll(read, "{id}", url.PathEscape(id)), key: t.target.Key}) // clean up
	}
	return true, worked
}

func statusOf(a answer) string {
	c, _ := a.parsed()
	return c.Status
}

// sameShape is an id that never existed, of the same kind of characters and length.
func sameShape(id string, t *trial) string {
	random := t.random.letters(len(id))
	b := []byte(id)
	for i := len(b) / 3; i < len(b); i++ {
		switch {
		case b[i] >= '0' && b[i] <= '9':
			b[i] = '0' + (random[i]-'a')%10
		case b[i] >= 'a' && b[i] <= 'f':
			b[i] = 'a' + (random[i]-'a')%6
		case b[i] >= 'a' && b[i] <= 'z':
			b[i] = random[i]
		}
	}
	return string(b)
}

// meansUsage reports whether an answer is a record of usage.
func meansUsage(a answer) bool {
	return usedTokens(a) >= 0
}

// usedTokens are the output tokens of a record of usage; -1 if it is none.
func usedTokens(a answer) int64 {
	var body map[string]any
	if !a.ok() || json.Unmarshal(a.body, &body) != nil {
		return -1
	}
	return findTokens(body)
}

func findTokens(m map[string]any) int64 {
	for _, name := range []string{"completion_tokens", "output_tokens", "output", "n_output_tokens"} {
		if v, ok := m[name].(float64); ok {
			return int64(v)
		}
	}
	for _, v := range m {
		switch inner := v.(type) {
		case map[string]any:
			if n := findTokens(inner); n >= 0 {
				return n
			}
		case []any:
			for _, each := range inner {
				if of, ok := each.(map[string]any); ok {
					if n := findTokens(of); n >= 0 {
						return n
					}
				}
			}
		}
	}
	return -1
}
