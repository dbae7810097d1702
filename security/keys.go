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
	Asks:    "whether keys that only look like the right one are taken: wrong, cut short, lengthened, in other letters, its hash, its beginning",
	Control: "the same request with the right key works right before and right after each try",
	Flaw:    "an answer that does the route's work for a key that was never issued, twice",
	Planted: "accept-any-key, accept-prefix in the test service; LAUNCHGATE_FLAW of the reference server",
	Needs:   "a key",
	Cap:     Cap{Requests: 200, Seconds: 40, Bytes: 8 << 20},
	worst:   "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H",
	run:     runKeyValidation,
}

var keyLifetime = Check{
	Name:    "key-lifetime",
	Asks:    "whether a key still works when it has expired or was revoked",
	Control: "the same request with the key that is valid works right before and right after",
	Flaw:    "an answer that does the route's work for the expired or revoked key, twice",
	Planted: "ignore-expiry in the test service; LAUNCHGATE_FLAW of the reference server",
	Needs:   "an expired or revoked key (expired_key_env, revoked_key_env)",
	Cap:     Cap{Requests: 60, Seconds: 30, Bytes: 4 << 20},
	worst:   "CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:N",
	asked:   func(s scenarios.Scan) bool { return s.ExpiredKeyEnv != "" || s.RevokedKeyEnv != "" },
	run:     runKeyLifetime,
}

var keyTags = []string{"OWASP API2:2023", "CWE-287"}

// cheapest is a route to try keys on.
func (t *trial) cheapest() (route, bool) {
	for _, r := range t.routes {
		if r.api {
			return r, true
		}
	}
	return route{}, false
}

// tryKey asks with a key between two controls, and reports whether the route did
// its work for it; ok is false where a control failed.
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
		return unproven("the service asks for no key at all, which authentication tells of")
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
				title: say("a key that was never issued is taken"), kind: try.kind, where: r.method + " " + r.path, vector: t.check.worst, tags: keyTags,
				evidence: []recording.Exchange{exchange(sent, came)},
				verified: say("it was answered twice with what the route does, between requests with the right key: %s", try.kind),
				fix:      say("compare the whole key, in constant time, by a hash of it, and refuse every other one with 401"),
			})
		}
	}
	if tried < len(tries)/2 {
		return unproven("the right key did not work before and after: only %s of %s tries have a control", number(int64(tried)), number(int64(len(tries))))
	}
	return t.ended("%s keys that only look like the right one were refused, with the right one working before and after each", number(int64(tried)))
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
			return unproven("the valid key did not work before and after")
		}
		tried++
		if again, _, _, ok := t.tryKey(ctx, r, old.key); worked && ok && again {
			t.found(flaw{
				title: old.title, kind: old.kind, where: r.method + " " + r.path, vector: t.check.worst, tags: append(keyTags, "CWE-613"),
				evidence: []recording.Exchange{exchange(sent, came)},
				verified: say("it was answered twice with what the route does, between requests with the valid key"),
				fix:      say("look up whether a key has expired or was revoked on every request, and keep no answer of that lookup for longer than a few seconds"),
			})
		}
	}
	if tried == 0 {
		return unproven("the variables of the expired and the revoked key are empty")
	}
	return t.ended("the old keys that were given are refused, and the valid one works: %s tried", number(int64(tried)))
}
