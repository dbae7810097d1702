//go:build linux && cgo

package gpu

import (
	"slices"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
)

// fake is a machine of eight H100, of which GPU 3 is throttled and has had an error.
func fake(t *testing.T) *Library {
	t.Helper()
	machine := dgxh100.New()
	waiting := true
	machine.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) {
		return &mock.EventSet{
			FreeFunc: func() nvml.Return { return nvml.SUCCESS },
			WaitFunc: func(uint32) (nvml.EventData, nvml.Return) {
				if !waiting {
					return nvml.EventData{}, nvml.ERROR_TIMEOUT
				}
				waiting = false
				return nvml.EventData{Device: machine.Devices[3], EventType: nvml.EventTypeXidCriticalError, EventData: 79}, nvml.SUCCESS
			},
		}, nvml.SUCCESS
	}
	for i, device := range machine.Devices {
		d := device.(*server.Device)
		d.GetEnforcedPowerLimitFunc = func() (uint32, nvml.Return) { return 700_000, nvml.SUCCESS }
		d.GetMaxClockInfoFunc = func(nvml.ClockType) (uint32, nvml.Return) { return 1980, nvml.SUCCESS }
		d.GetEccModeFunc = func() (nvml.EnableState, nvml.EnableState, nvml.Return) {
			return nvml.FEATURE_ENABLED, nvml.FEATURE_ENABLED, nvml.SUCCESS
		}
		d.GetNvLinkStateFunc = func(link int) (nvml.EnableState, nvml.Return) {
			if link < 18 {
				return nvml.FEATURE_ENABLED, nvml.SUCCESS
			}
			return 0, nvml.ERROR_INVALID_ARGUMENT
		}
		d.GetPowerUsageFunc = func() (uint32, nvml.Return) { return 350_500, nvml.SUCCESS }
		d.GetTotalEnergyConsumptionFunc = func() (uint64, nvml.Return) { return 0, nvml.ERROR_NOT_SUPPORTED }
		d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{Gpu: 87}, nvml.SUCCESS }
		d.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { return 61, nvml.SUCCESS }
		d.GetClockInfoFunc = func(nvml.ClockType) (uint32, nvml.Return) { return 1410, nvml.SUCCESS }
		d.GetTotalEccErrorsFunc = func(nvml.MemoryErrorType, nvml.EccCounterType) (uint64, nvml.Return) { return 0, nvml.SUCCESS }
		d.GetCurrentClocksEventReasonsFunc = func() (uint64, nvml.Return) {
			if i == 3 {
				return nvml.ClocksEventReasonSwPowerCap | nvml.ClocksThrottleReasonHwThermalSlowdown, nvml.SUCCESS
			}
			return nvml.ClocksEventReasonGpuIdle, nvml.SUCCESS
		}
		d.RegisterEventsFunc = func(uint64, nvml.EventSet) nvml.Return { return nvml.SUCCESS }
	}
	l, err := OpenOn(machine)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func TestEightGPUs(t *testing.T) {
	t.Setenv(VisibleVariable, "6,2")
	l := fake(t)
	all, err := l.List()
	if err != nil || len(all) != 8 {
		t.Fatalf("found %d GPUs and %v, expected 8", len(all), err)
	}
	g := all[2]
	if g.Index != 2 || g.CUDA != 1 || all[6].CUDA != 0 || all[0].CUDA != -1 {
		t.Errorf("found the CUDA numbers %d, %d and %d, expected 1, 0 and -1 as %s says", g.CUDA, all[6].CUDA, all[0].CUDA, VisibleVariable)
	}
	if g.Total == 0 || g.UUID == "" || g.Driver != "550.54.15" || g.CUDAOf != "12.4" || g.PowerLimit != 700 || g.SMClock != 1980 || g.ECC != On || g.MIG != Off || g.NVLinks != 18 {
		t.Errorf("found %+v", g)
	}
}

func TestReading(t *testing.T) {
	l := fake(t)
	l.Watch()
	all := l.Read()
	r := all[3]
	if r.Values[Power] != 350.5 || r.Values[Utilisation] != 0.87 || r.Values[Temperature] != 61 || r.Values[Clock] != 1410 {
		t.Errorf("found %v", r.Values)
	}
	if _, told := r.Values[Energy]; told {
		t.Error("energy that is not told has a value")
	}
	if !slices.Equal(r.Held, []string{"power limit", "hardware temperature"}) || !slices.Equal(r.Xids, []uint64{79}) {
		t.Errorf("found the reasons %q and the errors %v", r.Held, r.Xids)
	}
	if len(all[0].Held) > 0 || len(all[0].Xids) > 0 || !all[0].HeldKnown {
		t.Errorf("an idle GPU: %+v", all[0])
	}
	if again := l.Read()[3]; len(again.Xids) > 0 {
		t.Errorf("an error is told twice: %v", again.Xids)
	}
}

func TestVisible(t *testing.T) {
	gpus := []GPU{{Index: 0, UUID: "GPU-aa"}, {Index: 1, UUID: "GPU-bb"}, {Index: 2, UUID: "GPU-cc"}}
	for _, test := range []struct {
		variable string
		set      bool
		want     []int
	}{
		{"", false, []int{0, 1, 2}},
		{"", true, []int{-1, -1, -1}},
		{"-1", true, []int{-1, -1, -1}},
		{"2,0", true, []int{1, -1, 0}},
		{"GPU-b, 0", true, []int{1, 0, -1}},
		{"1,7,0", true, []int{-1, 0, -1}},
	} {
		all, err := visible(gpus, test.variable, test.set)
		if err != nil {
			t.Fatal(err)
		}
		for i, g := range all {
			if g.CUDA != test.want[i] {
				t.Errorf("%q: GPU %d is number %d for CUDA, expected %d", test.variable, i, g.CUDA, test.want[i])
			}
		}
	}
	if _, err := visible(gpus, "MIG-1", true); err == nil {
		t.Error("an instance of a partitioned GPU was taken for a GPU")
	}
}
