package words

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
)

// Kept is a sentence in a file that is read to be worded again: its text in
// English, for people and other programs, and the phrase with what fills it.
type Kept struct{ Sentence }

type keptSentence struct {
	Text   string   `json:"text"`
	Phrase Phrase   `json:"phrase"`
	Args   []keptAs `json:"args,omitempty"`
}

// keptAs holds one thing that fills a phrase, by its kind, because a verb that
// wants a whole number takes no other.
type keptAs struct {
	Int   *int64   `json:"int,omitempty"`
	Float *float64 `json:"float,omitempty"`
	Text  *string  `json:"text,omitempty"`
	Said  *Kept    `json:"said,omitempty"`
}

func keep(a any) keptAs {
	if s, ok := a.(Sentence); ok {
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
	kept := keptSentence{Text: k.String(), Phrase: k.Phrase}
	for _, a := range k.Args {
		kept.Args = append(kept.Args, keep(a))
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false) // that is for the file's own encoder to say
	err := encoder.Encode(kept)
	return b.Bytes(), err
}

// UnmarshalJSON reads what MarshalJSON wrote. Where the phrase does not make the
// text, as in a file that somebody changed, the text counts.
func (k *Kept) UnmarshalJSON(b []byte) error {
	var kept keptSentence
	if err := json.Unmarshal(b, &kept); err != nil {
		return err
	}
	k.Sentence = Sentence{Phrase: kept.Phrase}
	for _, a := range kept.Args {
		k.Args = append(k.Args, a.arg())
	}
	if k.String() != kept.Text {
		k.Sentence = Verbatim(kept.Text)
	}
	return nil
}
