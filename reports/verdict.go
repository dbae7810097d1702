package reports

import (
	"fmt"
	"math"
	"strings"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/words"
)

// verdictPage is what the page says first.
type verdictPage struct {
	Word     string
	Sentence string
	Also     []string
	Facts    []pair
}

func verdictView(r Report) any {
	v := verdictPage{Word: word(r), Sentence: headline(r), Facts: facts(r)}
	if !r.UnderWay {
		v.Also = also(r.Language, r.Verdict)
	}
	return v
}

func word(r Report) string {
	if r.UnderWay {
		return r.Language.say("outcome.under-way")
	}
	return r.Language.name("outcome.", r.Verdict.Verdict.String())
}

func headline(r Report) string {
	if r.UnderWay {
		return r.Language.say("sentence.under-way")
	}
	if len(r.Verdict.Why) > 0 && !r.Verdict.Why[0].IsZero() {
		return r.Language.Word(r.Verdict.Why[0])
	}
	return r.Language.name("sentence.", r.Verdict.Verdict.String())
}

// asides are the reasons of the verdict that are not about an objective or a fault:
// warnings, and what was left out.
func asides(l Language, v checklist.Verdict) []string {
	var said []string
	for _, why := range v.Reasons[min(1, len(v.Reasons)):] {
		if why.About == checklist.AboutRun {
			said = append(said, l.Word(why.Said))
		}
	}
	return said
}

// also is what else the verdict says, without the objectives that the page
// lists right below it.
func also(l Language, v checklist.Verdict) []string {
	var said []string
	listed := int64(0)
	for _, why := range v.Reasons[min(1, len(v.Reasons)):] {
		if why.About == checklist.AboutObjective {
			listed++
		} else {
			said = append(said, l.Word(why.Said))
		}
	}
	switch {
	case listed == 1:
		said = append(said, l.say("also.one"))
	case listed > 1:
		said = append(said, l.say("also.many", count(listed)))
	}
	return said
}

func facts(r Report) []pair {
	e, l := r.Environment, r.Language
	target := e.Target.URL
	if e.Target.Kind == "local" {
		target = l.say("fact.local", count(int64(e.Target.Replicas)))
	}
	list := []pair{
		{l.say("fact.target"), orUnknown(l, target)},
		{l.say("fact.model"), orUnknown(l, e.Target.Model)},
		{l.say("fact.version"), versionText(r)},
		{l.say("fact.started"), started(l, e.StartedAt)},
		{l.say("fact.measured"), l.Word(seconds(math.Round((r.To-r.From)*10) / 10))},
		{l.say("fact.requests"), l.say("fact.errors", count(r.Requests), count(r.Errors))},
	}
	for _, name := range sortedKeys(e.Labels) {
		list = append(list, pair{words.Harmless(name), words.Harmless(e.Labels[name])})
	}
	if rate, users := peak(r.Load); rate > 0 {
		list = append(list, pair{l.say("fact.load"), l.say("fact.load.rate", perSecond(rate))})
	} else if users > 0 {
		list = append(list, pair{l.say("fact.load"), l.say("fact.load.users", users)})
	}
	if !r.UnderWay {
		list = append(list, headroom(r), pair{l.say("section.cost"), costText(r)})
	}
	if e := r.Verdict.Energy; e != nil {
		list = append(list, pair{l.say("fact.energy"), l.say("fact.joules", digits(e.PerOutputToken))})
	}
	for _, d := range r.Verdict.Devices {
		if d.HeldSeconds > 0 {
			list = append(list, pair{words.Harmless(d.Name), heldText(l, d)})
		}
	}
	if len(r.Verdict.Faults) == 0 {
		return append(list, pair{l.say("fact.faults"), l.say("fact.none")})
	}
	return append(list, pair{l.say("fact.faults"), survivedText(l, r.Verdict.Faults)})
}

// headroom is how much of its limit the narrowest objective has left.
func headroom(r Report) pair {
	l := r.Language
	name := l.say("fact.headroom")
	o, known := narrowest(r.Objectives)
	switch {
	case !known:
		return pair{name, l.say("objective.unmeasured")}
	case *o.Margin < 0:
		return pair{name, l.say("fact.headroom.none", o.Source)}
	}
	return pair{name, l.say("fact.headroom.of", percent(*o.Margin), o.Source)}
}

