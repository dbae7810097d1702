//go:build linux

package loadgen_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/scenarios"
)

// The bounds that the documentation promises.
const (
	maxError   = time.Millisecond
	maxSendLag = time.Millisecond
	// quietEnough bounds the p99 by which a sleeping thread is woken late, on a machine
	// on which millisecond bounds can be tested.
	quietEnough = 300 * time.Microsecond
	rounds      = 3
)

// programs builds launchgate as users build it, and the golden server. The bounds do
// not apply to a client under the race detector.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "launchgate-accuracy-")
	if err != nil {
		return "", err
	}
	if out, err := exec.Command("go", "build", "-o", dir+"/", "../cmd/launchgate", "./golden").CombinedOutput(); err != nil {
		return dir, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, _ := programs(); dir != "" {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// golden is the server that records when it wrote what.
type golden struct{ url string }

func startGolden(t testing.TB, args ...string) golden {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(dir, "golden"), args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the golden server told no address: %v", err)
	}
	return golden{strings.TrimSpace(line)}
}

// written is what the server wrote since the last call.
type written struct {
	Streams []struct {
		ID      string  `json:"id"`
		Written []int64 `json:"written_ns"`
	} `json:"streams"`
	TimerP99 time.Duration `json:"timer_p99_ns"`
}

func (g golden) record(t testing.TB) (w written) {
	t.Helper()
	resp, err := http.Get(g.url + "/record")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&w); err != nil {
		t.Fatal(err)
	}
	return w
}

// load is a run against the golden server.
type load struct {
	tokens  int
	rate    int // requests a second
	seconds int
	flags   []string // of launchgate run
}

// play runs launchgate, through a wrapper if one is given, and reads its recording.
func (g golden) play(t testing.TB, l load, wrapper ...string) (scenarios.Gate, *recording.Recording, []recording.Request) {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	file, runDir := filepath.Join(work, "gate.yaml"), filepath.Join(work, "run")
	src := fmt.Sprintf(`name: accuracy
seed: 7
target: {endpoint: {url: %q}}
warmup: {requests: 16}
scenarios:
  - name: streams
    workload: {max_tokens: %d, ignore_eos: true}
    stages: [{name: main, for: %ds, rate: %d/s}]
objectives: ["error_rate in streams <= 1%%"]
`, g.url, l.tokens, l.seconds, l.rate)
	if err := os.WriteFile(file, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append(slices.Clone(wrapper), filepath.Join(dir, "launchgate"), "run", "--out", runDir)
	args = append(append(args, l.flags...), file)
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) { // the verdict is the exit code
		t.Fatalf("launchgate: %v\n%s", err, out)
	}
	rec, err := recording.Open(runDir)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	gate, problems := scenarios.Parse("gate.yaml", rec.Gate)
	if problems != nil {
		t.Fatal(problems)
	}
	var rows []recording.Request
	for row, err := range rec.Requests {
		if err != nil {
			t.Fatal(err)
		}
		if row.Kind == recording.KindLoad {
			rows = append(rows, row)
		}
	}
	return gate, rec, rows
}

// accuracy is how far a recording differs from what the server wrote.
type accuracy struct {
	streams, most          int // most at the same time
	ttft, icl, sendLag     []time.Duration
	timer                  time.Duration
	events                 int
	wrong                  []string // mismatches that are not about time
	clientCPU              float64  // seconds
	p99TTFT, p99ICL, p99La time.Duration
}

