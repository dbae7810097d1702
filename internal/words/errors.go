package words

import (
	"errors"
	"reflect"
)

// said is an error whose text is a sentence, so that it can be worded in another
// language. It wraps the errors among the arguments of the sentence.
type said struct {
	sentence Sentence
	causes   []error
}

// Errorf is fmt.Errorf with a phrase. An error that fills the phrase (%s) is
// wrapped, and its own sentence is worded with the rest.
func Errorf(p Phrase, args ...any) error {
	e := &said{sentence: Say(p, args...)}
	for _, a := range args {
		if cause, ok := a.(error); ok {
			e.causes = append(e.causes, cause)
		}
	}
	return e
}

// Error makes an error of a sentence.
func Error(s Sentence) error { return &said{sentence: s} }

// Error is the sentence in English.
func (e *said) Error() string { return e.sentence.String() }

// Unwrap returns the errors that fill the sentence.
func (e *said) Unwrap() []error { return e.causes }

// Said is the sentence.
func (e *said) Said() Sentence { return e.sentence }

// joined is the type of what errors.Join returns. Other types unwrap to several
// errors too, and their own text would be lost.
var joined = reflect.TypeOf(errors.Join(errors.New("")))

// Of is the sentence of an error. The text of an error that has no sentence is taken
// as Verbatim. Joined errors become one sentence.
func Of(err error) Sentence {
	switch e := err.(type) {
	case nil:
		return Sentence{}
	case interface{ Said() Sentence }:
		return e.Said()
	case interface{ Unwrap() []error }:
		if reflect.TypeOf(err) == joined {
			all := e.Unwrap()
			whole := Of(all[0])
			for _, more := range all[1:] {
				whole = Say("%s; %s", whole, Of(more))
			}
			return whole
		}
	}
	return Verbatim(err.Error())
}
