// Package words separates sentences from their language. The code that knows a fact
// makes a Sentence of it: a phrase and its arguments. The code that shows it words
// the Sentence in the reader's language.
package words

import (
	"fmt"
	"reflect"
)

// Phrase is a sentence or a part of one, in English, with the verbs of fmt
// where something is to be filled in. Other languages find their own wording by
// it, as with gettext. A test in reports collects every constant of this type
// and fails for those that a language has no words for, so a phrase is always
// written out in one piece: what differs between languages is not only words
// but their order.
type Phrase string

// Sentence is a phrase and its arguments: numbers, names that are not translated,
// errors, and other sentences. A phrase without arguments is not formatted, so a
// percent sign in it stands for itself. The zero value is no sentence.
type Sentence struct {
	Phrase Phrase
	Args   []any
}

// Say makes a sentence.
func Say(p Phrase, args ...any) Sentence { return Sentence{p, args} }

// Count says how many there are; many is filled with the number.
func Count(n int64, one, many Phrase) Sentence {
	if n == 1 {
		return Say(one)
	}
	return Say(many, n)
}

// Verbatim is a text of others, such as an error of the service. It is not
// translated, but Harmless is applied to it.
func Verbatim(text string) Sentence { return Say(verbatim, text) }

const verbatim Phrase = "%s"

// Language has the wording of each phrase. A phrase that it lacks stays in English.
type Language map[Phrase]string

// In words a sentence, and the sentences that fill it.
func (s Sentence) In(l Language) string {
	text, has := l[s.Phrase]
	if !has {
		text = string(s.Phrase)
	}
	if len(s.Args) == 0 {
		return text
	}
	args := make([]any, len(s.Args))
	for i, a := range s.Args {
		if part, ok := sentenceOf(a); ok {
			args[i] = part.In(l)
		} else if text, ok := a.(string); ok {
			args[i] = Harmless(text)
		} else {
			args[i] = a
		}
	}
	return fmt.Sprintf(text, args...)
}

// sentenceOf is what fills a sentence and is one itself.
func sentenceOf(a any) (Sentence, bool) {
	switch a := a.(type) {
	case Sentence:
		return a, true
	case Kept:
		return a.Sentence, true
	case error:
		return Of(a), true
	}
	return Sentence{}, false
}

// String is the sentence in English.
func (s Sentence) String() string { return s.In(nil) }

// List joins sentences two by two by a phrase, such as "%s, %s".
func List(by Phrase, all ...Sentence) Sentence {
	if len(all) == 0 {
		return Sentence{}
	}
	whole := all[0]
	for _, s := range all[1:] {
		whole = Say(by, whole, s)
	}
	return whole
}

// IsVerbatim reports whether it is a text of others.
func (s Sentence) IsVerbatim() bool { return s.Phrase == verbatim }

// Same reports whether two sentences have the same phrase, filled with the same.
// Two phrases that read alike are not the same.
func (s Sentence) Same(o Sentence) bool {
	return s.Phrase == o.Phrase && reflect.DeepEqual(s.Args, o.Args)
}

// IsZero reports whether nothing is said.
func (s Sentence) IsZero() bool { return s.Phrase == "" }

// MarshalText writes a sentence in English, so that files do not depend on
// their reader's language.
func (s Sentence) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote. Which phrase it was is lost, so
// it stays in English.
func (s *Sentence) UnmarshalText(b []byte) error {
	*s = Sentence{}
	if len(b) > 0 {
		*s = Verbatim(string(b))
	}
	return nil
}
