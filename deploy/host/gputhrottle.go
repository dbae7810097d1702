package host

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/deploy/gpu"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// powered is what gpu-throttle needs of the library that controls GPUs.
type powered interface {
	Limits(uuid string) (gpu.Limits, error)
	LimitPower(uuid string, watts float64) error
	Close()
}

// openGPUs opens that library. Tests put a fake in its place.
var openGPUs = func() (powered, error) { return gpu.Open() }

// canThrottle is why no GPU of this machine can be throttled.
func canThrottle() error {
	if err := withGPUs(func(powered) error { return nil }); err != nil {
		return lack("no GPU can be throttled: %s", words.Of(err))
	}
	return nil
}

// ThrottleDevice lowers the power limit of the GPU of a replica. Without a victim it is
// the GPU through whose replicas most streams run.
func (l *Local) ThrottleDevice(ctx context.Context, v deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
	device, err := l.deviceOf(ctx, v)
	if err != nil {
		return nil, err
	}
	seats := l.About().Seating.Seats
	i := slices.IndexFunc(seats, func(s deploy.Seat) bool { return s.Device == device && s.GPU != nil })
	if i < 0 {
		return nil, lack("its replicas do not compute on a GPU that NVML knows (devices: %s)", device)
	}
	return newThrottle(v.Replica, device, seats[i].GPU.UUID, f.Power)
}

// throttle is a GPU whose power limit is lowered.
type throttle struct {
	victim, device, uuid string
	before, after        float64 // watts
}

// newThrottle checks that the limit may be changed, by setting it to what it is.
func newThrottle(victim, device, uuid string, share scenarios.Share) (*throttle, error) {
	t := &throttle{victim: victim, device: device, uuid: uuid}
	return t, withGPUs(func(lib powered) error {
		limits, err := lib.Limits(uuid)
		if err != nil {
			return err
		}
		if limits.Power == 0 {
			return lack("%s does not tell its power limit", deviceSaid(device))
		}
		t.before, t.after = limits.Power, math.Round(float64(share)*limits.Power)
		if t.after < limits.Least {
			return words.Errorf("%s accepts no power limit below %s, which is %s of the present one, and the fault is to leave %s: set power to more", deviceSaid(device), watts(limits.Least), percentOf(limits.Least, limits.Power), share.String())
		}
		err = lib.LimitPower(uuid, limits.Power)
		if refused := new(gpu.Refused); errors.As(err, refused) {
			return lack("%s", words.Of(refused.Why))
		}
		return err
	})
}

// withGPUs opens the library for a while.
func withGPUs(do func(powered) error) error {
	lib, err := openGPUs()
	if err != nil {
		return err
	}
	defer lib.Close()
	return do(lib)
}

// Victim is the replica whose GPU it is, where one was chosen.
func (t *throttle) Victim() string { return t.victim }

// Undo sets the limit to what it was. The driver forgets its limits when it is loaded.
func (t *throttle) Undo() []deploy.Undo {
	u := undoing(undoPower, object{Path: t.uuid, Watts: t.before})
	u.UntilReboot = true
	return []deploy.Undo{u}
}

func (t *throttle) Inject(context.Context) (sight, error) {
	err := withGPUs(func(lib powered) error { return lib.LimitPower(t.uuid, t.after) })
	return sight{How: words.Say("the power limit of %s is set from %s to %s", deviceSaid(t.device), watts(t.before), watts(t.after))}, err
}

// overshoot is how far above its limit a GPU may draw for a moment.
const overshoot = 1.1

func (t *throttle) SeeInEffect(ctx context.Context) (sight, error) {
	return t.see(ctx, func(l gpu.Limits) bool { return near(l.Power, t.after) && l.Drawn <= overshoot*l.Power })
}

func (t *throttle) Revert(context.Context) (sight, error) {
	err := withGPUs(func(lib powered) error { return lib.LimitPower(t.uuid, t.before) })
	return sight{How: words.Say("the power limit of %s is set to %s again", deviceSaid(t.device), watts(t.before))}, err
}

func (t *throttle) SeeGone(ctx context.Context) (sight, error) {
	return t.see(ctx, func(l gpu.Limits) bool { return near(l.Power, t.before) })
}

// see reads the GPU until it is as expected.
func (t *throttle) see(ctx context.Context, is func(gpu.Limits) bool) (seen sight, err error) {
	err = withGPUs(func(lib powered) error {
		seen, err = until(ctx, 100*time.Millisecond, func() (words.Sentence, bool) {
			l, err := lib.Limits(t.uuid)
			return words.Say("NVML reports a power limit of %s, and %s drawn", watts(l.Power), watts(l.Drawn)), err == nil && is(l)
		})
		return err
	})
	return seen, err
}

// near allows for limits that the driver rounds.
func near(a, b float64) bool { return math.Abs(a-b) <= 1 }

func watts(w float64) string { return fmt.Sprintf("%.0f W", w) }

func percentOf(part, whole float64) string { return fmt.Sprintf("%.0f%%", math.Ceil(100*part/whole)) }

// restorePower sets the power limit of a GPU to what it was before a fault.
func restorePower(uuid string, before float64) error {
	if err := withGPUs(func(lib powered) error { return lib.LimitPower(uuid, before) }); err != nil {
		return words.Errorf("undo: set the power limit of the GPU %s to %s: %s", uuid, watts(before), err)
	}
	return nil
}
