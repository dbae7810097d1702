package reports

import (
	"bytes"
	"context"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
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
	"github.com/launchgate/launchgate/internal/words"
)

// browser starts a real browser, or skips the test where there is none.
func browser(t *testing.T) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Skip("skipped: there is no Chromium or Chrome on this machine to open the report with")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()))
	ctx, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	ctx, stopTab := chromedp.NewContext(ctx)
	t.Cleanup(stopTab)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("%s does not start: %v", path, err)
	}
	ctx, stopWaiting := context.WithTimeout(ctx, 4*time.Minute)
	t.Cleanup(stopWaiting)
	return ctx
}

// call is a command of the browser's own protocol.
func call[P any](command cdp.Command[P, cdp.Empty], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		_, err := cdp.Call(ctx, tab, command, params)
		return err
	})
}

// ask evaluates an expression in the page.
func ask[T any](t *testing.T, ctx context.Context, expression string) T {
	t.Helper()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

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
	if err := chromedp.Do(ctx, call(network.Enable, network.EnableParams{}), call(log.Enable, cdp.Empty{})); err != nil {
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
	return keptPage(t, func(w io.Writer) error { return HTML(w, r) })
}

// keptPage writes a page into a file, and returns its address.
func keptPage(t *testing.T, form func(io.Writer) error) string {
	t.Helper()
	var b bytes.Buffer
	if err := form(&b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), HTMLFile)
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return (&url.URL{Scheme: "file", Path: path}).String()
}

// widths are the widths of a desktop window and of a telephone. Paper is tested
// by printing.
var widths = []int64{1280, 390}

// screenOf sets the screen to a width. A narrow one is emulated as a telephone.
func screenOf(width int64, theme string) []chromedp.Action[chromedp.Void] {
	return []chromedp.Action[chromedp.Void]{
		call(emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 900, DeviceScaleFactor: 1, Mobile: width < 500}),
		call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}}),
	}
}

// everyPage writes one page of each kind, by its name: the reports of the runs
// in testdata in both languages, one with a checklist and a price, a capacity
// search, a comparison, and a report with hostile text.
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
	c, d := aCapacity(), aComparison()
	c.Command, d.Command = command, command
	c.Points[3].Dir = strings.Repeat("a-folder-with-a-long-name-", 8)
	for name, form := range map[string]func(io.Writer) error{
		"capacity": func(w io.Writer) error { return CapacityHTML(w, c) }, "compare": func(w io.Writer) error { return CompareHTML(w, d) },
	} {
		pages[name] = keptPage(t, form)
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
func TestPagesFitTheirWindow(t *testing.T) {
	ctx := browser(t)
	for name, page := range everyPage(t) {
		for _, width := range widths {
			if err := chromedp.Do(ctx, append(screenOf(width, "light"), chromedp.Navigate(page))...); err != nil {
				t.Fatal(err)
			}
			if wide := ask[int](t, ctx, `document.documentElement.scrollWidth`); int64(wide) > width {
				t.Errorf("%s: the page is %d pixels wide in a window of %d", name, wide, width)
			}
			if width > 500 {
				continue
			}
			if lost := ask[string](t, ctx, `[...document.querySelectorAll("nav")].filter(n => !n.getClientRects().length).map(n => n.ariaLabel).join()`); lost != "" {
				t.Errorf("%s: on a telephone there is no way to navigate: %s", name, lost)
			}
			if small := ask[string](t, ctx, tooSmall); small != "" {
				t.Errorf("%s: on a telephone these charts cannot be read: %s", name, small)
			}
			if missing := ask[int](t, ctx, `[...document.querySelectorAll(".stage-list")].filter(l => l.children.length && !l.getClientRects().length).length`); missing > 0 {
				t.Errorf("%s: on a telephone the stages have no names", name)
			}
		}
	}
}

// tooSmall are the charts whose text is drawn smaller than nine pixels.
const tooSmall = `[...document.querySelectorAll("svg.chart")].filter(s => s.getClientRects().length && s.querySelector("text")
	&& s.getBoundingClientRect().width / s.viewBox.baseVal.width * parseFloat(getComputedStyle(s.querySelector("text")).fontSize) < 9).map(s => s.ariaLabel).join("; ")`

// On paper nothing is cut off or scrolls, and a heading stays with its section.
func TestPagesOnPaper(t *testing.T) {
	ctx := browser(t)
	const paper = 718 // pixels: A4 with a centimetre on each side
	for name, page := range everyPage(t) {
		if err := chromedp.Do(ctx, append(screenOf(paper, "light"),
			chromedp.Navigate(page),
			call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: "print"}))...); err != nil {
			t.Fatal(err)
		}
		got := ask[[]string](t, ctx, onPaper)
		if err := chromedp.Do(ctx, call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{})); err != nil {
			t.Fatal(err)
		}
		for _, wrong := range got {
			t.Errorf("%s on paper: %s", name, wrong)
		}
	}
}

