package client

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/internal/recording"
)

func TestAnswersWithMarksOfOthersAreFound(t *testing.T) {
	names := []string{"steady", "burst"}
	own := Mark{Run: 77, Scenario: "steady", Request: 12, Names: names}
	for _, tc := range []struct{ about, answer, want string }{
		{"no mark", "Once upon a time.", ""},
		{"its own", own.String() + ": once upon a time.", ""},
		{"another of the scenario", "a " + Mark{77, "steady", 13, names}.String() + " b", "steady/13"},
		{"behind its own", own.String() + Mark{77, "steady", 4711, names}.String(), "steady/4711"},
		{"another scenario", Mark{77, "burst", 0, names}.String(), "burst/0"},
		{"a user of a closed loop", Mark{77, "burst", 2<<40 + 9, names}.String(), "burst/536870921"},
		{"a scenario that this gate does not have", Mark{77, "quiet", 3, nil}.String(), "another-scenario/3"},
		{"an earlier run", Mark{76, "steady", 12, names}.String(), "another-run/12"},
		{"cut off", Mark{77, "steady", 13, names}.String()[:16], ""},
		{"a letter wrong", strings.Replace(Mark{77, "steady", 13, names}.String(), "LG", "LGz", 1), ""},
		{"letters that look like one", "LGaaaaaaaaaaaaaaa LG LGLGLG", ""},
	} {
		if got := own.foreign(tc.answer); got != tc.want {
			t.Errorf("%s: %q is of %q, want %q", tc.about, tc.answer, got, tc.want)
		}
	}
}

func TestMarksAreReadAsTheyWereWritten(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		run, scenario, request := rng.Uint64()&markRun, rng.Uint64()&255, rng.Uint64()&(1<<32-1)
		text := markOf(run, scenario, request)
		if r, s, q, ok := readMark(text + "x"); !ok || r != run || s != scenario || q != request {
			t.Fatalf("%q is read as %d %d %d %v, want %d %d %d", text, r, s, q, ok, run, scenario, request)
		}
		b := []byte(text)
		at := 2 + rng.IntN(markLength)
		b[at] = markLetters[(strings.IndexByte(markLetters, b[at])+1+rng.IntN(30))%32]
		if _, _, _, ok := readMark(string(b)); ok {
			t.Errorf("%q is taken for a mark, and is %q with another letter", b, text)
		}
	}
}

func FuzzMarks(f *testing.F) {
	f.Add("LGabcdefghijkmnpq")
	f.Fuzz(func(t *testing.T, text string) {
		Mark{Run: 1, Scenario: "s", Names: []string{"s"}}.foreign(text)
		var row recording.Request
		Look(&row, text)
	})
}

func TestAnswersAreComparedWithoutTheirEdges(t *testing.T) {
	var a, b recording.Request
	Look(&a, " The sky is blue \n")
	Look(&b, "The sky is blue \xe2\x82")
	if a.AnswerHash != b.AnswerHash || a.AnswerChars != 15 {
		t.Errorf("%q and %q are taken for different texts", a.Answer, b.Answer)
	}
	var loop recording.Request
	Look(&loop, strings.Repeat("the dog ", 40))
	if loop.AnswerVariety > 8 || a.AnswerVariety != 12 {
		t.Errorf("a text that repeats itself has %d different runs, another %d", loop.AnswerVariety, a.AnswerVariety)
	}
}