// versionText is the version of the service: that of the bundled one is
// launchgate's own; others do not tell it.
func versionText(r Report) string {
	if r.Environment.Target.Kind == "local" {
		return r.Language.say("fact.version.local", orUnknown(r.Language, r.Environment.Version))
	}
	return r.Language.say("fact.version.unreported")
}

func costText(r Report) string {
	c, l := r.Verdict.Cost, r.Language
	switch {
	case c == nil:
		return l.say("fact.cost.none")
	case c.PerMillion == nil:
		return l.say("fact.cost.hour", value(c.PerHour, "usd"))
	}
	return l.say("fact.cost.million", value(*c.PerMillion, "usd"), value(c.PerHour, "usd"))
}

// survivedText counts the faults that the service survived. A fault that never took
// effect does not count.
func survivedText(l Language, faults []checklist.Fault) string {
	var survived, struck, never int64
	for _, f := range faults {
		switch {
		case f.InEffectAt == nil:
			never++
		case f.Verdict == checklist.Pass:
			survived++
			struck++
		default:
			struck++
		}
	}
	switch {
	case never == 0:
		return l.say("fact.faults.passed", count(survived), count(struck))
	case struck == 0:
		return l.say("fact.faults.never", count(never))
	}
	return l.say("fact.faults.some", count(survived), count(struck), count(never))
}

func terminalVerdict(b *strings.Builder, p paint, r Report) {
	v, l := r.Verdict, r.Language
	fmt.Fprintf(b, "\n%s  %s\n", p.outcome(v.Verdict, strings.ToUpper(l.name("outcome.", v.Verdict.String()))), printable(r.Gate))
	fmt.Fprintf(b, "%s\n", printable(headline(r)))
	if i := r.Interrupted; i != nil {
		title := p.bold(l.say("text.sentence", l.Word(i.Title())))
		fmt.Fprintf(b, "%s\n", l.say("text.sentences", title, printable(interruptedText(l, i))))
	}
	for _, aside := range asides(l, v) {
		fmt.Fprintf(b, "%s\n", printable(aside))
	}
}

func markdownVerdict(b *strings.Builder, r Report) {
	v, l := r.Verdict, r.Language
	fmt.Fprintf(b, "## %s %s — %s\n\n", markdownSign[v.Verdict], l.name("outcome.", v.Verdict.String()), markdownText(r.Gate))
	fmt.Fprintf(b, "%s\n\n", markdownText(headline(r)))
	for _, aside := range asides(l, v) {
		fmt.Fprintf(b, "- %s\n", markdownText(aside))
	}
	if len(asides(l, v)) > 0 {
		b.WriteString("\n")
	}
	if i := r.Interrupted; i != nil {
		fmt.Fprintf(b, "> **%s** %s\n\n", l.Word(i.Title()), markdownText(interruptedText(l, i)))
	}
}

// junitVerdict is the first case of all, so that the file is green exactly when
// the exit code is 0.
func junitVerdict(r Report) []junitSuite {
	v, l := r.Verdict, r.Language
	return []junitSuite{{Name: junitRun, Cases: []junitCase{junitResult("verdict", r.Gate, v.Verdict, headline(r), lines(l, v.Why))}}}
}

func interruptedText(l Language, i *Interruption) string {
	var sentences []string
	for _, s := range i.Said() {
		sentences = append(sentences, l.Word(s))
	}
	return l.join("text.sentences", sentences)
}

// Title says in short that there is no complete run.
func (i *Interruption) Title() words.Sentence {
	if i.NotBegun {
		return words.Say("not-begun.title")
	}
	return words.Say("interrupted.title", clock(i.At))
}

// Said is what stopped the run and what is missing because of it.
func (i *Interruption) Said() []words.Sentence {
	by := words.Say("interrupted.cut")
	switch {
	case i.NotBegun:
		return []words.Sentence{words.Say("not-begun.by", i.By)}
	case !i.By.IsZero():
		by = words.Say("interrupted.by", i.By)
	}
	said := []words.Sentence{by}
	if len(i.Unplayed) > 0 {
		var names []words.Sentence
		for _, name := range i.Unplayed {
			names = append(names, words.Verbatim(name))
		}
		said = append(said, words.Say("interrupted.unplayed", words.List("text.list", names...)))
	}
	return append(said, words.Say("interrupted.rest"))
}
