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

// Vocabulary is what synthetic prompts are made of: words of which is known how
// many tokens of the target they are.
type Vocabulary struct {
	Words []string
	// PerWord is how many tokens a word is, on average.
	PerWord float64
	// How it is known, for the reader of the report.
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

// Guessed is the vocabulary of a target that nobody could ask.
func Guessed() Vocabulary {
	return Vocabulary{strings.Fields(wordList), guess, words.Say("with an estimate of %.1f tokens per word", guess)}
}

// learn finds out how the target counts: by its own tokenizer, which leaves
// words of exactly one token; where it has none, or one that does not work, by the
// usage it tells with an answer; or by nothing at all.
// It asks with a prompt like those of the load.
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

// byTokenizer keeps the words that are one token each when they follow others.
// A list in which each is one has as many tokens as words; any other is halved.
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
		return Vocabulary{single, 1, words.Say("with the service's own tokenizer: %d words of one token each", len(single))}, nil
	}
	all := strings.Fields(wordList)
	per := float64(total) / float64(len(all))
	return Vocabulary{all, per, words.Say("with the service's own tokenizer: %.2f tokens per word on average", per)}, nil
}

// A service may limit how often it is asked, and it is asked for every few words:
// mostRefusals are how often a question is asked again, a moment later each time.
const (
	mostRefusals = 5
	restFor      = 1100 * time.Millisecond
)

// askCount asks the service's tokenizer, and again where it did not count.
func askCount(ctx context.Context, c *client.Client, text string) (n int, err error) {
	for range mostRefusals {
		if n, err = c.CountTokens(ctx, text); err == nil || errors.Is(err, client.ErrNoTokenizer) || !rest(ctx) {
			return n, err
		}
	}
	return n, err
}

// rest waits before a question is asked again; it is false when there is no time to.
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
	ask.Stream = ask.API == client.APIGRPC // which has nothing else
	ask.Timeout = max(ask.Timeout, askFor)
	row := c.Do(ctx, ask, clock, clock.Now())
	for range mostRefusals {
		if row.Error != recording.ErrorLimited || !rest(ctx) {
			break
		}
		row = c.Do(ctx, ask, clock, clock.Now())
	}
	// An answer this short may have nothing in it, of a model that thinks first.
	if !row.OK() && row.PromptTokens == 0 {
		return 0, words.Errorf("request the number of tokens of a prompt: %s", row.Why())
	}
	return row.PromptTokens, nil
}

// write draws words worth a number of tokens. Each begins with a blank but for
// the first of a text.
func (v Vocabulary) write(b *strings.Builder, tokens int, rng *rand.Rand) {
	for n := max(1, int(float64(tokens)/v.PerWord+0.5)); n > 0; n-- {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(v.Words[rng.IntN(len(v.Words))])
	}
}
