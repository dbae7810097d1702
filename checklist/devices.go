package checklist

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

// Device is what a GPU did from the start of the first scenario to the end of the last.
// What it did not report is 0.
type Device struct {
	Name            string   `json:"name"` // GPU 0, or its UUID if it is not of this machine
	Seconds         float64  `json:"seconds"`
	MemoryMax       float64  `json:"memory_max_bytes,omitempty"`
	PowerMean       float64  `json:"power_mean_watts,omitempty"`
	PowerMax        float64  `json:"power_max_watts,omitempty"`
	UtilisationMean float64  `json:"utilisation_mean_ratio,omitempty"`
	TemperatureMax  float64  `json:"temperature_max_celsius,omitempty"`
	ClockMin        float64  `json:"clock_min_mhz,omitempty"`
	ClockMax        float64  `json:"clock_max_mhz,omitempty"`
	HeldKnown       bool     `json:"held_back_known,omitempty"`   // whether it reported that its clocks were held back or not
	HeldSeconds     float64  `json:"held_back_seconds,omitempty"` // for which its clocks were held back
	HeldBy          []string `json:"held_back_by,omitempty"`
	Xids            []int    `json:"xids,omitempty"`       // errors that its driver reported
	ECCErrors       float64  `json:"ecc_errors,omitempty"` // uncorrected, during the run
}

// devices sums up what was observed of each GPU.
func (e *evidence) devices() (all []Device) {
	from, to := e.scenarioTime("")
	if n := len(e.rec.Observations); to == 0 && n > 0 { // a run that was cut short
		to = e.rec.Observations[n-1].At
	}
	seen := map[string][]recording.Observation{}
	var order []string
	for _, o := range e.rec.Observations {
		// That clocks are held back is observed when it begins, which may be earlier.
		if !slices.Contains(ofDevices, o.Name) || o.At < from && o.Name != recording.ObsHeldBack || o.At > to {
			continue
		}
		if seen[o.Subject] == nil {
			order = append(order, o.Subject)
		}
		seen[o.Subject] = append(seen[o.Subject], o)
	}
	for _, subject := range order {
		if d, ok := deviceOf(seen[subject], from, to); ok {
			d.Name = e.deviceName(subject)
			all = append(all, d)
		}
	}
	slices.SortStableFunc(all, func(a, b Device) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// ofDevices are the observations that only GPUs make, and the memory of all devices.
var ofDevices = []string{
	recording.ObsDeviceMemory, recording.ObsPower, recording.ObsUtilisation, recording.ObsTemperature, recording.ObsClock,
	recording.ObsECCErrors, recording.ObsHeldBack, recording.ObsXid,
}

// deviceOf is false for a device of which nothing but its memory is known, such as the
// memory that servers share on the CPU.
func deviceOf(seen []recording.Observation, from, to time.Duration) (d Device, ok bool) {
	var power, utilisation, ecc []float64
	var held recording.Observation // the last one
	heldUntil := func(end time.Duration) {
		if held.Value == 0 || end <= held.At {
			return
		}
		d.HeldSeconds += (end - held.At).Seconds()
		for _, by := range held.Names {
			if !slices.Contains(d.HeldBy, by) {
				d.HeldBy = append(d.HeldBy, by)
			}
		}
	}
	for _, o := range seen {
		ok = ok || o.Name != recording.ObsDeviceMemory
		switch o.Name {
		case recording.ObsDeviceMemory:
			d.MemoryMax = max(d.MemoryMax, o.Value)
		case recording.ObsPower:
			power = append(power, o.Value)
		case recording.ObsUtilisation:
			utilisation = append(utilisation, o.Value)
		case recording.ObsTemperature:
			d.TemperatureMax = max(d.TemperatureMax, o.Value)
		case recording.ObsClock:
			if d.ClockMin == 0 || o.Value < d.ClockMin {
				d.ClockMin = o.Value
			}
			d.ClockMax = max(d.ClockMax, o.Value)
		case recording.ObsECCErrors:
			ecc = append(ecc, o.Value)
		case recording.ObsXid:
			d.Xids = append(d.Xids, int(o.Value))
		case recording.ObsHeldBack:
			o.At = max(o.At, from)
			heldUntil(o.At)
			held, d.HeldKnown = o, true
		}
	}
	heldUntil(to)
	d.Seconds = (to - from).Seconds()
	if len(power) > 0 {
		d.PowerMean, d.PowerMax = mean(power), slices.Max(power)
	}
	if len(utilisation) > 0 {
		d.UtilisationMean = mean(utilisation)
	}
	if len(ecc) > 0 {
		d.ECCErrors = max(0, ecc[len(ecc)-1]-ecc[0])
	}
	return d, ok
}

func (e *evidence) deviceName(subject string) string {
	for _, g := range e.rec.Environment.Host.GPUs {
		if g.UUID == subject {
			return "GPU " + strconv.Itoa(g.Index)
		}
	}
	return subject
}

// deviceWarnings say what happened to a GPU that makes the figures of the run doubtful.
func deviceWarnings(devices []Device) (said []words.Sentence) {
	for _, d := range devices {
		if d.HeldSeconds >= 0.05*d.Seconds && d.HeldSeconds > 0 {
			said = append(said, words.Say("The clocks of %s were held back for %.1f of %.1f s (%s): it was slower than it can be.", d.Name, d.HeldSeconds, d.Seconds, strings.Join(d.HeldBy, ", ")))
		}
		for _, n := range d.Xids {
			said = append(said, words.Say("The driver of %s reported the error Xid %d during the run; NVIDIA's list of Xid errors says what it means.", d.Name, n))
		}
		if d.ECCErrors > 0 {
			said = append(said, words.Say("%s had %d uncorrected memory errors during the run.", d.Name, int(d.ECCErrors)))
		}
	}
	return said
}
