package words

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
)

// Written is a sentence as a file holds it: its text in English, for people and
// other programs, and its phrase with the arguments, for wording it in another
// language. A text of others has no phrase. A struct that embeds Written has the
// three keys among its own.
type Written struct {
	Text   string   `json:"text,omitempty"`
	Phrase Phrase   `json:"phrase,omitempty"`
	Args   []keptAs `json:"args,omitempty"`
}

// Written is how a file holds the sentence.
func (s Sentence) Written() Written {
	w := Written{Text: s.String()}
	if s.IsVerbatim() {
		return w
	}
	w.Phrase = s.Phrase
	for _, a := range s.Args {
		w.Args = append(w.Args, keep(a))
	}
	return w
}

// Sentence reads what was written. If the phrase and its arguments do not give the
// text, because somebody changed the file or an older version wrote the text alone,
// the text counts.
func (w Written) Sentence() Sentence {
	s := Sentence{Phrase: w.Phrase}
	for _, a := range w.Args {
		s.Args = append(s.Args, a.arg())
	}
	switch {
	case Harmless(string(w.Phrase)) != string(w.Phrase): // no phrase of ours
	case s.String() == w.Text, s.String() == Harmless(w.Text):
		return s
	case w.Text == "":
		return Sentence{}
	}
	return Verbatim(w.Text)
}

// MarshalBinary writes the sentence with its phrase, for another process.
func (s Sentence) MarshalBinary() ([]byte, error) { return json.Marshal(s.Written()) }

// UnmarshalBinary reads what MarshalBinary wrote.
func (s *Sentence) UnmarshalBinary(b []byte) error {
	var w Written
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*s = w.Sentence()
	return nil
}

// Kept is a sentence that stands in a file by itself.
type Kept struct{ Sentence }

// keptAs holds one argument of a phrase by its type, because a verb for an integer
// takes no float.
type keptAs struct {
	Int   *int64   `json:"int,omitempty"`
	Float *float64 `json:"float,omitempty"`
	Text  *string  `json:"text,omitempty"`
	Said  *Kept    `json:"said,omitempty"`
}

func keep(a any) keptAs {
	if s, ok := sentenceOf(a); ok {
		return keptAs{Said: &Kept{s}}
	}
	v := reflect.ValueOf(a)
	_, saysItself := a.(fmt.Stringer)
	switch {
	case saysItself:
	case v.CanInt():
		return keptAs{Int: new(v.Int())}
	case v.CanFloat():
		return keptAs{Float: new(v.Float())}
	}
	return keptAs{Text: new(fmt.Sprint(a))}
}

func (k keptAs) arg() any {
	switch {
	case k.Int != nil:
		return *k.Int
	case k.Float != nil:
		return *k.Float
	case k.Said != nil:
		return k.Said.Sentence
	case k.Text != nil:
		return *k.Text
	}
	return ""
}

// MarshalJSON keeps the sentence.
func (k Kept) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false) // that is for the file's own encoder to say
	err := encoder.Encode(k.Written())
	return b.Bytes(), err
}

// UnmarshalJSON reads what MarshalJSON wrote, or a text alone, which was written
// before.
func (k *Kept) UnmarshalJSON(b []byte) error {
	var w Written
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &k.Sentence)
	}
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	k.Sentence = w.Sentence()
	return nil
}