// compare compares what was recorded with what was written. Both processes take the
// wall clock at their start and add the monotonic clock.
func compare(l load, rec *recording.Recording, rows []recording.Request, w written) *accuracy {
	a := &accuracy{timer: w.TimerP99}
	wrote := map[string][]int64{}
	for _, s := range w.Streams {
		wrote[s.ID] = s.Written
	}
	start := rec.Environment.StartedAt.UnixNano()
	var edges []edge
	for _, r := range rows {
		if !r.OK() {
			a.wrong = append(a.wrong, r.Error+": "+r.ErrorText)
			continue
		}
		was := wrote[r.Replica]
		if len(r.Chunks) != l.tokens || int(r.OutputTokens) != l.tokens || len(was) != l.tokens {
			a.wrong = append(a.wrong, fmt.Sprintf("%s: %d chunks, %d tokens; %d were written, %d asked for", r.Replica, len(r.Chunks), r.OutputTokens, len(was), l.tokens))
			continue
		}
		a.streams++
		edges = append(edges, edge{r.Sent, 1}, edge{r.End, -1})
		a.sendLag = append(a.sendLag, r.Sent-r.Due)
		a.ttft = append(a.ttft, (time.Duration(start-was[0]) + r.FirstToken).Abs())
		for i := 1; i < l.tokens; i++ {
			a.icl = append(a.icl, (r.Chunks[i] - r.Chunks[i-1] - time.Duration(was[i]-was[i-1])).Abs())
		}
		a.events += l.tokens
	}
	slices.SortFunc(edges, func(a, b edge) int { return int(a.at - b.at) })
	open := 0
	for _, e := range edges {
		open += e.step
		a.most = max(a.most, open)
	}
	for _, o := range rec.Observations {
		if o.Name == recording.ObsClientCPU {
			a.clientCPU += o.Value // one observation a second
		}
	}
	a.p99TTFT, a.p99ICL, a.p99La = p99(a.ttft), p99(a.icl), p99(a.sendLag)
	return a
}

// edge is where a stream begins or ends.
type edge struct {
	at   time.Duration
	step int
}

func p99(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)*99/100]
}

func (a *accuracy) String() string {
	at := func(all []time.Duration, q float64) time.Duration {
		if len(all) == 0 {
			return 0
		}
		return all[int(q*float64(len(all)-1))]
	}
	return fmt.Sprintf("%d streams, %d at once, %d chunks; error of TTFT p50 %s p99 %s max %s, of ICL p50 %s p99 %s max %s; send lag p50 %s p99 %s; client %.2f s of CPU; a sleeping thread was woken %s late at p99",
		a.streams, a.most, a.events, at(a.ttft, 0.5), a.p99TTFT, at(a.ttft, 1), at(a.icl, 0.5), a.p99ICL, at(a.icl, 1), at(a.sendLag, 0.5), a.p99La, a.clientCPU, a.timer)
}

func (a *accuracy) holds() bool {
	return a.p99TTFT < maxError && a.p99ICL < maxError && a.p99La < maxSendLag
}

// TestAccuracy tests the documented bounds: with 1,000 streams at once the client's
// times are right within a millisecond at p99, its counts are exact, and it sends on
// time. Other work on the machine is not its fault: a run counts against the client
// only if a thread that only sleeps was woken on time meanwhile.
func TestAccuracy(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds and wants the machine to itself")
	}
	server := startGolden(t, "-first", "150ms", "-every", "100ms")
	l := load{tokens: 25, rate: 420, seconds: 5}
	quiet := false
	for round := 1; ; round++ {
		server.record(t)
		_, rec, rows := server.play(t, l)
		a := compare(l, rec, rows, server.record(t))
		t.Logf("round %d: %s", round, a)
		if len(a.wrong) > 0 {
			t.Fatalf("%d of %d requests are not what they should be, the first: %s", len(a.wrong), len(rows), a.wrong[0])
		}
		if a.most < 1000 {
			t.Fatalf("%d streams at once are fewer than 1000", a.most)
		}
		if a.holds() {
			return
		}
		quiet = quiet || a.timer <= quietEnough
		if round < rounds {
			continue
		}
		if !quiet {
			t.Skipf("the machine was not quiet in any of %d rounds: %s", rounds, a)
		}
		t.Fatalf("in none of %d rounds, not even on a quiet machine, did the bounds hold: %s of error, %s of send lag", rounds, maxError, maxSendLag)
	}
}

