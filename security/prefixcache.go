package security

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

var prefixCache = Check{
	Name:    "prefix-cache",
	Asks:    "whether a tenant can find out through the prefix cache what another tenant has asked, by cached_tokens in the usage or by response times",
	Control: "the first tenant's own second request is answered; if the usage reports cached tokens, it reports them for this request",
	Flaw:    "in random order, the other tenant's right guesses of a random prompt hit the cache and its wrong guesses do not: Fisher's exact test on cached_tokens with p < 0.001, or Mann-Whitney on response times with p < 0.001 in both halves",
	Planted: "test service and reference server: shared-prefix-cache",
	Needs:   "a key of another tenant (other_key_env)",
	Cap:     Cap{Requests: 600, Seconds: 75, Bytes: 16 << 20},
	worst:   "CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:C/C:H/I:N/A:N",
	run:     runPrefixCache,
}

const guesses = 12 // right guesses, and as many wrong ones

// Words of a secret. Few are enough if the cache has small blocks and the usage reports
// its hits: prompts are then short, and other clients do not wait for them. Otherwise a
// secret fills blocks of 128 tokens, and computing it takes a time that can be told.
const (
	fewWords  = 18
	manyWords = 45
)

// secret is a prompt that nobody else has sent.
func (t *trial) secret(length int) string {
	var words []string
	for range length {
		words = append(words, t.random.letters(3+t.random.intN(6)))
	}
	return strings.Join(words, " ")
}

func runPrefixCache(ctx context.Context, t *trial) end {
	if t.target.OtherKey == "" {
		return unproven("no second key: the variable of other_key_env is empty or not named")
	}
	if !t.chat {
		return unproven("the service does not chat")
	}
	ask := func(key, secret string) (completion, time.Duration, bool) {
		r := request{method: "POST", path: "/v1/chat/completions", key: key, body: t.messages([]map[string]string{
			{"role": "system", "content": secret}, {"role": "user", "content": "Say hi."}}, `"max_tokens":1,"temperature":0`)}
		a := t.paced(ctx, r)
		c, ok := a.parsed()
		return c, a.took, ok && len(c.Choices) > 0
	}
	cached := func(c completion) (int64, bool) {
		if c.Usage == nil || c.Usage.Details == nil || c.Usage.Details.Cached == nil {
			return 0, false
		}
		return *c.Usage.Details.Cached, true
	}
	// The tokens around a prompt (the chat template) are the same for all prompts, so
	// that a hit has more than half of the prompt's tokens.
	isHit := func(c completion) bool {
		n, reports := cached(c)
		return reports && c.Usage.Prompt > 0 && 2*n > c.Usage.Prompt
	}
	length := manyWords
	for own, i := t.secret(fewWords), 0; i <= warmings && length > fewWords; i++ {
		if c, _, ok := ask(t.target.Key, own); ok && isHit(c) {
			length = fewWords
		}
	}
	var right, wrong []float64 // times
	hits, wrongHits, reported := 0, 0, 0
	var example recording.Exchange
	order := t.random.perm(2 * guesses)
	for _, i := range order {
		if ctx.Err() != nil {
			return unproven("not all guesses could be made in time")
		}
		// Each guess has a secret of its own, because the guess of the other tenant may
		// itself stay in the cache.
		secret := t.secret(length)
		if !warm(func() bool { _, _, ok := ask(t.target.Key, secret); return ok }) {
			return unproven("the first tenant's request was not answered")
		}
		guess, isRight := secret, i%2 == 0
		if !isRight {
			guess = t.secret(length)
		}
		c, took, ok := ask(t.target.OtherKey, guess)
		if !ok {
			return unproven("the other tenant's request was not answered")
		}
		n, reports := cached(c)
		if reports {
			reported++
		}
		hit := isHit(c)
		switch {
		case isRight:
			right = append(right, took.Seconds())
			if hit {
				hits++
				example = recording.Exchange{Sent: fmt.Sprintf("as the other tenant: the first tenant's system prompt, %q", clip(secret, 60)), Came: fmt.Sprintf("usage: %d prompt tokens, %d of them cached", c.Usage.Prompt, n)}
			}
		default:
			wrong = append(wrong, took.Seconds())
			if hit {
				wrongHits++
			}
		}
	}
	fix := say("separate the cache by tenant (vLLM: cache_salt), and report to each tenant only the hits on its own prompts")
	tags := []string{"OWASP LLM02:2025", "CWE-524", "CWE-208"}
	if p := fisher(hits, guesses, wrongHits, guesses); p < 0.001 {
		t.found(flaw{title: say("cached_tokens shows a tenant what another tenant has asked"), kind: "cached_tokens", where: "POST /v1/chat/completions", vector: t.check.worst, tags: tags,
			evidence: []recording.Exchange{example}, fix: fix,
			verified: say("%s of %s right guesses and %s of %s wrong ones hit the cache (Fisher's exact test, p = %s)", number(int64(hits)), number(guesses), number(int64(wrongHits)), number(guesses), fmt.Sprintf("%.1g", p))})
		return t.ended("")
	}
	half := guesses / 2
	p := max(less(right[:half], wrong[:half]), less(right[half:], wrong[half:]))
	if whole := less(right, wrong); whole < 0.001 && p < 0.05 && middle(right) < 0.8*middle(wrong) {
		t.found(flaw{title: say("response times show a tenant what another tenant has asked"), kind: "time", where: "POST /v1/chat/completions", vector: "CVSS:3.1/AV:N/AC:H/PR:L/UI:N/S:C/C:L/I:N/A:N", tags: tags,
			evidence: []recording.Exchange{{Sent: "as the other tenant: right and wrong guesses of the first tenant's system prompt, in random order", Came: fmt.Sprintf("median time %.1f ms of right ones, %.1f ms of wrong ones", 1e3*middle(right), 1e3*middle(wrong))}}, fix: fix,
			verified: say("right guesses were answered faster (Mann-Whitney, p = %s; in both halves of the series)", fmt.Sprintf("%.1g", whole))})
		return t.ended("")
	}
	if reported > 0 {
		return safe("right guesses of another tenant's prompt look like wrong ones: %s of %s against %s of %s cache hits by cached_tokens, and no difference in response time", number(int64(hits)), number(guesses), number(int64(wrongHits)), number(guesses))
	}
	return safe("right guesses of another tenant's prompt were answered as fast as wrong ones; the usage does not report cached tokens")
}

// warmings is how often the first tenant sends a prompt, so that each of several
// replicas is likely to have it.
const warmings = 6

// warm sends a request several times, one after the other, because this check is not
// about load, and reports whether most were answered.
func warm(ask func() bool) bool {
	answered := 0
	for range warmings {
		if ask() {
			answered++
		}
	}
	return answered >= warmings-1
}

func middle(v []float64) float64 {
	var took []sample
	for _, x := range v {
		took = append(took, sample{took: time.Duration(x * 1e9), ok: true})
	}
	return median(took).Seconds()
}
