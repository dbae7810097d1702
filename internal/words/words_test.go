package words_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/words"
)

var german = words.Language{
	"%d of %d: %s":        "%[3]s (%[1]d von %[2]d)",
	"it holds":            "es hält",
	"1 sample":            "1 Probe",
	"%d samples":          "%d Proben",
	"within 5 %":          "auf 5 % genau",
	"the log says %s, %s": "im Protokoll steht %s, %s",
}

func TestASentenceIsWordedInItsReadersLanguage(t *testing.T) {
	for _, tt := range []struct {
		s               words.Sentence
		english, german string
	}{
		{words.Say("%d of %d: %s", 1, 2, words.Say("it holds")), "1 of 2: it holds", "es hält (1 von 2)"},
		{words.Say("within 5 %"), "within 5 %", "auf 5 % genau"},
		{words.Say("nobody translated this %s", "yet"), "nobody translated this yet", "nobody translated this yet"},
		{words.Say("the log says %s, %s", words.Verbatim("it holds"), "it holds"), "the log says it holds, it holds", "im Protokoll steht it holds, it holds"},
		{words.Count(1, "1 sample", "%d samples"), "1 sample", "1 Probe"},
		{words.Count(20, "1 sample", "%d samples"), "20 samples", "20 Proben"},
		{words.Sentence{}, "", ""},
	} {
		if got := tt.s.String(); got != tt.english {
			t.Errorf("%q, want %q", got, tt.english)
		}
		if got := tt.s.In(german); got != tt.german {
			t.Errorf("%q, want %q", got, tt.german)
		}
	}
}

func TestSentencesAreComparedByTheirCodes(t *testing.T) {
	said := words.Say("%d of %d: %s", 1, 2, words.Say("it holds"))
	for _, tt := range []struct {
		other words.Sentence
		want  bool
	}{
		{words.Say("%d of %d: %s", 1, 2, words.Say("it holds")), true},
		{words.Say("%d of %d: %s", 1, 3, words.Say("it holds")), false},
		{words.Verbatim(said.String()), false},
		{words.Sentence{}, false},
	} {
		if got := said.Same(tt.other); got != tt.want {
			t.Errorf("%q and %q: %v", said, tt.other, got)
		}
	}
}

func TestFilesHoldEnglish(t *testing.T) {
	said := words.Say("%d of %d: %s", 1, 2, words.Say("it holds"))
	b, err := json.Marshal(said)
	if err != nil || string(b) != `"1 of 2: it holds"` {
		t.Fatalf("%s, %v", b, err)
	}
	var read words.Sentence
	if err := json.Unmarshal(b, &read); err != nil || read.String() != said.String() || read.In(german) != said.String() {
		t.Errorf("%q is read as %q, %v", b, read, err)
	}
	if err := json.Unmarshal([]byte(`""`), &read); err != nil || !read.IsZero() {
		t.Errorf("nothing is read as %q, %v", read, err)
	}
}

// A stored sentence has all that is needed to word it in another language.
func TestAKeptSentenceIsWordedAgain(t *testing.T) {
	for _, said := range []words.Sentence{
		words.Say("%d of %d: %s", 1, int64(2), words.Say("it holds")),
		words.Count(20, "1 sample", "%d samples"),
		words.Say("the log says %s, %s", 3*time.Second, "50 %"),
		words.Say("within 5 %"),
		words.Say("%.1f s", 2.0),
		words.Verbatim(`"<b>"`),
		{},
	} {
		b, err := json.Marshal(words.Kept{Sentence: said})
		if err != nil {
			t.Fatal(err)
		}
		var read words.Kept
		if err := json.Unmarshal(b, &read); err != nil || read.String() != said.String() || read.In(german) != said.In(german) {
			t.Errorf("%s is read as %q and %q, %v; want %q and %q", b, read, read.In(german), err, said, said.In(german))
		}
	}
	var changed words.Kept
	if err := json.Unmarshal([]byte(`{"text": "it is fine", "phrase": "it holds"}`), &changed); err != nil || changed.In(german) != "it is fine" {
		t.Errorf("a text that was changed is read as %q, %v", changed.In(german), err)
	}
}

// An error of launchgate has its sentence, with the sentences of the errors in
// it. The text of other errors in between stays unchanged, whatever words it
// has.
func TestAnErrorIsWordedToo(t *testing.T) {
	theirs := errors.New("it holds: limited, failed")
	ours := words.Errorf("the log says %s, %s", words.Errorf("it holds"), theirs)
	if !errors.Is(ours, theirs) {
		t.Error("the error of others is not wrapped")
	}
	for _, tt := range []struct {
		err             error
		english, german string
	}{
		{ours, "the log says it holds, it holds: limited, failed", "im Protokoll steht es hält, it holds: limited, failed"},
		{theirs, "it holds: limited, failed", "it holds: limited, failed"},
		{errors.Join(words.Errorf("it holds"), nil), "it holds", "es hält"},
		{errors.Join(words.Errorf("it holds"), theirs), "it holds; it holds: limited, failed", "es hält; it holds: limited, failed"},
		{fmt.Errorf("somebody: %w", ours), "somebody: the log says it holds, it holds: limited, failed", "somebody: the log says it holds, it holds: limited, failed"},
		{words.Error(words.Say("it holds")), "it holds", "es hält"},
		{nil, "", ""},
	} {
		said := words.Of(tt.err)
		if said.String() != tt.english || said.In(german) != tt.german {
			t.Errorf("%v is said as %q and %q, want %q and %q", tt.err, said, said.In(german), tt.english, tt.german)
		}
		b, err := said.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		var read words.Sentence
		if err := read.UnmarshalBinary(b); err != nil || read.In(german) != tt.german {
			t.Errorf("%s is read as %q, %v, want %q", b, read.In(german), err, tt.german)
		}
	}
}

func TestSentencesAreListed(t *testing.T) {
	a, b := words.Say("it holds"), words.Count(1, "1 sample", "%d samples")
	for _, tt := range []struct {
		all  []words.Sentence
		want string
	}{{nil, ""}, {[]words.Sentence{a}, "es hält"}, {[]words.Sentence{a, b, a}, "es hält; 1 Probe; es hält"}} {
		if got := words.List("%s; %s", tt.all...).In(german); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}
