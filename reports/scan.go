package reports

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
)

// scanView is what the template of the scan needs.
type scanView struct {
	Findings []scanFinding
	Checks   []scanCheck // that were to be made
	LeftOut  []scanCheck
	Others   string // how another client was served during the whole scan
}

type scanFinding struct {
	checklist.FoundBy
	Severity string
	Class    checklist.Outcome // that it is painted as
	Waived   string            // how it is waived, or that the waiver has expired
	Tagged   string
}

type scanCheck struct {
	Name    string
	Outcome checklist.Outcome
	Word    string
	Why     string
	Cost    string // requests
	Others  string // how another client fared
}

func hasScan(r Report) bool { return len(r.Scan) > 0 }

// scanOutcome is how a check's end is painted.
func scanOutcome(c recording.ScanResult) checklist.Outcome {
	switch c.Outcome {
	case recording.ScanSafe:
		return checklist.Pass
	case recording.ScanFlaw:
		return checklist.Fail
	}
	return checklist.Unproven
}

func viewScan(r Report) any {
	l := r.Language
	v := scanView{Others: othersThroughout(r)}
	for _, c := range r.Scan {
		row := scanCheck{Name: c.Check, Outcome: scanOutcome(c), Word: l.name("scan.", c.Outcome), Why: l.sentence(c.Why.Sentence),
			Cost: count(c.Requests), Others: othersLine(l, c.Others)}
		if c.LeftOut {
			v.LeftOut = append(v.LeftOut, row)
		} else {
			v.Checks = append(v.Checks, row)
		}
	}
	for _, f := range checklist.Found(r.Scan) {
		class := checklist.Fail
		if f.Waiver.Holds(r.Environment.StartedAt) {
			class = checklist.Unproven
		}
		v.Findings = append(v.Findings, scanFinding{FoundBy: f, Class: class, Severity: l.name("severity.", recording.Severity(f.Score)), Waived: waivedLine(r, f.Waiver), Tagged: strings.Join(f.Tags, " · ")})
	}
	return v
}

func waivedLine(r Report, w *recording.Waiver) string {
	switch {
	case w == nil:
		return ""
	case w.Holds(r.Environment.StartedAt):
		return r.Language.say("scan.waived", w.Owner, w.Expires, w.Reason)
	}
	return r.Language.say("scan.waiver.expired", w.Owner, w.Expires, w.Reason)
}

// othersLine is how another client was served while a check was made.
func othersLine(l Language, o *recording.Others) string {
	if o == nil {
		return l.say("scan.others.none")
	}
	answered, asked := strconv.Itoa(o.Asked-o.Failed), strconv.Itoa(o.Asked)
	if len(o.Took) == 0 || o.QuietP95 == 0 { // an older recording, or nothing was answered
		return l.say("scan.others", answered, asked, seconds(o.Median.Seconds()), seconds(o.Longest.Seconds()), seconds(o.Quiet.Seconds()))
	}
	return l.say("scan.others.p95", answered, asked, seconds(o.Median.Seconds()), seconds(o.P95().Seconds()), seconds(o.Longest.Seconds()), seconds(o.Quiet.Seconds()), seconds(o.QuietP95.Seconds()))
}

// othersThroughout is how another client was served during the whole scan; empty if
// there was none.
func othersThroughout(r Report) string {
	all := recording.OthersOf(r.Scan)
	if all == nil {
		return ""
	}
	return r.Language.say("scan.others.whole", othersLine(r.Language, all))
}

// scanTally counts the checks by their ends.
func scanTally(r Report) (safe, flaws, unproven, leftOut int) {
	for _, c := range r.Scan {
		switch {
		case c.LeftOut:
			leftOut++
		case c.Outcome == recording.ScanSafe:
			safe++
		case c.Outcome == recording.ScanFlaw:
			flaws++
		default:
			unproven++
		}
	}
	return safe, flaws, unproven, leftOut
}

