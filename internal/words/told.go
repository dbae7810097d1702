package words

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Told finds the sentence in a text that launchgate wrote into a recording, or
// told while it ran. Such texts are in English, so that a recording is the same
// whoever made it; what they were made from is in Recorded, and what was put in
// is looked at in the same way. Any other text is somebody else's, and verbatim.
func Told(text string) Sentence {
	for _, f := range forms() {
		if s, ok := f.read(text); ok {
			return s
		}
	}
	for _, j := range joints {
		before, after, joined := strings.Cut(text, j.between)
		if !joined {
			continue
		}
		if j.between == ". " {
			before += "."
		}
		first, rest := told(before), told(after)
		_, firstOurs := first.(Sentence)
		_, restOurs := rest.(Sentence)
		if firstOurs || restOurs {
			return Say(j.phrase, first, rest)
		}
	}
	return Verbatim(text)
}

type joint struct {
	between string
	phrase  Phrase
}

// joints are how sentences are put together in a text, the widest first.
var joints = []joint{{"; ", "%s; %s"}, {". ", "%s %s"}, {": ", "%s: %s"}, {", and to ", "%s, and to %s"}, {", ", "%s, %s"}}

// told is what fills a sentence: one of ours, or a text.
func told(text string) any {
	if s := Told(text); s.Phrase != verbatim {
		return s
	}
	return text
}

// telling is from how many letters on what a sentence says after its subject
// tells that it is ours. Others say that something is missing, too; ours then
// is a file, a replica or an address.
const telling = 15

var nameOfOurs = regexp.MustCompile(`\A\S*[-/._:0-9]\S*\z`)

// form is a phrase that texts are read by.
type form struct {
	phrase  Phrase
	pattern *regexp.Regexp // nil: nothing fills it
	from    string         // what such a text begins with
	literal int            // how much of it is not filled in
}

// forms are those of Recorded: first those that are known by their beginning,
// and of each kind the most telling first.
var forms = sync.OnceValue(func() []form {
	var all []form
	for phrase := range Recorded {
		if slices.ContainsFunc(joints, func(j joint) bool { return j.phrase == phrase }) {
			continue
		}
		pieces := strings.Split(string(phrase), "%s")
		f := form{phrase: phrase}
		for i, piece := range pieces {
			if len(pieces) > 1 {
				piece = strings.ReplaceAll(piece, "%%", "%")
			}
			f.literal += len(piece)
			pieces[i] = piece
		}
		f.from = pieces[0]
		if len(pieces) > 1 {
			for i, piece := range pieces {
				pieces[i] = regexp.QuoteMeta(piece)
			}
			f.pattern = regexp.MustCompile(`(?s)\A` + strings.Join(pieces, `(.+?)`) + `\z`)
		}
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b form) int {
		begins := func(f form) int { return min(1, len(f.from)) }
		return cmp.Or(begins(b)-begins(a), b.literal-a.literal, strings.Compare(string(a.phrase), string(b.phrase)))
	})
	return all
})

func (f form) read(text string) (Sentence, bool) {
	if f.pattern == nil {
		return Say(f.phrase), text == string(f.phrase)
	}
	if !strings.HasPrefix(text, f.from) {
		return Sentence{}, false
	}
	filled := f.pattern.FindStringSubmatch(text)
	if filled == nil {
		return Sentence{}, false
	}
	if subject := filled[1]; f.from == "" && (parted(subject) || f.literal < telling && !nameOfOurs.MatchString(subject)) {
		return Sentence{}, false
	}
	s := Say(f.phrase)
	for _, part := range filled[1:] {
		s.Args = append(s.Args, told(part))
	}
	return s, true
}

// parted reports whether a text is put together, so that a sentence begins in
// the middle of it.
func parted(text string) bool {
	return slices.ContainsFunc(joints[:4], func(j joint) bool { return strings.Contains(text, j.between) })
}
