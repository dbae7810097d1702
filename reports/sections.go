package reports

import (
	"strings"
)

// A form is one of the formats of a report.
type form string

const (
	inHTML     form = "HTML"
	inTerminal form = "terminal"
	inMarkdown form = "Markdown"
	inJUnit    form = "JUnit"
)

// section is one part of a report, with its data and how each form tells it. A
// new section is an entry in sections, its functions in a file of their own and
// its template page/sections/ID.html.tmpl; everything else (the page's
// navigation, the order in every form) follows from here.
type section struct {
	id string // "section."+id is its heading, and #id its place on the page
	// in tells whether a report has this section; nil: every report has.
	in func(Report) bool
	// view is what the template needs beside the report; nil: nothing.
	view func(Report) any

	terminal func(b *strings.Builder, p paint, r Report)
	markdown func(b *strings.Builder, r Report)
	junit    func(r Report) []junitSuite
	// lacks names the forms without this section, and the reason.
	lacks map[form]string

	// besides is the id of the section to whose right it stands on a wide page.
	besides string
	// own: the template writes its own heading.
	own bool
	// unlisted: the navigation leaves it out.
	unlisted bool
}

// Why a form lacks a section.
const (
	needsRoom   = "it needs more room than a line has"
	judgedAbove = "its objectives are cases of their own, with their values"
	notATest    = "it is nothing that passes or fails"
	onThePage   = "it is for whoever looks closer, on the page"
)

// sections are the parts of a report, in the order in which every form tells
// them.
var sections = []section{
	{id: "verdict", view: verdictView, terminal: terminalVerdict, markdown: markdownVerdict, junit: junitVerdict, own: true, unlisted: true},
	{id: "objectives", terminal: terminalObjectives, markdown: markdownObjectives, junit: junitObjectives},
	{id: "load", in: hasLoad, view: loadView, lacks: map[form]string{inTerminal: onThePage, inMarkdown: onThePage, inJUnit: notATest}},
	{id: "timeline", lacks: map[form]string{inTerminal: needsRoom, inMarkdown: needsRoom, inJUnit: notATest}},
	{id: "faults", terminal: terminalFaults, markdown: markdownFaults, junit: junitFaults},
	{id: "scan", in: hasScan, view: viewScan, terminal: terminalScan, markdown: markdownScan, junit: junitScan},
	{id: "latency", view: latencyView, lacks: map[form]string{inTerminal: needsRoom, inMarkdown: needsRoom, inJUnit: judgedAbove}},
	{id: "requests", lacks: map[form]string{inTerminal: needsRoom, inMarkdown: needsRoom, inJUnit: notATest}},
	{id: "client", junit: junitClient, lacks: map[form]string{
		inTerminal: "a client that cannot be believed is the verdict's first sentence", inMarkdown: "a client that cannot be believed is the verdict's first sentence"}},
	{id: "cost", in: hasCost, lacks: map[form]string{inTerminal: onThePage, inMarkdown: onThePage, inJUnit: judgedAbove}},
	{id: "missing", unlisted: true, lacks: map[form]string{inTerminal: onThePage, inMarkdown: onThePage, inJUnit: notATest}},
	{id: "checklist", in: hasChecklist, unlisted: true, markdown: markdownChecklist, lacks: map[form]string{
		inTerminal: "launchgate checklist tells it there, when it is held against the run", inJUnit: "it may stay open while the run passes, and its own command has an exit code"}},
	{id: "environment", view: environmentView, lacks: map[form]string{inTerminal: onThePage, inMarkdown: onThePage, inJUnit: notATest}},
	{id: "definitions", view: definitionsView, lacks: map[form]string{inTerminal: onThePage, inMarkdown: onThePage, inJUnit: notATest}},
	{id: "next", in: hasNext, besides: "objectives", unlisted: true, terminal: terminalNext, markdown: markdownNext, lacks: map[form]string{inJUnit: "each case says by itself what is wrong"}},
}

// shown are the sections of this report.
func (r Report) shown() []section {
	var has []section
	for _, s := range sections {
		if s.in == nil || s.in(r) {
			has = append(has, s)
		}
	}
	return has
}

func hasCost(r Report) bool      { return r.Verdict.Cost != nil }
func hasChecklist(r Report) bool { return r.Checklist != nil }
func hasNext(r Report) bool      { return len(r.Next) > 0 }
