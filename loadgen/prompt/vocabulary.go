package prompt

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/loadgen/client"
)

// Vocabulary is what synthetic prompts are made of: words of which is known how
// many tokens of the target they are.
type Vocabulary struct {
	Words []string
	// PerWord is how many tokens a word is, on average.
	PerWord float64
	// How it is known, for the reader of the report.
	How string
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
	return Vocabulary{strings.Fields(wordList), guess, fmt.Sprintf("by a guess: %.1f tokens a word", guess)}
}

// learn finds out how the target counts: by its own tokenizer, which leaves
// words of exactly one token; by the usage it tells with an answer; or by
// nothing at all.
func learn(ctx context.Context, c *client.Client, api string) (Vocabulary, error) {
	words := strings.Fields(wordList)
	v, err := byTokenizer(ctx, c, words)
	if err == nil || !errors.Is(err, client.ErrNoTokenizer) {
		return v, err
	}
	// Two lengths, so that the template around the prompt cancels out.
	few, err := promptTokens(ctx, c, api, words[:16])
	if err != nil {
		return Vocabulary{}, err
	}
	many, err := promptTokens(ctx, c, api, words)
	if err != nil || many <= few { // a small context, or no usage
		return Guessed(), nil
	}
	per := float64(many-few) / float64(len(words)-16)
	return Vocabulary{words, per, fmt.Sprintf("by the usage that the service tells: %.2f tokens a word", per)}, nil
}

// byTokenizer keeps the words that are one token each when they follow others.
// A list in which each is one has as many tokens as words; any other is halved.
func byTokenizer(ctx context.Context, c *client.Client, words []string) (Vocabulary, error) {
	frame, err := c.CountTokens(ctx, "the")
	if err != nil {
		return Vocabulary{}, err
	}
	var single []string
	total := 0
	var sort func(list []string) error
	sort = func(list []string) error {
		n, err := c.CountTokens(ctx, "the "+strings.Join(list, " "))
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
	for len(words) > 0 {
		n := min(32, len(words))
		if err := sort(words[:n]); err != nil {
			return Vocabulary{}, err
		}
		words = words[n:]
	}
	if len(single) >= enoughWords {
		return Vocabulary{single, 1, fmt.Sprintf("by the service's own tokenizer: %d words of one token each", len(single))}, nil
	}
	all := strings.Fields(wordList)
	per := float64(total) / float64(len(all))
	return Vocabulary{all, per, fmt.Sprintf("by the service's own tokenizer: %.2f tokens a word on average", per)}, nil
}

// promptTokens is how many tokens the target says a prompt has.
func promptTokens(ctx context.Context, c *client.Client, api string, words []string) (int32, error) {
	clock := recording.NewClock()
	row := c.Do(ctx, client.Prompt{
		API: api, Messages: []client.Message{{Role: "user", Content: strings.Join(words, " ")}}, MaxTokens: 1, Timeout: askFor,
		Stream: api == client.APIGRPC, // which has nothing else
	}, clock, clock.Now())
	if !row.OK() {
		return 0, fmt.Errorf("ask how many tokens a prompt has: %s", row.ErrorText)
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
