//go:build linux && cgo

package gpu

import (
	"fmt"
	"os"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/launchgate/launchgate/internal/words"
)

// Library is NVML, opened.
type Library struct {
	lib     nvml.Interface
	devices []nvml.Device
	uuids   []string
	// errors tells the driver's errors of all devices; nil where it does not.
	errors nvml.EventSet
}

// Open opens the library of this machine's driver.
func Open() (*Library, error) { return OpenOn(nvml.New()) }

// OpenOn opens a library, which may be a fake.
func OpenOn(lib nvml.Interface) (*Library, error) {
	switch ret := lib.Init(); ret {
	case nvml.SUCCESS:
	case nvml.ERROR_LIBRARY_NOT_FOUND:
		return nil, words.Errorf("no NVIDIA driver is found (its management library NVML, libnvidia-ml.so.1, is missing)")
	default:
		return nil, words.Errorf("NVIDIA's management library (NVML): %s", ret.Error())
	}
	l := &Library{lib: lib}
	n, ret := lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		l.Close()
		return nil, words.Errorf("NVIDIA's management library (NVML) does not count its devices: %s", ret.Error())
	}
	for i := range n {
		d, ret := lib.DeviceGetHandleByIndex(i)
		if ret != nvml.SUCCESS {
			l.Close()
			return nil, words.Errorf("GPU %d cannot be read: %s", i, ret.Error())
		}
		uuid, _ := d.GetUUID()
		l.devices, l.uuids = append(l.devices, d), append(l.uuids, uuid)
	}
	return l, nil
}

// Watch has Read tell the driver's errors too, from now on.
func (l *Library) Watch() {
	set, ret := l.lib.EventSetCreate()
	if ret != nvml.SUCCESS {
		return
	}
	for _, d := range l.devices {
		if d.RegisterEvents(nvml.EventTypeXidCriticalError, set) == nvml.SUCCESS {
			l.errors = set
		}
	}
	if l.errors == nil {
		set.Free()
	}
}

// Close ends the use of the library.
func (l *Library) Close() {
	if l.errors != nil {
		l.errors.Free()
	}
	l.lib.Shutdown()
}

// List are the devices, in the order of the PCI bus.
func (l *Library) List() ([]GPU, error) {
	driver, _ := l.lib.SystemGetDriverVersion()
	var cuda string
	if v, ret := l.lib.SystemGetCudaDriverVersion(); ret == nvml.SUCCESS {
		cuda = fmt.Sprintf("%d.%d", v/1000, v%1000/10)
	}
	var all []GPU
	for i, d := range l.devices {
		g := GPU{Index: i, UUID: l.uuids[i], Driver: driver, CUDAOf: cuda}
		g.Name, _ = d.GetName()
		m, ret := d.GetMemoryInfo()
		if ret != nvml.SUCCESS {
			return nil, words.Errorf("the memory of GPU %d (%s) cannot be read: %s", i, g.Name, ret.Error())
		}
		g.Total, g.Free = int64(m.Total), int64(m.Free)
		if pci, ret := d.GetPciInfo(); ret == nvml.SUCCESS {
			g.PCI = text(pci.BusId[:])
		}
		if watts, ret := d.GetEnforcedPowerLimit(); ret == nvml.SUCCESS {
			g.PowerLimit = float64(watts) / 1000
		}
		if mhz, ret := d.GetMaxClockInfo(nvml.CLOCK_SM); ret == nvml.SUCCESS {
			g.SMClock = int(mhz)
		}
		if mhz, ret := d.GetMaxClockInfo(nvml.CLOCK_MEM); ret == nvml.SUCCESS {
			g.MemClock = int(mhz)
		}
		if now, _, ret := d.GetEccMode(); ret == nvml.SUCCESS {
			g.ECC = onOff(now == nvml.FEATURE_ENABLED)
		}
		if now, _, ret := d.GetMigMode(); ret == nvml.SUCCESS {
			g.MIG = onOff(now == nvml.DEVICE_MIG_ENABLE)
		}
		for link := range nvml.NVLINK_MAX_LINKS {
			if up, ret := d.GetNvLinkState(link); ret == nvml.SUCCESS && up == nvml.FEATURE_ENABLED {
				g.NVLinks++
			}
		}
		all = append(all, g)
	}
	variable, set := os.LookupEnv(VisibleVariable)
	return visible(all, variable, set)
}

func onOff(on bool) string {
	if on {
		return On
	}
	return Off
}

func text(b []int8) string {
	var s []byte
	for _, c := range b {
		if c == 0 {
			break
		}
		s = append(s, byte(c))
	}
	return string(s)
}

// Read reads every device now.
func (l *Library) Read() (all []Reading) {
	for i, d := range l.devices {
		r := Reading{UUID: l.uuids[i], Values: map[string]float64{}}
		put := func(name string, v float64, ret nvml.Return) {
			if ret == nvml.SUCCESS {
				r.Values[name] = v
			}
		}
		m, ret := d.GetMemoryInfo()
		put(Memory, float64(m.Used), ret)
		milliwatts, ret := d.GetPowerUsage()
		put(Power, float64(milliwatts)/1000, ret)
		millijoules, ret := d.GetTotalEnergyConsumption()
		put(Energy, float64(millijoules)/1000, ret)
		use, ret := d.GetUtilizationRates()
		put(Utilisation, float64(use.Gpu)/100, ret)
		celsius, ret := d.GetTemperature(nvml.TEMPERATURE_GPU)
		put(Temperature, float64(celsius), ret)
		mhz, ret := d.GetClockInfo(nvml.CLOCK_SM)
		put(Clock, float64(mhz), ret)
		ecc, ret := d.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.VOLATILE_ECC)
		put(ECCErrors, float64(ecc), ret)
		if bits, ret := d.GetCurrentClocksEventReasons(); ret == nvml.SUCCESS {
			r.Held, r.HeldKnown = held(bits), true
		}
		all = append(all, r)
	}
	l.readErrors(all)
	return all
}

// readErrors adds what the driver has reported since the last time.
func (l *Library) readErrors(to []Reading) {
	for l.errors != nil {
		e, ret := l.errors.Wait(0)
		if ret != nvml.SUCCESS { // a timeout: there is none more
			return
		}
		uuid, _ := e.Device.GetUUID()
		for i := range to {
			if to[i].UUID == uuid && e.EventType == nvml.EventTypeXidCriticalError {
				to[i].Xids = append(to[i].Xids, e.EventData)
			}
		}
	}
}
