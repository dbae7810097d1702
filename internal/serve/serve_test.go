package serve

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/browsertest"
	"github.com/launchgate/launchgate/reports"
)

const testKey = "a-key-for-the-tests"

// service is a server whose gates end when the test says with which exit code.
type service struct {
	*Server
	url  string
	ends chan int
	stop func()
}

func start(t *testing.T, dir string, queue int) service {
	t.Helper()
	ends := make(chan int)
	s, err := New(Options{Dir: dir, Queue: queue, Gates: func() []string { return []string{"canary", "other"} },
		Play: func(ctx context.Context, gate, dir string) (int, string) {
			select {
			case code := <-ends:
				v := checklist.Verdict{ExitCode: code, Objectives: []checklist.Finding{{Source: "p95(ttft) <= 1s", Verdict: checklist.Pass, Value: new(0.25), Unit: "s", Threshold: 1}}}
				b, _ := json.Marshal(v)
				if os.MkdirAll(dir, 0o755) == nil && code < 4 {
					_ = os.WriteFile(filepath.Join(dir, reports.VerdictFile), b, 0o644)
					_ = os.WriteFile(filepath.Join(dir, reports.HTMLFile), []byte("<p>the report"), 0o644)
				}
				return code, "said <b>"
			case <-ctx.Done():
				return checklist.ExitInterrupted, "interrupted"
			}
		}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { s.Work(ctx); close(done) }()
	web := httptest.NewServer(s.Handler(testKey))
	stop := func() { cancel(); <-done; web.Close() }
	t.Cleanup(stop)
	return service{s, web.URL, ends, stop}
}

func (s service) ask(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+testKey)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(b)
}

func (s service) run(t *testing.T, method, path, body string, want int) Run {
	t.Helper()
	code, text := s.ask(t, method, path, body)
	var r Run
	if err := json.Unmarshal([]byte(text), &r); err != nil || code != want {
		t.Fatalf("%s %s: %d, want %d: %s", method, path, code, want, text)
	}
	return r
}

func TestEveryVerdictIsTold(t *testing.T) {
	s := start(t, t.TempDir(), 8)
	for code, verdict := range map[int]string{0: "pass", 1: "fail", 2: "unproven", 3: "invalid", 4: "could-not-run", 130: "interrupted"} {
		asked := s.run(t, "POST", "/runs", `{"gate":"canary"}`, http.StatusAccepted)
		if asked.ID == "" || asked.Verdict != "running" {
			t.Errorf("asked: %+v", asked)
		}
		s.ends <- code
		got := s.run(t, "GET", "/runs/"+asked.ID+"?wait=1m", "", http.StatusOK)
		if got.State != Done || got.Verdict != verdict || got.ExitCode == nil || *got.ExitCode != code {
			t.Errorf("exit code %d: %+v", code, got)
		}
	}
}

func TestTheSameIsAskedOnce(t *testing.T) {
	s := start(t, t.TempDir(), 8)
	a := s.run(t, "POST", "/runs", `{"gate":"canary","for":"v2"}`, http.StatusAccepted)
	b := s.run(t, "POST", "/runs", `{"gate":"canary","for":"v2"}`, http.StatusAccepted)
	c := s.run(t, "POST", "/runs", `{"gate":"canary","for":"v3"}`, http.StatusAccepted)
	if a.ID != b.ID || a.ID == c.ID {
		t.Errorf("%s, %s, %s", a.ID, b.ID, c.ID)
	}
	s.ends <- 0
	s.ends <- 1
	if got := s.run(t, "POST", "/runs?wait=1m", `{"gate":"canary","for":"v3"}`, http.StatusOK); got.Verdict != "fail" {
		t.Errorf("%+v", got)
	}
}

func TestTheQueueHasAnEnd(t *testing.T) {
	s := start(t, t.TempDir(), 1)
	first := s.run(t, "POST", "/runs", `{"gate":"canary"}`, http.StatusAccepted)
	for s.run(t, "GET", "/runs/"+first.ID, "", http.StatusOK).State != Running {
		time.Sleep(time.Millisecond)
	}
	s.run(t, "POST", "/runs", `{"gate":"other"}`, http.StatusAccepted)
	if code, text := s.ask(t, "POST", "/runs", `{"gate":"canary"}`); code != http.StatusTooManyRequests {
		t.Errorf("%d: %s", code, text)
	}
	s.ends <- 0
	s.ends <- 0
}

func TestWhatIsRefused(t *testing.T) {
	s := start(t, t.TempDir(), 8)
	for _, tt := range []struct {
		method, path, body string
		want               int
	}{
		{"POST", "/runs", `{"gate":"../../etc/passwd"}`, 404}, {"POST", "/runs", `{"gate":"canary","yaml":"x"}`, 400}, {"POST", "/runs", "", 400},
		{"POST", "/runs?wait=9000h", `{"gate":"canary"}`, 400}, {"GET", "/runs/none", "", 404}, {"GET", "/runs/..%2f..%2fetc/report", "", 404},
		{"GET", "/elsewhere", "", 404}, {"POST", "/flagger/promote", "{}", 400}, {"POST", "/flagger/promote", `{"name":"c","metadata":{"gate":"none"}}`, 404},
		{"POST", "/runs", `{"gate":"canary","for":"` + strings.Repeat("x", 70000) + `"}`, 400},
	} {
		if code, text := s.ask(t, tt.method, tt.path, tt.body); code != tt.want {
			t.Errorf("%s %s %.60s: %d, want %d: %s", tt.method, tt.path, tt.body, code, tt.want, text)
		}
	}
	for _, path := range []string{"/runs", "/", "/runs/x", "/runs/x/report"} {
		for _, header := range []string{"", "Bearer wrong", "Bearer ", "Basic d3Jvbmc6d3Jvbmc="} {
			r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
			r.Header.Set("Authorization", header)
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			if answer.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s with %q: %d", path, header, answer.StatusCode)
			}
		}
	}
	if answer, err := http.Get(s.url + "/healthz"); err != nil || answer.StatusCode != http.StatusNoContent {
		t.Errorf("/healthz: %v", err)
	}
	if answer, err := http.Post(s.url+"/flagger/promote", "application/json", strings.NewReader(`{"name":"c","metadata":{"gate":"canary"}}`)); err != nil || answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("a webhook without a key: %v", err)
	}
	if len(s.List()) != 0 {
		t.Errorf("runs were queued: %v", s.List())
	}
}

