package reports

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/checklist/release"
	"github.com/launchgate/launchgate/internal/browsertest"
	"github.com/launchgate/launchgate/internal/words"
)

// heard has the console messages and requests of a page while it was open.
type heard struct {
	mu       sync.Mutex
	problems []string
	requests []string
}

func listen(t *testing.T, ctx context.Context) *heard {
	t.Helper()
	ctx, stop := context.WithCancel(ctx)
	t.Cleanup(stop)
	h := &heard{}
	if err := chromedp.Listen(ctx, func(ev any) {
		h.mu.Lock()
		defer h.mu.Unlock()
		switch ev := ev.(type) {
		case *runtime.EventConsoleAPICalled:
			h.problems = append(h.problems, "console: "+string(ev.Type))
		case *runtime.EventExceptionThrown:
			h.problems = append(h.problems, "exception: "+ev.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			h.problems = append(h.problems, "log: "+ev.Entry.Text)
		case *network.EventRequestWillBeSent:
			h.requests = append(h.requests, ev.Request.URL)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(ctx, browsertest.Call(network.Enable, network.EnableParams{}), browsertest.Call(log.Enable, cdp.Empty{})); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *heard) check(t *testing.T, page string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.problems {
		t.Errorf("the page is not quiet: %s", p)
	}
	for _, r := range h.requests {
		if r != page && !strings.HasPrefix(r, "data:") {
			t.Errorf("the page fetches %s", r)
		}
	}
	h.problems, h.requests = nil, nil
}

func pageOf(t *testing.T, r Report) string {
	t.Helper()
	return browsertest.Keep(t, func(w io.Writer) error { return HTML(w, r) })
}

// everyPage writes one page of each kind, by its name: the reports of the runs
// in testdata in both languages, one with a checklist and a price, a capacity
// search, a comparison, a matrix, a plan, and a report with hostile text.
func everyPage(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{"hostile": pageOf(t, hostileRun().report(t))}
	for _, name := range append([]string{"fail-zh"}, runs...) {
		run, language, _ := strings.Cut(name, "-")
		j := judged(t, run)
		if Language(language) == Chinese {
			j = inCodes(t, j)
		}
		r := j.report(t)
		r.Language = Language(language)
		pages[name] = pageOf(t, r)
	}
	pages["full"] = pageOf(t, fullReport(t))
	command := []string{"launchgate", "capacity", "--target", "http://" + strings.Repeat("a-long-name.", 20) + "example:8000/v1", "--model", strings.Repeat("m", 120)}
	c, d, p := aCapacity(), aComparison(), aPlan()
	c.Command, d.Command, p.Command = command, command, command
	c.Points[3].Dir = strings.Repeat("a-folder-with-a-long-name-", 8)
	for name, form := range map[string]func(io.Writer) error{
		"capacity": func(w io.Writer) error { return CapacityHTML(w, c) }, "compare": func(w io.Writer) error { return CompareHTML(w, d) },
		"matrix": func(w io.Writer) error { return MatrixHTML(w, aMatrix()) }, "plan": func(w io.Writer) error { return PlanHTML(w, p) },
	} {
		pages[name] = browsertest.Keep(t, form)
	}
	return pages
}

// fullReport is a report with every section.
func fullReport(t *testing.T) Report {
	t.Helper()
	r := judged(t, "fail").report(t)
	dollars := 0.37
	r.Verdict.Cost = &checklist.Cost{Instance: "g6.xlarge", PricesOf: "2026-10-01", Source: "the provider's price list", PaidReplicas: 3, PerHour: 2.41, PerMillion: &dollars, PerRequest: &dollars,
		Options: []checklist.CostOption{{Name: "spot", PerMillion: &dollars, Saving: 0.6, Why: words.Say("the scenario %s was not played", "pod-kill")}}}
	r.Checklist = &release.Result{Name: "go-live", At: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC), State: release.Open, Items: []release.ItemResult{
		{ID: "runbook", Name: words.Kept{Sentence: words.Verbatim("Runbook")}, State: release.Open, Checks: []release.CheckResult{{ID: "current", Name: words.Kept{Sentence: words.Verbatim("It is current")}, State: release.Open, Why: words.Kept{Sentence: words.Say("reviewed on %s", "2026-11-01")}}}}}}
	return r
}

// No page is wider than its window at any width, and nothing is hidden in a
// part that does not scroll.
func TestPagesFitTheirWindow(t *testing.T) { browsertest.Fit(t, browsertest.Open(t), everyPage(t)) }

// On paper nothing is cut off or scrolls, and a heading stays with its section.
func TestPagesOnPaper(t *testing.T) { browsertest.OnPaper(t, browsertest.Open(t), everyPage(t)) }

// axe-core finds nothing on any page, wide and narrow, light and dark.
func TestPagesAreAccessible(t *testing.T) {
	pages := everyPage(t)
	for _, like := range []string{"pass", "unproven", "invalid"} {
		delete(pages, like) // they have nothing that the others lack
	}
	browsertest.Accessible(t, browsertest.Open(t), pages)
}

const drawn = `(() => {
	const blank = c => !c.getContext("2d").getImageData(0, 0, c.width, c.height).data.some(v => v !== 0);
	const canvases = [...document.querySelectorAll("canvas")];
	return {
		panels: document.querySelectorAll("[data-panel], [data-chart]").length,
		canvases: canvases.length,
		blank: canvases.filter(blank).length,
		wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
		alerts: document.querySelectorAll("img").length,
		unnamed: [...document.querySelectorAll("button, [role=img], [role=group], [role=region], figure > .plot[tabindex]")].filter(e => !e.textContent.trim() && !e.getAttribute("aria-label")).length,
		headings: document.querySelectorAll("h1").length,
	};
})()`

type seen struct {
	Panels   int `json:"panels"`
	Canvases int `json:"canvases"`
	Blank    int `json:"blank"`
	Wide     int `json:"wide"`
	Alerts   int `json:"alerts"`
	Unnamed  int `json:"unnamed"`
	Headings int `json:"headings"`
}

// The report is opened in a real browser, wide and narrow, light and dark. It
// writes nothing to the console, fetches nothing, draws every chart and fits.
func TestReportInABrowser(t *testing.T) {
	ctx := browsertest.Open(t)
	for _, name := range append([]string{"hostile", "fail-zh"}, runs...) {
		run, language, _ := strings.Cut(name, "-")
		j := hostileRun()
		if name != "hostile" {
			j = judged(t, run)
		}
		r := j.report(t)
		r.Language = Language(language)
		page := pageOf(t, r)
		for _, screen := range []struct {
			width int64
			theme string
		}{{1280, "light"}, {390, "dark"}} {
			t.Run(name+" "+screen.theme, func(t *testing.T) {
				h := listen(t, ctx)
				if err := chromedp.Do(ctx, append(browsertest.Screen(screen.width, screen.theme), chromedp.Navigate(page))...); err != nil {
					t.Fatal(err)
				}
				got := browsertest.Ask[seen](t, ctx, drawn)
				h.check(t, page)
				if got.Panels == 0 || got.Canvases != got.Panels || got.Blank > 0 {
					t.Errorf("of %d charts %d are drawn, %d of them blank", got.Panels, got.Canvases, got.Blank)
				}
				if got.Wide > 0 {
					t.Errorf("the page is %d pixels wider than the screen", got.Wide)
				}
				if got.Alerts > 0 || got.Unnamed > 0 || got.Headings != 1 {
					t.Errorf("the page holds %d images, %d controls without a name and %d main headings", got.Alerts, got.Unnamed, got.Headings)
				}
			})
		}
	}
}

// Zooming one panel of the timeline zooms all, by mouse or by keyboard.
func TestTheTimelineAnswersToTheKeyboard(t *testing.T) {
	ctx := browsertest.Open(t)
	page := pageOf(t, judged(t, "fail").report(t))
	h := listen(t, ctx)
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(1280, 900), chromedp.Navigate(page)); err != nil {
		t.Fatal(err)
	}
	const moment = `document.querySelector('[data-panel="0"] .moment').textContent`
	const narrow = `document.getElementById("strip").classList.contains("zoomed")`
	before := browsertest.Ask[string](t, ctx, moment)
	if err := chromedp.Do(ctx, chromedp.Focus(chromedp.CSS(`[data-panel="0"] .plot`)), chromedp.KeyEvent(kb.ArrowRight), chromedp.KeyEvent("+")); err != nil {
		t.Fatal(err)
	}
	told := browsertest.Ask[string](t, ctx, moment)
	if !browsertest.Ask[bool](t, ctx, narrow) {
		t.Error("+ does not zoom")
	}
	if err := chromedp.Do(ctx, chromedp.KeyEvent(kb.Escape)); err != nil {
		t.Fatal(err)
	}
	if browsertest.Ask[bool](t, ctx, narrow) {
		t.Error("Escape does not show everything again")
	}
	h.check(t, page)
	if before != "" || told == "" {
		t.Errorf("before a key is pressed the panel tells %q, and after %q", before, told)
	}
}

// Without JavaScript the page is complete: it has every result and every chart.
func TestReportWithoutJavaScript(t *testing.T) {
	ctx := browsertest.Open(t)
	r := judged(t, "fail").report(t)
	page := pageOf(t, r)
	h := listen(t, ctx)
	scripts := func(off bool) chromedp.Action[chromedp.Void] {
		return browsertest.Call(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: off})
	}
	if err := chromedp.Do(ctx, scripts(true), chromedp.EmulateViewport(1280, 900), chromedp.Navigate(page), scripts(false)); err != nil {
		t.Fatal(err)
	}
	text := browsertest.Ask[string](t, ctx, `document.querySelector("main").innerText`)
	charts := browsertest.Ask[int](t, ctx, `document.querySelectorAll("svg.chart path").length`)
	hidden := browsertest.Ask[int](t, ctx, `[...document.querySelectorAll("svg.chart:not(.at-narrow)")].filter(s => !s.getClientRects().length).length`)
	if browsertest.Ask[bool](t, ctx, `document.documentElement.classList.contains("js")`) {
		t.Error("the page's script did run")
	}
	h.check(t, page)
	if charts == 0 || hidden > 0 {
		t.Errorf("%d lines are drawn, and %d charts are hidden", charts, hidden)
	}
	for _, o := range r.Objectives {
		if !strings.Contains(text, o.Source) {
			t.Errorf("the page does not show %s", o.Source)
		}
	}
	if !strings.Contains(text, r.Verdict.Why[0].String()) {
		t.Errorf("the page does not say %q", r.Verdict.Why[0])
	}
}
