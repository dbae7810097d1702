package recording

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/launchgate/launchgate/internal/words"
)

// A line holds its sentence in three of its keys: text is the English, and phrase and
// args are for wording it in another language. A text alone is a text of others, or
// was written by an older version.

// MarshalJSON writes a line of injections.jsonl.
func (i Injection) MarshalJSON() ([]byte, error) {
	type line Injection
	return json.Marshal(struct {
		line
		words.Written
	}{line(i), i.Text.Written()})
}

const unsupported words.Phrase = "unsupported: %s"

// Unsupported is the sentence for a fault that the target cannot have.
func Unsupported(why words.Sentence) words.Sentence { return words.Say(unsupported, why) }

// UnmarshalJSON reads a line of injections.jsonl. In older recordings the text of a
// line begins with "unsupported: " for an unsupported fault.
func (i *Injection) UnmarshalJSON(b []byte) error {
	type line Injection
	var read struct {
		line
		words.Written
	}
	if err := strictly(b, &read); err != nil {
		return err
	}
	*i = Injection(read.line)
	i.Text = read.Written.Sentence()
	if reason, old := strings.CutPrefix(read.Written.Text, "unsupported:"); old && read.Phrase == "" {
		i.Unsupported, i.Text = true, Unsupported(words.Verbatim(strings.TrimSpace(reason)))
	}
	return nil
}

// Reason is why a fault failed or is unsupported.
func (i Injection) Reason() words.Sentence {
	if i.Unsupported && len(i.Text.Args) == 1 {
		if why, ok := i.Text.Args[0].(words.Sentence); ok {
			return why
		}
	}
	return i.Text
}

// strictly reads a line and refuses unknown keys. A recording of a newer version is
// refused by its format before, so an unknown key means damage.
func strictly(line []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// MarshalJSON writes a line of observations.jsonl.
func (o Observation) MarshalJSON() ([]byte, error) {
	type line Observation
	return json.Marshal(struct {
		line
		words.Written
	}{line(o), o.Text.Written()})
}

// UnmarshalJSON reads a line of observations.jsonl.
func (o *Observation) UnmarshalJSON(b []byte) error {
	type line Observation
	var read struct {
		line
		words.Written
	}
	if err := strictly(b, &read); err != nil {
		return err
	}
	*o = Observation(read.line)
	o.Text = read.Written.Sentence()
	return nil
}