func scanHeadline(r Report) string {
	safe, flaws, unproven, leftOut := scanTally(r)
	return r.Language.say("scan.tally", strconv.Itoa(safe), strconv.Itoa(flaws), strconv.Itoa(unproven), strconv.Itoa(leftOut))
}

func terminalScan(b *strings.Builder, p paint, r Report) {
	l := r.Language
	fmt.Fprintf(b, "\n%s  %s\n", p.bold(l.say("section.scan")), scanHeadline(r))
	if line := othersThroughout(r); line != "" {
		fmt.Fprintf(b, "%s\n", p.dim(line))
	}
	width := 0
	for _, c := range r.Scan {
		width = max(width, columns(c.Check))
	}
	for _, c := range r.Scan {
		if c.LeftOut {
			continue
		}
		fmt.Fprintf(b, "%s  %s  %s\n", p.outcome(scanOutcome(c), pad(l.name("scan.", c.Outcome), 8)), pad(c.Check, width), p.dim(printable(l.Word(c.Why.Sentence))))
		for _, f := range c.Findings {
			waived := ""
			if w := waivedLine(r, f.Waiver); w != "" {
				waived = "; " + w
			}
			fmt.Fprintf(b, "          %s %s  %s  %s%s\n", score(f.Score), p.bold(l.name("severity.", recording.Severity(f.Score))), printable(l.Word(f.Title.Sentence)), p.dim(printable(f.Where+" "+f.Fingerprint)), printable(waived))
		}
	}
}

func markdownScan(b *strings.Builder, r Report) {
	l := r.Language
	fmt.Fprintf(b, "**%s** %s\n\n", l.say("section.scan"), markdownText(scanHeadline(r)))
	if line := othersThroughout(r); line != "" {
		fmt.Fprintf(b, "%s\n\n", markdownText(line))
	}
	found := checklist.Found(r.Scan)
	if len(found) == 0 {
		return
	}
	fmt.Fprintf(b, "| %s | %s | %s |\n|---|---|---|\n", l.say("scan.severity"), l.say("scan.finding"), l.say("scan.where"))
	for _, f := range found {
		title := l.Word(f.Title.Sentence)
		if w := waivedLine(r, f.Waiver); w != "" {
			title += "; " + w
		}
		fmt.Fprintf(b, "| %s %s | %s | %s |\n", score(f.Score), l.name("severity.", recording.Severity(f.Score)), markdownText(title), markdownCode(f.Where))
	}
	b.WriteString("\n")
}

// junitScan has a case for each check: a flaw is a failure, what is unproven an
// error, and what the gate left out, or a waiver names in full, is skipped.
func junitScan(r Report) []junitSuite {
	l := r.Language
	suite := junitSuite{Name: "security scan"}
	for _, c := range r.Scan {
		why := l.Word(c.Why.Sentence)
		text := why
		for _, f := range c.Findings {
			text += fmt.Sprintf("\n%s %s: %s (%s)\n%s\n%s", score(f.Score), l.name("severity.", recording.Severity(f.Score)), l.Word(f.Title.Sentence), f.Where, l.sentence(f.Verified.Sentence), l.sentence(f.Fix.Sentence))
			if w := waivedLine(r, f.Waiver); w != "" {
				text += "\n" + w
			}
		}
		result := junitResult(c.Check, r.Gate+".scan", scanOutcome(c), why, text)
		waived := c.Outcome == recording.ScanFlaw && !slices.ContainsFunc(c.Findings, func(f recording.ScanFinding) bool { return !f.Waiver.Holds(r.Environment.StartedAt) })
		if c.LeftOut || waived {
			problem := result.Error
			if problem == nil {
				problem = result.Failure
			}
			result.Skipped, result.Error, result.Failure = problem, nil, nil
		}
		suite.Cases = append(suite.Cases, result)
	}
	return []junitSuite{suite}
}
