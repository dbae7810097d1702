package security

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"unicode"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

var keyValidation = Check{
	Name:    "key-validation",
	Asks:    "whether the service accepts keys that only resemble the right one: a wrong key, a truncated or longer one, one in another case, the hash of the key, its prefix",
	Control: "the same request with the right key works immediately before and after each attempt",
	Flaw:    "the route twice serves a request with a key that was never issued",
	Planted: "test service and reference server: accept-any-key, accept-prefix",
	Needs:   "a key",
	Cap:     Cap{Requests: 200, Seconds: 40, Bytes: 8 << 20},
	worst:   "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H",
	run:     runKeyValidation,
}

var keyLifetime = Check{
	Name:    "key-lifetime",
	Asks:    "whether a key still works after it expired or was revoked",
	Control: "the same request with the valid key works immediately before and after",
	Flaw:    "the route twice serves a request with the expired or revoked key",
	Planted: "test service: ignore-expiry",
	Needs:   "an expired or revoked key (expired_key_env, revoked_key_env)",
	Cap:     Cap{Requests: 60, Seconds: 30, Bytes: 4 << 20},
	worst:   "CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:N",
	asked:   func(s scenarios.Scan) bool { return s.ExpiredKeyEnv != "" || s.RevokedKeyEnv != "" },
	run:     runKeyLifetime,
}

var keyTags = []string{"OWASP API2:2023", "CWE-287"}

// cheapest is the route on which keys are tried.
func (t *trial) cheapest() (route, bool) {
	for _, r := range t.routes {
		if r.api {
			return r, true
		}
	}
	return route{}, false
}

// tryKey sends a request with a key between two controls, and reports whether the route
// accepted the key; ok is false if a control failed.
func (t *trial) tryKey(ctx context.Context, r route, key string) (worked bool, sent request, came answer, ok bool) {
	good := request{method: r.method, path: r.path, body: r.body, key: t.target.Key}
	sent = good
	sent.key = key
	if !r.means(t.ask(ctx, good)) {
		return false, sent, came, false
	}
	came = t.ask(ctx, sent)
	if !r.means(t.ask(ctx, good)) {
		return false, sent, came, false
	}
	return r.means(came), sent, came, true
}

func runKeyValidation(ctx context.Context, t *trial) end {
	key := t.target.Key
	r, has := t.cheapest()
	switch {
	case key == "":
		return unproven("no key was given")
	case !has:
		return unproven("no route of OpenAI's API answered")
	case r.means(t.ask(ctx, request{method: r.method, path: r.path, body: r.body})):
		return unproven("the service requires no key at all; see the check authentication")
	}
	sum := sha256.Sum256([]byte(key))
	prefix, _, _ := strings.Cut(key, "-")
	tries := []struct{ kind, key string }{
		{"a random key", t.random.letters(len(key))},
		{"a random key that begins as the right one does", key[:min(len(key), len(prefix)+1)] + t.random.letters(max(1, len(key)-len(prefix)-1))},
		{"without its last character", key[:len(key)-1]},
		{"its first half", key[:len(key)/2]},
		{"its first eight characters", key[:min(8, len(key)-1)]},
		{"with a letter more", key + "x"},
		{"with its last character changed", key[:len(key)-1] + changed(key[len(key)-1])},
		{"with upper and lower case exchanged", strings.Map(otherCase, key)},
		{"the SHA-256 of it", hex.EncodeToString(sum[:])},
		{"base64 of it", base64.StdEncoding.EncodeToString([]byte(key))},
		{"a pattern that matches it", key[:len(key)/2] + "%"},
		{"a star", "*"},
	}
	tried := 0
	for _, try := range tries {
		if try.key == key {
			continue
		}
		worked, sent, came, ok := t.tryKey(ctx, r, try.key)
		if !ok {
			continue
		}
		tried++
		if !worked {
			continue
		}
		if again, _, _, ok := t.tryKey(ctx, r, try.key); ok && again {
			sent.key = "«" + try.kind + "»"
			t.found(flaw{
				title: say("the service accepts a key that was never issued"), kind: try.kind, where: r.method + " " + r.path, vector: t.check.worst, tags: keyTags,
				evidence: []recording.Exchange{exchange(sent, came)},
				verified: say("the route served the request twice, between requests with the right key: %s", try.kind),
				fix:      say("compare a hash of the whole key in constant time, and refuse every other key with 401"),
			})
		}
	}
	if tried < len(tries)/2 {
		return unproven("the right key did not always work before and after: only %s of %s attempts have a control", number(int64(tried)), number(int64(len(tries))))
	}
	return t.ended("%s keys that only resemble the right one were refused, and the right one worked before and after each", number(int64(tried)))
}

// changed is another character of the same kind.
func changed(b byte) string {
	if b == 'a' || b == '0' {
		return string(rune(b + 1))
	}
	if b >= '0' && b <= '9' {
		return "0"
	}
	return "a"
}

func otherCase(r rune) rune {
	if unicode.IsUpper(r) {
		return unicode.ToLower(r)
	}
	return unicode.ToUpper(r)
}

func runKeyLifetime(ctx context.Context, t *trial) end {
	r, has := t.cheapest()
	if !has || t.target.Key == "" {
		return unproven("no key was given")
	}
	tried := 0
	for _, old := range []struct {
		kind, key string
		title     words.Sentence
	}{
		{"expired", t.target.ExpiredKey, say("a key that has expired still works")},
		{"revoked", t.target.RevokedKey, say("a key that was revoked still works")},
	} {
		if old.key == "" {
			continue
		}
		worked, sent, came, ok := t.tryKey(ctx, r, old.key)
		if !ok {
			return unproven("the valid key did not work both before and after")
		}
		tried++
		if again, _, _, ok := t.tryKey(ctx, r, old.key); worked && ok && again {
			t.found(flaw{
				title: old.title, kind: old.kind, where: r.method + " " + r.path, vector: t.check.worst, tags: append(keyTags, "CWE-613"),
				evidence: []recording.Exchange{exchange(sent, came)},
				verified: say("the route served the request twice, between requests with the valid key"),
				fix:      say("on every request, look up whether the key has expired or was revoked, and cache the result for a few seconds at most"),
			})
		}
	}
	if tried == 0 {
		return unproven("the environment variables of the expired and the revoked key are empty")
	}
	return t.ended("the service refuses the %s expired or revoked keys and accepts the valid one", number(int64(tried)))
}
