// Package browsertest opens pages in a real browser, for the tests of every package
// that writes pages. It checks what holds for all of them: they fit their window and
// paper, and axe-core finds nothing.
package browsertest

import (
	"bytes"
	"context"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// Open starts a real browser, or skips the test where there is none.
func Open(t *testing.T) context.Context {
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

// Call is a command of the browser's own protocol.
func Call[P any](command cdp.Command[P, cdp.Empty], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		_, err := cdp.Call(ctx, tab, command, params)
		return err
	})
}

// Ask evaluates an expression in the page.
func Ask[T any](t *testing.T, ctx context.Context, expression string) T {
	t.Helper()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Keep writes a page into a file, and returns its address.
func Keep(t *testing.T, form func(io.Writer) error) string {
	t.Helper()
	var b bytes.Buffer
	if err := form(&b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "page.html")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return (&url.URL{Scheme: "file", Path: path}).String()
}

// widths are the widths of a desktop window and of a telephone. Paper is tested
// by printing.
var widths = []int64{1280, 390}

// Screen sets the screen to a width. A narrow one is emulated as a telephone.
func Screen(width int64, theme string) []chromedp.Action[chromedp.Void] {
	return []chromedp.Action[chromedp.Void]{
		Call(emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 900, DeviceScaleFactor: 1, Mobile: width < 500}),
		Call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}}),
	}
}

// Fit checks that no page is wider than its window at any width, and that on a
// telephone there is a way to navigate, and charts and stages can be read.
func Fit(t *testing.T, ctx context.Context, pages map[string]string) {
	t.Helper()
	for name, page := range pages {
		for _, width := range widths {
			if err := chromedp.Do(ctx, append(Screen(width, "light"), chromedp.Navigate(page))...); err != nil {
				t.Fatal(err)
			}
			if wide := Ask[int](t, ctx, `document.documentElement.scrollWidth`); int64(wide) > width {
				t.Errorf("%s: the page is %d pixels wide in a window of %d", name, wide, width)
			}
			if width > 500 {
				continue
			}
			if lost := Ask[string](t, ctx, `[...document.querySelectorAll("nav")].filter(n => !n.getClientRects().length).map(n => n.ariaLabel).join()`); lost != "" {
				t.Errorf("%s: on a telephone there is no way to navigate: %s", name, lost)
			}
			if small := Ask[string](t, ctx, tooSmall); small != "" {
				t.Errorf("%s: on a telephone these charts cannot be read: %s", name, small)
			}
			if missing := Ask[int](t, ctx, `[...document.querySelectorAll(".stage-list")].filter(l => l.children.length && !l.getClientRects().length).length`); missing > 0 {
				t.Errorf("%s: on a telephone the stages have no names", name)
			}
		}
	}
}

// tooSmall are the charts whose text is drawn smaller than nine pixels.
const tooSmall = `[...document.querySelectorAll("svg.chart")].filter(s => s.getClientRects().length && s.querySelector("text")
	&& s.getBoundingClientRect().width / s.viewBox.baseVal.width * parseFloat(getComputedStyle(s.querySelector("text")).fontSize) < 9).map(s => s.ariaLabel).join("; ")`

// OnPaper checks that on paper nothing is cut off or scrolls, and that a heading stays
// with its section.
func OnPaper(t *testing.T, ctx context.Context, pages map[string]string) {
	t.Helper()
	const paper = 718 // pixels: A4 with a centimetre on each side
	for name, page := range pages {
		if err := chromedp.Do(ctx, append(Screen(paper, "light"),
			chromedp.Navigate(page),
			Call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: "print"}))...); err != nil {
			t.Fatal(err)
		}
		got := Ask[[]string](t, ctx, onPaper)
		if err := chromedp.Do(ctx, Call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{})); err != nil {
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

// Accessible checks that axe-core finds nothing on any page, wide and light, narrow
// and dark.
func Accessible(t *testing.T, ctx context.Context, pages map[string]string) {
	t.Helper()
	if testing.Short() {
		t.Skip("skipped: axe-core takes a minute, and this run is to be short")
	}
	axe := axeCore(t)
	for name, page := range pages {
		for i, width := range widths {
			if err := chromedp.Do(ctx, append(Screen(width, []string{"light", "dark"}[i]), chromedp.Navigate(page))...); err != nil {
				t.Fatal(err)
			}
			Ask[bool](t, ctx, axe+";true")
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