func TestFlaggerPromotesRollsBackAndWaits(t *testing.T) {
	s := start(t, t.TempDir(), 8)
	for code, want := range map[int][2]int{0: {200, 409}, 1: {409, 200}, 2: {409, 409}, 3: {409, 409}, 4: {409, 409}} {
		body := fmt.Sprintf(`{"name":"inference","namespace":"models","phase":"Progressing","checksum":"v%d","metadata":{"gate":"canary","key":%q}}`, code, testKey)
		post := func(hook string) int {
			answer, err := http.Post(s.url+"/flagger/"+hook, "application/json", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			return answer.StatusCode
		}
		if got := post("promote"); got != http.StatusConflict {
			t.Errorf("before the verdict: %d", got)
		}
		s.ends <- code
		s.Get(t.Context(), s.List()[0].ID, time.Minute)
		if promote, back := post("promote"), post("rollback"); promote != want[0] || back != want[1] {
			t.Errorf("exit code %d: promote %d, rollback %d, want %v", code, promote, back, want)
		}
	}
}

func TestTheEndIsGraceful(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, 8)
	under := s.run(t, "POST", "/runs", `{"gate":"canary"}`, http.StatusAccepted)
	for s.run(t, "GET", "/runs/"+under.ID, "", http.StatusOK).State != Running {
		time.Sleep(time.Millisecond)
	}
	queued := s.run(t, "POST", "/runs", `{"gate":"other"}`, http.StatusAccepted)
	s.stop()
	again := start(t, dir, 8)
	if got := again.run(t, "GET", "/runs/"+under.ID, "", http.StatusOK); got.Verdict != "interrupted" {
		t.Errorf("%+v", got)
	}
	again.ends <- 0
	if got := again.run(t, "GET", "/runs/"+queued.ID+"?wait=1m", "", http.StatusOK); got.Verdict != "pass" {
		t.Errorf("%+v", got)
	}
}

