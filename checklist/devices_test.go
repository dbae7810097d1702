package checklist

import (
	"slices"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

func TestWhatAGPUDidInARun(t *testing.T) {
	at := func(s float64, name, subject string, v float64, names ...string) recording.Observation {
		return recording.Observation{At: time.Duration(s * float64(time.Second)), Name: name, Subject: subject, Value: v, Names: names}
	}
	e := &evidence{rec: &recording.Recording{
		Environment: recording.Environment{Host: recording.Host{GPUs: []recording.GPU{{Index: 1, UUID: "GPU-b"}}}},
		Observations: []recording.Observation{
			at(1, recording.ObsPower, "GPU-b", 9000), // before the load
			at(2, recording.ObsScenarioStarted, "steady", 0),
			at(2, recording.ObsHeldBack, "GPU-b", 0),
			at(3, recording.ObsPower, "GPU-b", 300), at(4, recording.ObsPower, "GPU-b", 500),
			at(3, recording.ObsUtilisation, "GPU-b", 0.5), at(4, recording.ObsUtilisation, "GPU-b", 1),
			at(3, recording.ObsClock, "GPU-b", 1980), at(4, recording.ObsClock, "GPU-b", 1200),
			at(3, recording.ObsECCErrors, "GPU-b", 7), at(4, recording.ObsECCErrors, "GPU-b", 9),
			at(5, recording.ObsHeldBack, "GPU-b", 1, "power limit"),
			at(7, recording.ObsHeldBack, "GPU-b", 1, "power limit", "temperature"),
			at(8, recording.ObsHeldBack, "GPU-b", 0),
			at(9, recording.ObsXid, "GPU-b", 79),
			at(11, recording.ObsHeldBack, "GPU-b", 1, "power limit"),
			at(5, recording.ObsDeviceMemory, "cpu", 1<<30), // what servers share on the CPU is no GPU
			at(12, recording.ObsScenarioEnded, "steady", 0),
		},
	}}
	all := e.devices()
	if len(all) != 1 {
		t.Fatalf("found %+v, expected one GPU", all)
	}
	d := all[0]
	if d.Name != "GPU 1" || d.Seconds != 10 || d.PowerMean != 400 || d.PowerMax != 500 || d.UtilisationMean != 0.75 || d.ClockMin != 1200 || d.ClockMax != 1980 ||
		d.HeldSeconds != 4 || !slices.Equal(d.HeldBy, []string{"power limit", "temperature"}) || !slices.Equal(d.Xids, []int{79}) || d.ECCErrors != 2 {
		t.Errorf("found %+v", d)
	}
	var said []string
	for _, s := range deviceWarnings(all) {
		said = append(said, s.String())
	}
	want := []string{
		"The clocks of GPU 1 were held back for 4.0 of 10.0 s (power limit, temperature): it was slower than it can be.",
		"The driver of GPU 1 reported the error Xid 79 during the run; NVIDIA's list of Xid errors says what it means.",
		"GPU 1 had 2 uncorrected memory errors during the run.",
	}
	if !slices.Equal(said, want) {
		t.Errorf("found %q", said)
	}
}

// Clocks that are held back already when the load begins are held back in it, and a
// device that does not report it is not known to run freely.
func TestClocksThatWereHeldBackBefore(t *testing.T) {
	at := func(s time.Duration, name, subject string, v float64, names ...string) recording.Observation {
		return recording.Observation{At: s * time.Second, Name: name, Subject: subject, Value: v, Names: names}
	}
	e := &evidence{rec: &recording.Recording{Observations: []recording.Observation{
		at(0, recording.ObsHeldBack, "GPU-a", 1, "temperature"),
		at(1, recording.ObsHeldBack, "GPU-a", 1, "power limit"),
		at(2, recording.ObsScenarioStarted, "steady", 0),
		at(3, recording.ObsPower, "GPU-a", 300), at(3, recording.ObsPower, "GPU-b", 300),
		at(12, recording.ObsScenarioEnded, "steady", 0),
	}}}
	all := e.devices()
	if len(all) != 2 {
		t.Fatalf("found %+v, expected two GPUs", all)
	}
	if d := all[0]; !d.HeldKnown || d.HeldSeconds != 10 || !slices.Equal(d.HeldBy, []string{"power limit"}) {
		t.Errorf("found %+v", d)
	}
	if d := all[1]; d.HeldKnown || d.HeldSeconds != 0 {
		t.Errorf("found %+v", d)
	}
}
