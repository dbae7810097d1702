//go:build linux && cgo

package host

import (
	"context"
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/deploy/gpu"
	"github.com/launchgate/launchgate/scenarios"
)

// capped is a target with one replica on GPU 2 of a machine of eight.
type capped struct {
	bare
	uuid string
}

func (capped) Replicas() []deploy.Replica {
	return []deploy.Replica{{Name: "replica-0", Device: "cuda:2"}}
}
func (capped) InFlight(context.Context) (map[string]int, error) {
	return map[string]int{"replica-0": 1}, nil
}
func (capped) Serving(context.Context, string) bool { return true }
func (c capped) ThrottleDevice(_ context.Context, v deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
	return newThrottle(v.Replica, "cuda:2", c.uuid, f.Power)
}

// fakeGPUs puts eight H100 of 700 W in the place of NVML, of which each draws as much as
// it may. It returns the limits, and what the driver answers to a new one.
func fakeGPUs(t *testing.T) (limits *[8]atomic.Uint32, answer *nvml.Return, uuid string) {
	t.Helper()
	limits, answer = new([8]atomic.Uint32), new(nvml.Return)
	machine := dgxh100.New()
	for i, device := range machine.Devices {
		d := device.(*server.Device)
		limits[i].Store(700_000)
		d.GetPowerManagementLimitFunc = func() (uint32, nvml.Return) { return limits[i].Load(), nvml.SUCCESS }
		d.GetPowerManagementLimitConstraintsFunc = func() (uint32, uint32, nvml.Return) { return 200_000, 700_000, nvml.SUCCESS }
		d.GetPowerUsageFunc = func() (uint32, nvml.Return) { return limits[i].Load(), nvml.SUCCESS }
		d.SetPowerManagementLimitFunc = func(to uint32) nvml.Return {
			if *answer == nvml.SUCCESS {
				limits[i].Store(to)
			}
			return *answer
		}
	}
	uuid, _ = machine.Devices[2].GetUUID()
	earlier := openGPUs
	openGPUs = func() (powered, error) { return gpu.OpenOn(machine) }
	t.Cleanup(func() { openGPUs = earlier })
	return limits, answer, uuid
}

func TestGPUThrottle(t *testing.T) {
	fault := scenarios.Fault{Kind: "gpu-throttle", Target: "replica-0", For: scenarios.Duration(50 * time.Millisecond), Within: scenarios.Duration(10 * time.Second), Power: 0.5}
	for _, tt := range []struct {
		name   string
		answer nvml.Return
		power  scenarios.Share
		states string
		state  string
		says   string
	}{
		{"allowed", nvml.SUCCESS, 0.5, "declared injected in_effect held reverted gone", "in_effect", "NVML reports a power limit of 350 W, and 350 W drawn"},
		{"not allowed", nvml.ERROR_NO_PERMISSION, 0.5, "declared failed", "failed", "the driver does not let this program set the power limit of the GPU"},
		{"less than the GPU accepts", nvml.SUCCESS, 0.2, "declared failed", "failed", "GPU 2 accepts no power limit below 200 W, which is 29% of the present one, and the fault is to leave 20%"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			limits, answer, uuid := fakeGPUs(t)
			*answer, fault.Power = tt.answer, tt.power
			lines := play(t.Context(), journal(t), capped{uuid: uuid}, fault)
			if got := states(lines); got != tt.states || !strings.Contains(text(lines, tt.state), tt.says) {
				t.Errorf("states %q, %s says %q; want %q and %q", got, tt.state, text(lines, tt.state), tt.states, tt.says)
			}
			for i := range limits {
				if got := limits[i].Load(); got != 700_000 {
					t.Errorf("GPU %d has a limit of %d mW afterwards, expected 700000", i, got)
				}
			}
		})
	}
}

// What the journal holds restores the limit, and only of that GPU, if the harness dies.
func TestAThrottledGPUIsRestoredFromTheJournal(t *testing.T) {
	limits, _, uuid := fakeGPUs(t)
	limits[2].Store(600_000) // somebody's own limit
	throttled, err := newThrottle("replica-0", "cuda:2", uuid, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	line, err := json.Marshal(throttled.Undo()[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := throttled.Inject(t.Context()); err != nil || limits[2].Load() != 300_000 || limits[3].Load() != 700_000 {
		t.Fatalf("%v, limits of %d and %d mW; expected 300000 and 700000", err, limits[2].Load(), limits[3].Load())
	}
	var undo deploy.Undo
	if err := json.Unmarshal(line, &undo); err != nil || !undo.UntilReboot {
		t.Fatalf("%v %+v, expected an undo until the next boot", err, undo)
	}
	for range 2 { // it may be undone twice
		if err := Undo(undo); err != nil || limits[2].Load() != 600_000 {
			t.Errorf("%v, a limit of %d mW; expected 600000", err, limits[2].Load())
		}
	}
}
