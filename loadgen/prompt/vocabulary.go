package prompt

import (
	"context"
	_ "embed"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen/client"
)

// Vocabulary is what synthetic prompts are made of: words whose length in the target's
// tokens is known.
type Vocabulary struct {
	Words []string
	// PerWord is how many tokens a word is, on average.
	PerWord float64
	// How says how the length is known, for the reader of the report.
	How words.Sentence
}

//go:embed words.txt
var wordList string

const (
	// enoughWords is how many words of one token make a vocabulary.
	enoughWords = 64
	// guess is how many tokens a common English word is, in most tokenizers.
	guess = 1.1
	// askFor bounds each question about the length of a prompt.
	askFor = 30 * time.Second
)

// Guessed is the vocabulary for a target whose tokens are not known.
func Guessed() Vocabulary {
	return Vocabulary{strings.Fields(wordList), guess, words.Say("with an estimate of %.1f tokens per word", guess)}
}

// learn finds out how the target counts tokens. If its tokenizer works, the vocabulary
// has only words of exactly one token. Otherwise the tokens per word are measured by
// the usage of an answer, or else guessed. It asks with a prompt like those of the
// load.
func learn(ctx context.Context, c *client.Client, ask client.Prompt) (Vocabulary, error) {
	list := strings.Fields(wordList)
	v, err := byTokenizer(ctx, c, list)
	if err == nil || ctx.Err() != nil {
		return v, err
	}
	// Two lengths, so that the template around the prompt cancels out.
	few, err := promptTokens(ctx, c, ask, list[:16])
	if err != nil {
		return Vocabulary{}, err
	}
	many, err := promptTokens(ctx, c, ask, list)
	if err != nil || many <= few { // a small context, or no usage
		return Guessed(), nil
	}
	per := float64(many-few) / float64(len(list)-16)
	return Vocabulary{list, per, words.Say("with the usage that the service reports: %.2f tokens per word", per)}, nil
}

// byTokenizer keeps the words that are one token each when they follow others. A list
// of such words has as many tokens as words; any other list is halved and tried again.
func byTokenizer(ctx context.Context, c *client.Client, list []string) (Vocabulary, error) {
	frame, err := askCount(ctx, c, "the")
	if err != nil {
		return Vocabulary{}, err
	}
	var single []string
	total := 0
	var sort func(list []string) error
	sort = func(list []string) error {
		n, err := askCount(ctx, c, "the "+strings.Join(list, " "))
		if err != nil {
			return err
		}
		switch n -= frame; {
		case n == len(list):
			single = append(single, list...)
			total += n
		case len(list) == 1:
			total += n
		default:
			half := len(list) / 2
			return errors.Join(sort(list[:half]), sort(list[half:]))
		}
		return nil
	}
	for len(list) > 0 {
		n := min(32, len(list))
		if err := sort(list[:n]); err != nil {
			return Vocabulary{}, err
		}
		list = list[n:]
	}
	if len(single) >= enoughWords {
		return Vocabulary{single, 1, words.Say("%s: %d words of one token each", c.CountedBy(), len(single))}, nil
	}
	all := strings.Fields(wordList)
	per := float64(total) / float64(len(all))
	return Vocabulary{all, per, words.Say("%s: %.2f tokens per word on average", c.CountedBy(), per)}, nil
}

// A service may limit the rate of requests, and learn sends one for every few words.
// mostRefusals is how many times a refused request is sent again, each time after
// restFor.
const (
	mostRefusals = 5
	restFor      = 1100 * time.Millisecond
)

// askCount asks the service's tokenizer, and asks again if it did not count.
func askCount(ctx context.Context, c *client.Client, text string) (n int, err error) {
	for range mostRefusals {
		if n, err = c.CountTokens(ctx, text); err == nil || errors.Is(err, client.ErrNoTokenizer) || !rest(ctx) {
			return n, err
		}
	}
	return n, err
}

// rest waits before a request is sent again; it is false if ctx ends before.
func rest(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(restFor):
		return true
	}
}

// promptTokens is how many tokens the target says a prompt has.
func promptTokens(ctx context.Context, c *client.Client, ask client.Prompt, list []string) (int32, error) {
	clock := recording.NewClock()
	ask.Messages = []client.Message{{Role: "user", Content: strings.Join(list, " ")}}
	ask.Stream = ask.API == client.APIGRPC // gRPC has only streams
	ask.Timeout = max(ask.Timeout, askFor)
	row := c.Do(ctx, ask, clock, clock.Now())
	for range mostRefusals {
		if row.Error != recording.ErrorLimited || !rest(ctx) {
			break
		}
		row = c.Do(ctx, ask, clock, clock.Now())
	}
	// A short answer may be empty if the model thinks first.
	if !row.OK() && row.PromptTokens == 0 {
		return 0, words.Errorf("request the number of tokens of a prompt: %s", row.Why())
	}
	return row.PromptTokens, nil
}

// write draws words worth a number of tokens. A blank precedes each word except the
// first of a text.
func (v Vocabulary) write(b *strings.Builder, tokens int, rng *rand.Rand) {
	for n := max(1, int(float64(tokens)/v.PerWord+0.5)); n > 0; n-- {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(v.Words[rng.IntN(len(v.Words))])
	}
}