const onPaper = `(() => {
	const wrong = [], seen = e => e.getClientRects().length > 0, name = e => e.tagName + "." + e.className + " " + e.textContent.trim().slice(0, 40);
	if (document.documentElement.scrollWidth > innerWidth) wrong.push("the page is " + document.documentElement.scrollWidth + " pixels wide, and the paper " + innerWidth);
	for (const e of document.querySelectorAll("body *")) {
		if (!seen(e) || e.closest("svg")) continue;
		const style = getComputedStyle(e);
		if (/auto|scroll/.test(style.overflowX + style.overflowY)) wrong.push("it has a scroll bar: " + name(e));
		if (e.getBoundingClientRect().right > innerWidth + 1) wrong.push("it is cut off: " + name(e));
		if (/^H[23]$/.test(e.tagName)) {
			if (style.breakAfter !== "avoid") wrong.push("it may stand at the foot of a page: " + name(e));
			if (!e.nextElementSibling && !e.parentElement.nextElementSibling) wrong.push("it is the heading of nothing: " + name(e));
		}
	}
	return [...new Set(wrong)];
})()`

// axe-core finds nothing on any page, wide and narrow, light and dark.
func TestPagesAreAccessible(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: axe-core takes a minute, and this run is to be short")
	}
	axe := axeCore(t)
	ctx := browser(t)
	pages := everyPage(t)
	for _, like := range []string{"pass", "unproven", "invalid"} {
		delete(pages, like) // they have nothing that the others lack
	}
	for name, page := range pages {
		for i, width := range widths {
			if err := chromedp.Do(ctx, append(screenOf(width, []string{"light", "dark"}[i]), chromedp.Navigate(page))...); err != nil {
				t.Fatal(err)
			}
			ask[bool](t, ctx, axe+";true")
			found, err := chromedp.Run(ctx, chromedp.Evaluate[[]string](axeRun, chromedp.EvalAwaitPromise))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range found {
				t.Errorf("%s at %d: %s", name, width, f)
			}
		}
	}
}

const axeRun = `axe.run(document, {resultTypes: ["violations"]}).then(r => r.violations.flatMap(v =>
	v.nodes.slice(0, 3).map(n => v.id + ": " + n.failureSummary.replace(/\s+/g, " ") + ": " + n.html.slice(0, 160))))`

// axeVersion is the version that finds nothing. A newer one may have more
// rules.
const axeVersion = "4.14.1"

// axeCore is the source of axe-core from npm, which is cached. The test is
// skipped if it cannot be downloaded.
func axeCore(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = t.TempDir()
	}
	dir := filepath.Join(cache, "launchgate-test", "axe-core-"+axeVersion)
	path := filepath.Join(dir, "node_modules", "axe-core", "axe.min.js")
	if source, err := os.ReadFile(path); err == nil {
		return string(source)
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("skipped: axe-core comes from npm, and there is no npm on this machine")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Skipf("skipped: there is no place for axe-core: %v", err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if out, err := exec.CommandContext(ctx, npm, "install", "--no-save", "--no-audit", "--no-fund", "--prefix", dir, "axe-core@"+axeVersion).CombinedOutput(); err != nil {
		t.Skipf("skipped: npm cannot install axe-core %s: %v\n%s", axeVersion, err, out)
	}
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(source)
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
	ctx := browser(t)
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
				if err := chromedp.Do(ctx,
					call(emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: screen.width, Height: 900, DeviceScaleFactor: 1, Mobile: screen.width < 500}),
					call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: screen.theme}}}),
					chromedp.Navigate(page),
				); err != nil {
					t.Fatal(err)
				}
				got := ask[seen](t, ctx, drawn)
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
	ctx := browser(t)
	page := pageOf(t, judged(t, "fail").report(t))
	h := listen(t, ctx)
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(1280, 900), chromedp.Navigate(page)); err != nil {
		t.Fatal(err)
	}
	const moment = `document.querySelector('[data-panel="0"] .moment').textContent`
	const narrow = `document.getElementById("strip").classList.contains("zoomed")`
	before := ask[string](t, ctx, moment)
	if err := chromedp.Do(ctx, chromedp.Focus(chromedp.CSS(`[data-panel="0"] .plot`)), chromedp.KeyEvent(kb.ArrowRight), chromedp.KeyEvent("+")); err != nil {
		t.Fatal(err)
	}
	told := ask[string](t, ctx, moment)
	if !ask[bool](t, ctx, narrow) {
		t.Error("+ does not zoom")
	}
	if err := chromedp.Do(ctx, chromedp.KeyEvent(kb.Escape)); err != nil {
		t.Fatal(err)
	}
	if ask[bool](t, ctx, narrow) {
		t.Error("Escape does not show everything again")
	}
	h.check(t, page)
	if before != "" || told == "" {
		t.Errorf("before a key is pressed the panel tells %q, and after %q", before, told)
	}
}

// Without JavaScript the page is complete: it has every result and every chart.
func TestReportWithoutJavaScript(t *testing.T) {
	ctx := browser(t)
	r := judged(t, "fail").report(t)
	page := pageOf(t, r)
	h := listen(t, ctx)
	scripts := func(off bool) chromedp.Action[chromedp.Void] {
		return call(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: off})
	}
	if err := chromedp.Do(ctx, scripts(true), chromedp.EmulateViewport(1280, 900), chromedp.Navigate(page), scripts(false)); err != nil {
		t.Fatal(err)
	}
	text := ask[string](t, ctx, `document.querySelector("main").innerText`)
	charts := ask[int](t, ctx, `document.querySelectorAll("svg.chart path").length`)
	hidden := ask[int](t, ctx, `[...document.querySelectorAll("svg.chart:not(.at-narrow)")].filter(s => !s.getClientRects().length).length`)
	if ask[bool](t, ctx, `document.documentElement.classList.contains("js")`) {
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
