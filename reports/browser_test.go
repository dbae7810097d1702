package reports

import (
	"context"
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
	ctx, stopWaiting := context.WithTimeout(ctx, time.Minute)
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

// heard is what a page said and asked for while it was open.
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
	path := filepath.Join(t.TempDir(), HTMLFile)
	if err := os.WriteFile(path, []byte(write(t, HTML, r)), 0o644); err != nil {
		t.Fatal(err)
	}
	return (&url.URL{Scheme: "file", Path: path}).String()
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
		unnamed: [...document.querySelectorAll("button, [role=img], [role=region], figure > .plot[tabindex]")].filter(e => !e.textContent.trim() && !e.getAttribute("aria-label")).length,
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

// The report is opened in a real browser, wide and narrow, light and dark: it
// says nothing on the console, fetches nothing, draws every chart and fits.
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

// Without JavaScript the page is complete: everything decided is there, and
// every chart.
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
	hidden := ask[int](t, ctx, `[...document.querySelectorAll("svg.chart")].filter(s => !s.getClientRects().length).length`)
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
