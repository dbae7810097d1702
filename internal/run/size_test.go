package run

import (
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// The load of a gate that says how long an answer shall last, and how many requests
// shall be in flight, follows from the service's speed. The recording has the numbers.
func TestTheLoadFollowsFromTheMeasuredSpeed(t *testing.T) {
	server := httptest.NewServer(newPlanted())
	defer server.Close()
	gate, err := scenarios.Parse("gate.yaml", fmt.Appendf(nil, `name: relative
seed: 7
target: {endpoint: {url: %q}}
scenarios:
  - name: s
    workload: {answer: 200ms, in_flight: 3, ignore_eos: true}
    stages: [{name: main, for: 1s}]
objectives: [error_rate <= 99%%]
`, server.URL))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "run")
	if err := Run(t.Context(), Options{Gate: gate, Dir: dir, Tell: func(Progress) {}}); err != nil {
		t.Fatal(err)
	}
	rec, err := recording.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	recorded, err := scenarios.Parse("gate.yaml", rec.Gate)
	if err != nil {
		t.Fatal(err)
	}
	s := recorded.Scenarios[0]
	var measured recording.Observation
	for _, o := range rec.Observations {
		if o.Name == recording.ObsSized {
			measured = o
		}
	}
	// The service waits 15 ms, then 4 ms for each token, so 200 ms are at most 47 of
	// them: fewer on a busy machine.
	tokens := s.Workload.MaxTokens.Max()
	if s.Sized() || tokens < 1 || tokens > 47 {
		t.Errorf("an answer has %d tokens, expected from 1 to 47", tokens)
	}
	least := firstWait + time.Duration(tokens-1)*tokenWait
	if measured.Subject != "s" || measured.Value < least.Seconds() {
		t.Errorf("observed %+v, expected an answer of %d tokens to take at least %s", measured, tokens, least)
	}
	if got, want := float64(s.Stages[0].Rate), 3/measured.Value; got < 0.99*want || got > 1.01*want {
		t.Errorf("the rate is %.3g/s, expected 3 in flight for %.3g s each, which is %.3g/s", got, measured.Value, want)
	}
}

// A cache of whole answers does not make the service look faster than it is: no question
// is asked twice.
func TestTheSpeedIsNotThatOfACache(t *testing.T) {
	service := newPlanted()
	var mu sync.Mutex
	seen := map[string]bool{}
	service.defect = func(_ *planted, q question, a *answer) {
		mu.Lock()
		defer mu.Unlock()
		key := fmt.Sprint(q.prompt, q.maxTokens)
		if seen[key] {
			clear(a.wait)
		}
		seen[key] = true
	}
	server := httptest.NewServer(service)
	defer server.Close()
	gate, err := scenarios.Parse("gate.yaml", fmt.Appendf(nil, `name: relative
target: {endpoint: {url: %q}}
scenarios: [{name: s, workload: {max_tokens: 16, ignore_eos: true}, stages: [{name: main, for: 1s, in_flight: 3}]}]
objectives: [error_rate <= 99%%]
`, server.URL))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "run")
	if err := Run(t.Context(), Options{Gate: gate, Dir: dir, Tell: func(Progress) {}}); err != nil {
		t.Fatal(err)
	}
	rec, err := recording.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	least := firstWait + 15*tokenWait
	for _, o := range rec.Observations {
		if o.Name == recording.ObsSized && o.Value < least.Seconds() {
			t.Errorf("an answer of 16 tokens was measured to take %.1f ms, expected at least %s", o.Value*1e3, least)
		}
	}
}

// A service whose speed cannot be measured ends the run with the reason.
func TestTheSpeedOfASilentServiceIsNotKnown(t *testing.T) {
	service := newPlanted()
	service.defect = func(_ *planted, q question, a *answer) {
		if q.n > 9 { // after the first request and the warm-up
			a.status, a.kind, a.raw = 503, "text/plain", "full"
		}
	}
	server := httptest.NewServer(service)
	defer server.Close()
	gate, err := scenarios.Parse("gate.yaml", fmt.Appendf(nil, `name: relative
target: {endpoint: {url: %q}}
scenarios: [{name: s, workload: {answer: 2s}, stages: [{name: main, for: 1s, rate: 1/s}]}]
objectives: [error_rate <= 99%%]
`, server.URL))
	if err != nil {
		t.Fatal(err)
	}
	err = Run(t.Context(), Options{Gate: gate, Dir: filepath.Join(t.TempDir(), "run"), Tell: func(Progress) {}})
	if err == nil || !strings.Contains(err.Error(), "how fast the service answers s is not known: none of 8 requests was answered") {
		t.Errorf("%v, expected that the speed is not known", err)
	}
}
