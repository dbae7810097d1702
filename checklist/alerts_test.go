package checklist

import (
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

func TestAlerts(t *testing.T) {
	watched := recording.Observation{Name: recording.ObsMonitoring, Value: 1, Text: words.Verbatim("HighErrorRate, ReplicaDown")}
	alert := func(name string, from, to time.Duration) []recording.Observation {
		return []recording.Observation{{At: from, Name: recording.ObsAlert, Subject: name, Value: 1}, {At: to, Name: recording.ObsAlert, Subject: name, Value: 0}}
	}
	all := func(lists ...[]recording.Observation) (seen []recording.Observation) {
		for _, l := range lists {
			seen = append(seen, l...)
		}
		return seen
	}
	yes := []recording.Observation{watched}
	listed := []recording.Observation{{Name: recording.ObsMonitoring, Value: 1, Names: []string{"HighErrorRate", "Down, or nearly"}}}
	for _, tt := range []struct {
		says, objective string
		seen            []recording.Observation
		want            Outcome
		why             string
	}{
		{"the right one, in time", "alert(ReplicaDown) in steady <= 3s", all(yes, alert("ReplicaDown", inEffectAt+2*time.Second, goneAt)), Pass, "it is 2 s"},
		{"the right one, late", "alert(ReplicaDown) in steady <= 1s", all(yes, alert("ReplicaDown", inEffectAt+2*time.Second, goneAt)), Fail, "it is 2 s"},
		{"never", "alert(ReplicaDown) in steady <= 3s", yes, Fail, "had not fired"},
		{"never, but nobody waited", "alert(ReplicaDown) in steady <= 1m", yes, Unproven, "play it for longer"},
		{"another one", "alert(ReplicaDown) in steady <= 3s", all(yes, alert("HighErrorRate", inEffectAt+time.Second, goneAt)), Fail, "had not fired"},
		{"it fired already", "alert(ReplicaDown) in steady <= 3s", all(yes, alert("ReplicaDown", stageFrom, stageTo)), Fail, "had already fired before"},
		{"it had fired, and does again", "alert(ReplicaDown) in steady <= 3s", all(yes, alert("ReplicaDown", time.Second, 2*time.Second), alert("ReplicaDown", inEffectAt+time.Second, goneAt)), Pass, "it is 1 s"},
		{"after the scenario", "alert(ReplicaDown) in steady <= 3s", all(yes, alert("ReplicaDown", stageTo+time.Second, stageTo+2*time.Second)), Fail, "had not fired"},
		{"no such rule", "alert(ReplicaGone) in steady <= 3s", yes, Unproven, "HighErrorRate, ReplicaDown"},
		{"one whose name has a comma", "alert(Down) in steady <= 3s", listed, Unproven, "HighErrorRate, Down, or nearly"},
		{"one of a list", "alert(HighErrorRate) in steady <= 3s", all(listed, alert("HighErrorRate", inEffectAt+2*time.Second, goneAt)), Pass, "it is 2 s"},
		{"nobody watched", "alert(ReplicaDown) in steady <= 3s", nil, Unproven, "only a target.local"},
		{"nobody could", "alert(ReplicaDown) in steady <= 3s", []recording.Observation{{Name: recording.ObsMonitoring, Text: words.Verbatim("there is no prometheus")}}, Unproven, "there is no prometheus"},
		{"no other", "alerts in steady <= 1", all(yes, alert("ReplicaDown", inEffectAt+time.Second, goneAt), alert("ReplicaDown", goneAt+time.Second, stageTo)), Pass, "ReplicaDown"},
		{"and another", "alerts in steady <= 1", all(yes, alert("ReplicaDown", inEffectAt, goneAt), alert("HighErrorRate", inEffectAt, goneAt)), Fail, "it is 2"},
		{"from before", "alerts in steady == 0", all(yes, alert("ReplicaDown", time.Second, stageTo)), Fail, "it is 1"},
		{"ended before", "alerts in steady == 0", all(yes, alert("ReplicaDown", time.Second, 2*time.Second)), Pass, "it is 0"},
	} {
		w := healthy(t, tt.objective).withFault()
		for _, o := range tt.seen {
			w.observe(o.At, o.Name, o.Subject, o.Value)
			last := &w.observations[len(w.observations)-1]
			last.Text, last.Names = o.Text, o.Names
		}
		f := w.judge(t).Objectives[0]
		if f.Verdict != tt.want || !strings.Contains(f.Why.String(), tt.why) {
			t.Errorf("%s: %s: %s; want %s with %q", tt.says, f.Verdict, f.Why, tt.want, tt.why)
		}
	}
	// The verdict lists the alerts that fired and their times, although no objective
	// asks for them.
	alerted := healthy(t, "error_rate <= 1%").withFault()
	alerted.observe(0, watched.Name, "", 1)
	alerted.observations[len(alerted.observations)-1].Text = watched.Text
	for _, o := range all(alert("HighErrorRate", time.Second, 2*time.Second), alert("ReplicaDown", inEffectAt+2*time.Second, goneAt)) {
		alerted.observe(o.At, o.Name, o.Subject, o.Value)
	}
	alerted.observe(stageTo-time.Second, recording.ObsAlert, "HighErrorRate", 1)
	v := alerted.judge(t)
	if len(v.Alerts) != 3 || v.Alerts[0].Fault != "" || *v.Alerts[0].EndedAt != 2 ||
		v.Alerts[1].Fault != "steady/0" || *v.Alerts[1].AfterSeconds != 2 || v.Alerts[1].FiredAt != (inEffectAt+2*time.Second).Seconds() ||
		v.Alerts[2].Name != "HighErrorRate" || v.Alerts[2].EndedAt != nil {
		t.Errorf("alerts are %+v", v.Alerts)
	}
	if v := healthy(t, "error_rate <= 1%").judge(t); v.Alerts != nil {
		t.Errorf("nobody watched, and alerts are %+v", v.Alerts)
	}
	// A fault that never took effect provokes no alert.
	w := healthy(t, "alert(ReplicaDown) in steady <= 3s").withFault()
	w.injections = w.injections[:1]
	w.observe(0, watched.Name, "", 1)
	w.observations[len(w.observations)-1].Text = watched.Text
	if f := w.judge(t).Objectives[0]; f.Verdict == Pass || f.Verdict == Fail {
		t.Errorf("%s: %s", f.Verdict, f.Why)
	}
}
