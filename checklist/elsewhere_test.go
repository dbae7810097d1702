package checklist

import (
	"math"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// A fault of one GPU is noticed elsewhere by requests that replicas on other GPUs
// answered late or not at all. What the replicas of the struck GPU do does not count.
func TestNoticedElsewhere(t *testing.T) {
	two := []recording.GPU{{Replicas: []string{"replica-0", "replica-2"}}, {Replicas: []string{"replica-1"}}}
	met := func(replica string, n int, ok bool, response float64) []lifetime {
		all := make([]lifetime, n)
		for i := range all {
			all[i] = lifetime{replica: replica, ok: ok, response: response}
		}
		return all
	}
	calm := new(0.1)
	for _, tt := range []struct {
		name    string
		gpus    []recording.GPU
		target  string
		calm    *float64
		met     [][]lifetime
		verdict Outcome
		samples int64
		why     string
	}{
		{"nobody elsewhere", two, "replica-0", calm, [][]lifetime{met("replica-1", 200, true, 0.05), met("replica-0", 50, false, 0), met("replica-2", 50, true, 9)}, Pass, 200, ""},
		{"late elsewhere", two, "replica-0", calm, [][]lifetime{met("replica-1", 150, true, 0.05), met("replica-1", 50, true, 0.2)}, Fail, 200, ""},
		{"failed elsewhere", two, "replica-2", calm, [][]lifetime{met("replica-1", 150, true, 0.05), met("replica-1", 50, false, 0)}, Fail, 200, ""},
		{"failed, nobody knows where", two, "replica-0", calm, [][]lifetime{met("replica-1", 150, true, 0.05), met("", 50, false, 0)}, Fail, 200, ""},
		{"from the other side", two, "replica-1", calm, [][]lifetime{met("replica-1", 100, false, 0), met("replica-0", 100, true, 0.05), met("replica-2", 100, true, 0.05)}, Pass, 200, ""},
		{"too few", two, "replica-0", calm, [][]lifetime{met("replica-1", 5, true, 0.05)}, Unproven, 5, ""},
		{"none", two, "replica-0", calm, [][]lifetime{met("replica-0", 5, true, 0.05)}, Unproven, 0, "no request was answered by a replica on another GPU"},
		{"too few without the fault", two, "replica-0", nil, nil, Unproven, 0, "fewer than 100 requests met no fault"},
		{"one GPU", two[:1], "replica-0", calm, nil, Unproven, 0, "all replicas compute on the GPU of replica-0"},
		{"no GPU", nil, "replica-0", calm, nil, Unproven, 0, "replica-0 does not compute on a GPU"},
		{"no victim", two, "", calm, nil, Unproven, 0, "the fault names no replica"},
	} {
		objective, err := scenarios.ParseObjective("noticed_elsewhere(gpu-oom) <= 5%")
		if err != nil {
			t.Fatal(err)
		}
		e := &evidence{rec: &recording.Recording{Environment: recording.Environment{Host: recording.Host{GPUs: tt.gpus}}}}
		l := &faultLife{Fault: Fault{Target: tt.target, Blast: &Blast{SlowerThan: tt.calm}}, recovered: math.MaxInt64}
		for _, part := range tt.met {
			l.met = append(l.met, part...)
		}
		f := Finding{sure: scenarios.DefaultConfidence}
		f.elsewhere(objective, l, e)
		if f.Verdict != tt.verdict || f.Samples != tt.samples || !strings.Contains(f.Why.String(), tt.why) {
			t.Errorf("%s: %v from %d samples because %q, want %v from %d because %q", tt.name, f.Verdict, f.Samples, f.Why, tt.verdict, tt.samples, tt.why)
		}
	}
}