// The gaps of two workers are merged as those of one client: each counts once, and the
// p99 is that of all gaps, as the server recorded them.
func TestTwoWorkersTellTheGapsOfAll(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds and wants the machine to itself")
	}
	server := startGolden(t, "-first", "50ms", "-every", "14ms")
	l := load{tokens: 40, rate: 60, seconds: 4, flags: []string{"--workers", "2"}}
	for round := 1; ; round++ {
		server.record(t)
		gate, rec, rows := server.play(t, l)
		w := server.record(t)
		a := compare(l, rec, rows, w)
		if len(a.wrong) > 0 {
			t.Fatalf("%d of %d requests are not what they should be, the first: %s", len(a.wrong), len(rows), a.wrong[0])
		}
		wrote, asked := map[string][]int64{}, map[string]bool{}
		for _, s := range w.Streams {
			wrote[s.ID] = s.Written
		}
		var seen, sent []time.Duration
		for _, r := range rows {
			asked[r.Replica] = true
			r.EachGap(func(gap, _ time.Duration) { seen = append(seen, gap) })
			for i, at := range wrote[r.Replica][1:] {
				sent = append(sent, time.Duration(at-wrote[r.Replica][i]))
			}
		}
		verdict, err := checklist.Judge(gate, rec)
		if err != nil {
			t.Fatal(err)
		}
		icl := verdict.Scenarios[0].ICL
		if all := len(rows) * (l.tokens - 1); len(rows) < l.rate || len(asked) != len(rows) || len(seen) != all || len(sent) != all || icl.Samples != int64(all) {
			t.Fatalf("%d streams with %d gaps, %d written and %d judged, want %d of %d streams", len(asked), len(seen), len(sent), icl.Samples, all, len(rows))
		}
		slices.Sort(seen)
		reported, was := icl.P99, seen[(len(seen)*99+99)/100-1].Seconds()
		if reported < was || reported > was*1.0021 {
			t.Fatalf("the p99 is told as %.6f s, and that of all %d gaps is %.6f s", reported, len(seen), was)
		}
		off := time.Duration((reported - p99(sent).Seconds()) * 1e9).Abs()
		t.Logf("round %d: p99 of the gaps told %.3f ms, written %.3f ms; %s", round, reported*1e3, p99(sent).Seconds()*1e3, a)
		if off < maxError {
			return
		}
		if round == rounds {
			if a.timer > quietEnough {
				t.Skipf("the machine was not quiet: %s", a)
			}
			t.Fatalf("the p99 of the gaps is told %s off what the server wrote", off)
		}
	}
}

// BenchmarkAccuracy measures the accuracy for the same number of events, spread over
// more and more streams.
func BenchmarkAccuracy(b *testing.B) {
	for _, streams := range []int{1000, 5000, 10000} {
		b.Run(fmt.Sprint(streams), func(b *testing.B) {
			every := time.Duration(streams) * 50 * time.Microsecond // 20,000 events a second
			const tokens = 20
			server := startGolden(b, "-first", every.String(), "-every", every.String())
			life := every * tokens
			l := load{tokens: tokens, rate: int(float64(streams) * 1.1 / life.Seconds()), seconds: int(life.Seconds()*1.2) + 1}
			for b.Loop() {
				server.record(b)
				_, rec, rows := server.play(b, l)
				a := compare(l, rec, rows, server.record(b))
				if len(a.wrong) > 0 || a.most < streams {
					b.Fatalf("%d at once; wrong: %v", a.most, a.wrong[:min(3, len(a.wrong))])
				}
				b.Log(a)
				b.ReportMetric(float64(a.p99TTFT.Microseconds()), "TTFT-error-p99-µs")
				b.ReportMetric(float64(a.p99ICL.Microseconds()), "ICL-error-p99-µs")
				b.ReportMetric(float64(a.p99La.Microseconds()), "send-lag-p99-µs")
				b.ReportMetric(float64(a.timer.Microseconds()), "timer-p99-µs")
			}
		})
	}
}

