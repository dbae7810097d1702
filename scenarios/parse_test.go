package scenarios

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Every file has a gate, a dashed line, and all errors of Parse for it.
func TestEveryProblemIsReported(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no gates to read", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			const line = "----------------\n"
			src, want, _ := strings.Cut(string(content), line)
			_, err = Parse("gate.yaml", []byte(src))
			if err == nil {
				t.Fatal("Parse accepts it")
			}
			got := err.Error() + "\n"
			if *update {
				if err := os.WriteFile(file, []byte(src+line+got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != want {
				t.Errorf("Parse says\n%s\nnot\n%s", got, want)
			}
		})
	}
}

func TestUnreadableFiles(t *testing.T) {
	for _, tt := range []struct {
		name string
		src  []byte
		want string
	}{
		{"a gate of 100 MB", bytes.Repeat([]byte("# no end\n"), 100<<20/9), "gate.yaml: found more than 1048576 bytes, expected a gate of at most 1024 KiB"},
		{"UTF-16", []byte("\xff\xfen\x00a\x00"), "gate.yaml:1:1: found the byte 0xff, expected a text file in UTF-8"},
		{"Latin-1", []byte("name: g\n# caf\xe9\n"), "gate.yaml:2:6: found the byte 0xe9, expected a text file in UTF-8"},
		{"a program", []byte("\x7fELF\x02\x01\x01\x00"), "gate.yaml:1:5: found the control character 0x02, expected a text file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("gate.yaml", tt.src)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got %v\nwant %s", err, tt.want)
			}
			path := filepath.Join(t.TempDir(), "gate.yaml")
			if err := os.WriteFile(path, tt.src, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(path); err == nil || !strings.HasSuffix(err.Error(), tt.want) {
				t.Errorf("Load says %v", err)
			}
		})
	}
}

func TestLoadSaysWhichFileIsMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gate.yaml")
	if _, err := Load(path); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
}

