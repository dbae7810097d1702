//go:build linux && cgo

package gpu

import (
	"math"
	"slices"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/launchgate/launchgate/internal/words"
)

// device is the device with that UUID.
func (l *Library) device(uuid string) (nvml.Device, error) {
	i := slices.Index(l.uuids, uuid)
	if i < 0 {
		return nil, words.Errorf("no GPU of this machine is %q", uuid)
	}
	return l.devices[i], nil
}

// Limits reads the power limit of a GPU.
func (l *Library) Limits(uuid string) (limits Limits, err error) {
	d, err := l.device(uuid)
	if err != nil {
		return limits, err
	}
	if now, ret := d.GetPowerManagementLimit(); ret == nvml.SUCCESS {
		limits.Power = float64(now) / 1000
	}
	if least, _, ret := d.GetPowerManagementLimitConstraints(); ret == nvml.SUCCESS {
		limits.Least = float64(least) / 1000
	}
	if drawn, ret := d.GetPowerUsage(); ret == nvml.SUCCESS {
		limits.Drawn = float64(drawn) / 1000
	}
	return limits, nil
}

// LimitPower sets the power limit of a GPU. The error is a Refused if the driver does not
// let this program do that.
func (l *Library) LimitPower(uuid string, watts float64) error {
	d, err := l.device(uuid)
	if err != nil {
		return err
	}
	switch ret := d.SetPowerManagementLimit(uint32(math.Round(watts * 1000))); ret {
	case nvml.SUCCESS:
		return nil
	case nvml.ERROR_NO_PERMISSION, nvml.ERROR_NOT_SUPPORTED:
		return Refused{words.Errorf("the driver does not let this program set the power limit of the GPU: %s", ret.Error())}
	default:
		return words.Errorf("the power limit of the GPU cannot be set to %g W: %s", watts, ret.Error())
	}
}