// TestTooFewCores gives the client a tenth of a core, which is too little for the load.
// The run must be invalid, whatever the service did.
func TestTooFewCores(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	enter := quota(t, 10)
	server := startGolden(t, "-first", "150ms", "-every", "50ms")
	gate, rec, rows := server.play(t, load{tokens: 40, rate: 300, seconds: 5}, enter...)
	verdict, err := checklist.Judge(gate, rec)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d requests; %s: %s", len(rows), verdict.Verdict, verdict.Client.Why)
	if verdict.Verdict != checklist.Invalid || verdict.Client.Valid {
		t.Errorf("the verdict of a client with a tenth of a core is %s (client valid: %t), want %s", verdict.Verdict, verdict.Client.Valid, checklist.Invalid)
	}
}

// quota makes a control group with so many percent of one core, and returns a command
// that enters it.
func quota(t *testing.T, percent int) []string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a CPU quota takes root")
	}
	const period = 100000
	name := fmt.Sprintf("launchgate-test-%d", os.Getpid())
	for _, version := range []struct{ root, file, value string }{
		{"/sys/fs/cgroup", "cpu.max", fmt.Sprintf("%d %d", period*percent/100, period)},
		{"/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", fmt.Sprint(period * percent / 100)},
	} {
		dir := filepath.Join(version.root, name)
		if _, err := os.Stat(filepath.Join(version.root, "cgroup.procs")); err != nil || os.Mkdir(dir, 0o755) != nil {
			continue
		}
		limit, err := os.OpenFile(filepath.Join(dir, version.file), os.O_WRONLY, 0) // do not create the file
		if err == nil {
			_, err = limit.WriteString(version.value)
			limit.Close()
		}
		if err != nil {
			_ = os.Remove(dir) // this version of cgroups has no CPU controller here
			continue
		}
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil {
				t.Errorf("the control group stays behind: %v", err)
			}
		})
		return []string{"sh", "-c", `echo $$ > "$0" && exec "$@"`, filepath.Join(dir, "cgroup.procs")}
	}
	t.Skip("no CPU controller of control groups can be written here")
	return nil
}

// TestMemoryOfOpenStreams opens many streams that send nothing yet, and measures the
// memory of each in this process, with net/http's part and the waiting goroutine.
func TestMemoryOfOpenStreams(t *testing.T) {
	const streams, most = 2000, 64 << 10
	server := startGolden(t, "-first", "1h")
	c, err := client.New(client.Config{BaseURL: server.url, Model: "golden"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var open sync.WaitGroup
	defer open.Wait()
	defer cancel()
	p := client.Prompt{API: client.APIChat, Messages: []client.Message{{Role: "user", Content: "Hi"}}, MaxTokens: 256, Stream: true, Timeout: time.Hour}
	clock := recording.NewClock()
	before, rssBefore := inUse(), resident(t)
	for range streams {
		open.Go(func() { c.Do(ctx, p, clock, clock.Now()) })
	}
	for seen, deadline := 0, time.Now().Add(30*time.Second); seen < streams; time.Sleep(20 * time.Millisecond) {
		if seen += len(server.record(t).Streams); time.Now().After(deadline) {
			t.Fatalf("%d of %d streams were opened", seen, streams)
		}
	}
	time.Sleep(200 * time.Millisecond) // until the last streams have their headers
	each, rss := (inUse()-before)/streams, (resident(t)-rssBefore)/streams
	t.Logf("%d open streams take %.1f KiB each of heap and stacks; the process grew by %.1f KiB for each, garbage included", c.Connections(), float64(each)/1024, float64(rss)/1024)
	if n := c.Connections(); n < streams {
		t.Fatalf("%d connections are open, want %d", n, streams)
	}
	if each > most {
		t.Errorf("an open stream takes %d bytes, and %d are the most", each, most)
	}
}

// inUse are the bytes of heap and stacks in use after a collection.
func inUse() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapInuse + m.StackInuse)
}

// resident is the resident memory of this process in bytes.
func resident(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, pages int
	if _, err := fmt.Sscan(string(b), &size, &pages); err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