func TestTheNextServerKeepsTheOrder(t *testing.T) {
	o := Options{Dir: filepath.Join(t.TempDir(), "runs [1]"), Queue: 8, Gates: func() []string { return []string{"canary", "other"} }}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, gate := range []string{"other", "canary", "other"} { // usually within a second
		if _, err := s.Ask(gate, ""); err != nil {
			t.Fatal(err)
		}
	}
	again, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.queue) != 3 || !slices.Equal(again.queue, s.queue) {
		t.Errorf("found %q, expected %q", again.queue, s.queue)
	}
}

// The newest runs are kept, and of older ones neither the folder nor the file stays. What
// waits is never removed.
func TestOldRunsAreRemoved(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, 8)
	var all []Run
	for range 4 {
		asked := s.run(t, "POST", "/runs", `{"gate":"canary"}`, http.StatusAccepted)
		s.ends <- 0
		s.Get(t.Context(), asked.ID, time.Minute)
		all = append(all, asked)
	}
	s.stop()
	waiting := Run{ID: "waiting", Gate: "canary", State: Queued, AskedAt: all[0].AskedAt.Add(-time.Hour)}
	if err := s.keep(&waiting); err != nil {
		t.Fatal(err)
	}
	o := s.Options
	o.Keep = 2
	again, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if listed := again.List(); len(listed) != 3 || listed[0].ID != all[3].ID || listed[1].ID != all[2].ID || listed[2].ID != "waiting" {
		t.Errorf("found %+v, expected the last two runs and what waits", listed)
	}
	for i, r := range all {
		kept := i >= 2
		if exists(filepath.Join(dir, r.ID)) != kept || exists(filepath.Join(dir, jobs, r.ID+".json")) != kept {
			t.Errorf("run %d: is it kept? expected %v", i, kept)
		}
	}
	if _, known := again.Get(t.Context(), all[0].ID, 0); known {
		t.Error("a removed run is told")
	}
	if newest, err := New(s.Options); err != nil || len(newest.List()) != 3 { // Keep is 0
		t.Errorf("%v, expected that all stay", err)
	}
}

func TestThePageShowsTrends(t *testing.T) {
	s := start(t, t.TempDir(), 8)
	for range 3 {
		asked := s.run(t, "POST", "/runs", `{"gate":"canary"}`, http.StatusAccepted)
		s.ends <- 0
		s.Get(t.Context(), asked.ID, time.Minute)
	}
	asked := s.run(t, "POST", "/runs", `{"gate":"other","for":"<script>`+strings.Repeat("a-long-reason", 10)+`"}`, http.StatusAccepted)
	s.ends <- 4
	s.Get(t.Context(), asked.ID, time.Minute)
	code, page := s.ask(t, "GET", "/", "")
	for _, want := range []string{"the last 3 judged runs", "p95(ttft) &lt;= 1s", "250 ms", "3 values, the limit is 1", "<polyline", "/report\"", "&lt;script&gt;", "said &lt;b&gt;", "could-not-run"} {
		if code != http.StatusOK || !strings.Contains(page, want) {
			t.Errorf("the page (%d) lacks %q", code, want)
		}
	}
	first := s.List()[3]
	if code, report := s.ask(t, "GET", first.Report, ""); code != http.StatusOK || report != "<p>the report" {
		t.Errorf("%d: %s", code, report)
	}
	pages := map[string]string{"serve": browsertest.Keep(t, func(w io.Writer) error { _, err := io.WriteString(w, page); return err })}
	ctx := browsertest.Open(t)
	browsertest.Fit(t, ctx, pages)
	browsertest.OnPaper(t, ctx, pages)
	browsertest.Accessible(t, ctx, pages)
}