// LoadAgainst replaces or adds the target of a gate. Without that a gate needs
// a target.
func TestLoadAgainst(t *testing.T) {
	for _, target := range []string{"", "target: {local: {replicas: 2}}\n", "target: {endpoint: {url: http://127.0.0.1:1, model: other}}\n"} {
		path := filepath.Join(t.TempDir(), "gate.yaml")
		src := "name: a\n" + target + "scenarios: [{name: s, stages: [{name: s, for: 5s, rate: 1/s}]}]\nobjectives: [error_rate <= 5%]\n"
		if err := os.WriteFile(path, []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
		gate, err := LoadGiven(path, Given{Against: &Endpoint{URL: "http://127.0.0.1:8000"}})
		model := "" // only the address is replaced
		if strings.Contains(target, "model: other") {
			model = "other"
		}
		if err != nil || gate.Target.Local != nil || gate.Target.Endpoint.URL != "http://127.0.0.1:8000" || gate.Target.Endpoint.Model != model {
			t.Errorf("%q: %+v %v", target, gate.Target, err)
		}
		if _, err := Load(path); (err == nil) != (target != "") {
			t.Errorf("%q without --target: %v", target, err)
		}
		if _, err := LoadGiven(path, Given{Against: &Endpoint{URL: "ftp://127.0.0.1"}}); err == nil || !strings.Contains(err.Error(), "target.endpoint.url") {
			t.Errorf("a bad --target: %v", err)
		}
	}
}

// A key that was written in place of its variable's name must not get into the
// log of a CI job.
func TestErrorsRepeatNoSecrets(t *testing.T) {
	for _, name := range []string{"endpoint", "endpoint-user"} {
		content, err := os.ReadFile(filepath.Join("testdata/bad", name+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		src, _, _ := strings.Cut(string(content), "----")
		_, err = Parse("gate.yaml", []byte(src))
		for _, secret := range []string{"sk-abc", "secret@"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error repeats %s: %v", name, secret, err)
			}
		}
	}
}

func TestParseFillsInWhatIsLeftOut(t *testing.T) {
	gate, err := Parse("gate.yaml", []byte(`
name: g
target: {local: {}}
scenarios:
  - name: calm
    stages: [{name: m, for: 1m30s, rate: 90/m}]
  - name: broken
    stages: [{name: m, for: 5s, rate: 0, to: 10/s}]
    faults: [{kind: pod-kill, at: 0s}]
objectives: [error_rate <= 5%]
`))
	if err != nil {
		t.Fatal(err)
	}
	local := &Local{Replicas: 3, ReadyTimeout: Duration(time.Minute), Monitoring: Monitoring{Shorten: 1}}
	workload := Workload{API: "chat", Stream: new(true), Prompts: DefaultPrompts(), MaxTokens: Fixed(48),
		Turns: 1, Salt: new(true), Temperature: new(0.0), Timeout: Duration(30 * time.Second)}
	want := Gate{
		Name: "g", Target: Target{Local: local}, Warmup: Warmup{Requests: 8},
		Scenarios: []Scenario{
			{Name: "calm", Workload: workload,
				Stages: []Stage{{Name: "m", For: Duration(90 * time.Second), Rate: 1.5, Arrivals: "poisson"}}},
			{Name: "broken", Workload: workload,
				Stages: []Stage{{Name: "m", For: Duration(5 * time.Second), To: new(Rate(10)), Shape: "linear", Arrivals: "poisson"}},
				Faults: []Fault{{Kind: "pod-kill", Target: "busiest", Repeat: 1, Within: Duration(30 * time.Second)}},
				Probe: &Probe{Every: Duration(100 * time.Millisecond), Consecutive: 3, MaxTokens: 4,
					Timeout: Duration(2 * time.Second)}},
		},
		Objectives: []Objective{{Source: "error_rate <= 5%", Metric: "error_rate", Op: "<=", Threshold: 0.05, Unit: UnitRatio}},
		Chunks:     "all",
	}
	if !reflect.DeepEqual(gate, want) {
		t.Errorf("got  %+v\nwant %+v", gate, want)
	}
	if again := gate.Resolved(); !reflect.DeepEqual(again, gate) {
		t.Errorf("a resolved gate resolves to another one: %+v", again)
	}
}

func TestAliasesShareAndMerge(t *testing.T) {
	gate, err := Parse("gate.yaml", []byte(`
name: g
target: {local: {}}
scenarios:
  - name: a
    workload: &chat
      api: completions
      max_tokens: 7
    stages: &stages [{name: m, for: 5s, rate: 1/s}]
  - name: b
    workload: *chat
    stages: *stages
  - name: c
    workload:
      max_tokens: 9
      <<: *chat
    stages: *stages
objectives: [error_rate <= 5%]
`))
	if err != nil {
		t.Fatal(err)
	}
	for i, tokens := range []int{7, 7, 9} {
		s := gate.Scenarios[i]
		if s.Workload.API != "completions" || s.Workload.MaxTokens.String() != strconv.Itoa(tokens) || len(s.Stages) != 1 {
			t.Errorf("%+v", s)
		}
	}
}

// Resolving a gate must not write defaults into it, because a caller may still
// change it.
func TestResolvedLeavesTheGateAlone(t *testing.T) {
	gate := Gate{Target: Target{Local: &Local{}}, Scenarios: []Scenario{{
		Stages: []Stage{{}}, Faults: []Fault{{}}, Probe: &Probe{}}}}
	gate.Resolved()
	if gate.Target.Local.Replicas != 0 || gate.Scenarios[0].Stages[0].Arrivals != "" ||
		gate.Scenarios[0].Faults[0].Target != "" || gate.Scenarios[0].Probe.Every != 0 {
		t.Errorf("%+v", gate)
	}
}

func TestReadyGates(t *testing.T) {
	gates := Gates()
	if !slices.ContainsFunc(gates, func(g Gate) bool { return g.Name == "quick" }) {
		t.Fatal("no quick gate")
	}
	for _, gate := range gates {
		if ready, found, err := Ready(gate.Name); !found || err != nil || ready.Name != gate.Name {
			t.Errorf("%s is not found by its name: %v", gate.Name, err)
		}
		if gate.Description == "" {
			t.Errorf("%s does not say what it is for", gate.Name)
		}
		roundTrip(t, gate)
	}
	day, _, err := Ready("gameday")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range FaultKinds {
		if kind == GPUThrottle.Name {
			continue // it needs a GPU whose settings may be changed, and the game day is played everywhere
		}
		if !slices.ContainsFunc(day.Scenarios[0].Faults, func(f Fault) bool { return f.Kind == kind }) {
			t.Errorf("the game day does not play %s", kind)
		}
	}
	if _, found, _ := Ready("../gates/quick"); found {
		t.Error("a path is not a name")
	}
}

// roundTrip writes a gate and reads it back.
func roundTrip(t *testing.T, gate Gate) {
	t.Helper()
	src, err := Marshal(gate)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Parse("gate.yaml", src)
	if err != nil {
		t.Fatalf("%v\n%s", err, src)
	}
	if !reflect.DeepEqual(gate, back) {
		t.Errorf("got  %+v\nwant %+v\nfrom\n%s", back, gate, src)
	}
}

// The quick gate must be able to prove its objectives: a p95 takes 130 samples
// at 99 % confidence, and its load must fit into two minutes.
func TestTheQuickGateCanPass(t *testing.T) {
	gate, _, err := Ready("quick")
	if err != nil {
		t.Fatal(err)
	}
	var length time.Duration
	for _, s := range gate.Scenarios {
		length += s.Duration()
	}
	if length > 80*time.Second {
		t.Errorf("its load takes %v, which leaves too little of two minutes to deploy and judge", length)
	}
	for _, o := range gate.Objectives {
		i := slices.IndexFunc(gate.Scenarios, func(s Scenario) bool { return s.Name == o.Scenario })
		// Three standard deviations of Poisson arrivals below the mean.
		if o.Quantile == 0.95 && gate.Scenarios[i].offered() < 130+3*12 {
			t.Errorf("%s: only %.0f requests", o.Source, gate.Scenarios[i].offered())
		}
	}
}

func TestTheStarterIsAGate(t *testing.T) {
	src := Starter("my.schema.json")
	if !bytes.HasPrefix(src, []byte("# yaml-language-server: $schema=my.schema.json\n")) {
		t.Errorf("editors find no schema in %.80s", src)
	}
	gate, err := Parse("gate.yaml", src)
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, gate)
}

func TestDefaultPromptsAreVaried(t *testing.T) {
	prompts := DefaultPrompts()
	sorted := slices.Sorted(slices.Values(prompts))
	if len(prompts) < 40 || len(slices.Compact(sorted)) != len(prompts) {
		t.Errorf("%d prompts, of which %d differ", len(prompts), len(slices.Compact(sorted)))
	}
	prompts[0] = "changed"
	if DefaultPrompts()[0] == "changed" {
		t.Error("a caller can change the default prompts")
	}
}

// For any file Parse ends, and its errors name the line. An accepted gate can
// be written and read again.
func FuzzParse(f *testing.F) {
	for _, file := range []string{"gates/quick.yaml", "starter.yaml"} {
		src, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	bad, err := filepath.Glob("testdata/bad/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range bad {
		src, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		if len(src) < 4000 {
			f.Add(src)
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		gate, err := Parse("gate.yaml", src)
		if err == nil {
			roundTrip(t, gate)
			return
		}
		var problems Problems
		if !errors.As(err, &problems) || len(problems) == 0 {
			t.Fatalf("not Problems: %v", err)
		}
		for _, p := range problems {
			if p.File == "" || p.Text == "" || (p.Line == 0 && len(src) <= maxSource) {
				t.Errorf("a problem without a place: %+v", p)
			}
		}
	})
}

// Any text can be a prompt, a header or a description, and is unchanged when it
// is read back.
func FuzzMarshal(f *testing.F) {
	for _, s := range []string{"hello", "true", "~", "- a", "? b", "a: b", "a #b", "8/s", "1.5", " lead", "trail ", "tab\t", "two\nlines\n",
		"'quoted'", `"double"`, `back\slash`, "", "é\u0085\u2028\ufeff", "\a\b\x1b\x7f", "0x10", "1e3", "<<", "*a", "&a", "!t", "%", "@", "`", "no", "a,b", "[a]", "{a}", "😀"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.TrimSpace(s) == "" || s != strings.ToValidUTF8(s, "") {
			t.Skip("no prompt")
		}
		gate := Gate{
			Name: "g", Description: s, Target: Target{Endpoint: &Endpoint{URL: "http://127.0.0.1:1", Model: s, Headers: map[string]string{"X-A": strings.NewReplacer("\n", "", "\r", "", "\x00", "").Replace(s)}}},
			Scenarios: []Scenario{{Name: "s", Workload: Workload{Prompts: []string{s, "b", s}, System: s},
				Stages: []Stage{{Name: "m", For: 1e9, Rate: 1}}}},
			Objectives: []Objective{{Source: "error_rate  <= 5%", Metric: "error_rate", Op: "<=", Threshold: 0.05, Unit: UnitRatio}},
		}.Resolved()
		if err := Validate(gate); err != nil {
			t.Skip(err)
		}
		roundTrip(t, gate)
	})
}

// An objective about alerts names a scenario, or the fault of one.
func TestAlertsInAKindOfFault(t *testing.T) {
	gate, err := Parse("gate.yaml", []byte(`{name: g, target: {local: {}}, objectives: [alert(ReplicaDown) in node-loss within 1m, alerts in node-loss <= 1],
  scenarios: [{name: calm, stages: [{name: m, for: 5s, rate: 1/s}]},
    {name: storm, stages: [{name: m, for: 5s, rate: 1/s}], faults: [{kind: node-loss, at: 1s, for: 1s}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range gate.Objectives {
		if o.Scenario != "storm" {
			t.Errorf("%s is about %q", o.Source, o.Scenario)
		}
	}
	if o := gate.Objectives[0]; o.Op != "<=" || o.Threshold != 60 {
		t.Errorf("%+v", o)
	}
	roundTrip(t, gate)
	if _, err := ParseObjective("p95(ttft) in s within 2s"); err == nil {
		t.Error("within is for alerts")
	}
}

func TestMarshalRefusesWhatIsNotUTF8(t *testing.T) {
	if _, err := Marshal(Gate{Name: "\xff"}); err == nil {
		t.Error("no error")
	}
}

// An objective is written in the form in which it is read.
func TestObjectivesAreWrittenAsTheyAreRead(t *testing.T) {
	for _, src := range []string{
		"p95(ttft) <= 2s", "p99.9(tpot) of chat in s/m < 50ms", "error_rate in s during pod-kill <= 5%", "errors during network-loss == 0",
		"max(latency) of chat in s/m outside faults <= 10s", "attainment outside faults >= 90%", "lost_writes in s == 0 where supported", "rto(pod-kill) in s < 5m", "drift(ttft) <= 150%",
		"p50(ttft) of cached in s <= 50% of that of fresh", "p95(ttft) in burst <= 150% of that in steady/main", "output_tokens_per_second in many >= 200% of that in one",
		"p95(tpot) of a in s/m outside faults < 90% of that of b in t",
	} {
		o, err := ParseObjective(src)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if o.String() != src {
			t.Errorf("%s is written as %s", src, o)
		}
	}
}
