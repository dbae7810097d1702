//go:build linux && cgo

package api

import (
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/launchgate/launchgate/reference-server/engine"
)

// nvmlCollector reads the values of the GPU in use from NVIDIA's management
// library. Values that the GPU does not report are absent.
type nvmlCollector struct {
	pool   *engine.Pool
	device nvml.Device
	uuid   string
	began  uint64 // millijoules at the start
}

// newNVML is nil if no GPU is in use or NVML is not found.
func newNVML(pool *engine.Pool) prometheus.Collector {
	uuid := pool.GPU()
	if uuid == "" || nvml.Init() != nvml.SUCCESS {
		return nil
	}
	device, ret := nvml.DeviceGetHandleByUUID(uuid)
	if ret != nvml.SUCCESS {
		return nil
	}
	began, _ := device.GetTotalEnergyConsumption()
	return nvmlCollector{pool, device, uuid, began}
}

func nvmlDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("nvidia_gpu_"+name, help, []string{"gpu"}, nil)
}

var (
	nvmlMemoryUsed  = nvmlDesc("device_memory_used_bytes", "Memory of the GPU that is taken, by everybody, as NVML tells.")
	nvmlMemoryTotal = nvmlDesc("device_memory_total_bytes", "Memory of the GPU, as NVML tells.")
	nvmlUtilisation = nvmlDesc("utilization_ratio", "Share of the last moments in which a kernel ran.")
	nvmlPower       = nvmlDesc("power_watts", "Power that the GPU draws.")
	nvmlEnergy      = nvmlDesc("energy_joules_total", "Energy that the GPU has used since its driver was loaded.")
	nvmlTemperature = nvmlDesc("temperature_celsius", "Temperature of the GPU.")
	nvmlECC         = prometheus.NewDesc("nvidia_gpu_ecc_errors_total", "Memory errors since the driver was loaded.", []string{"gpu", "kind"}, nil)
	nvmlThrottled   = prometheus.NewDesc("nvidia_gpu_clocks_event_reason", "1 for each reason for which the clocks are held back now: a bit of NVML's clocks event reasons.", []string{"gpu", "reason"}, nil)
	energyPerToken  = prometheus.NewDesc("ai_energy_joules_per_output_token", "Energy that the GPU used since the server's start, for each token written.", []string{"gpu"}, nil)
)

func (c nvmlCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{nvmlMemoryUsed, nvmlMemoryTotal, nvmlUtilisation, nvmlPower, nvmlEnergy, nvmlTemperature, nvmlECC, nvmlThrottled, energyPerToken} {
		ch <- d
	}
}

func (c nvmlCollector) Collect(ch chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, ret nvml.Return, labels ...string) {
		if ret == nvml.SUCCESS {
			ch <- prometheus.MustNewConstMetric(d, kind, v, append([]string{c.uuid}, labels...)...)
		}
	}
	memory, ret := c.device.GetMemoryInfo()
	send(nvmlMemoryUsed, prometheus.GaugeValue, float64(memory.Used), ret)
	send(nvmlMemoryTotal, prometheus.GaugeValue, float64(memory.Total), ret)
	use, ret := c.device.GetUtilizationRates()
	send(nvmlUtilisation, prometheus.GaugeValue, float64(use.Gpu)/100, ret)
	power, ret := c.device.GetPowerUsage()
	send(nvmlPower, prometheus.GaugeValue, float64(power)/1000, ret)
	celsius, ret := c.device.GetTemperature(nvml.TEMPERATURE_GPU)
	send(nvmlTemperature, prometheus.GaugeValue, float64(celsius), ret)
	for _, e := range []struct {
		kind string
		of   nvml.MemoryErrorType
	}{{"corrected", nvml.MEMORY_ERROR_TYPE_CORRECTED}, {"uncorrected", nvml.MEMORY_ERROR_TYPE_UNCORRECTED}} {
		n, ret := c.device.GetTotalEccErrors(e.of, nvml.VOLATILE_ECC)
		send(nvmlECC, prometheus.CounterValue, float64(n), ret, e.kind)
	}
	reasons, ret := c.device.GetCurrentClocksEventReasons()
	for bit := range 64 {
		if reasons>>bit&1 == 1 {
			send(nvmlThrottled, prometheus.GaugeValue, 1, ret, fmt.Sprintf("0x%x", uint64(1)<<bit))
		}
	}
	energy, ret := c.device.GetTotalEnergyConsumption()
	send(nvmlEnergy, prometheus.CounterValue, float64(energy)/1000, ret)
	var written int64
	for _, e := range c.pool.Loaded() {
		written += e.Stats().OutputTokens
	}
	if written > 0 {
		send(energyPerToken, prometheus.GaugeValue, float64(energy-c.began)/1000/float64(written), ret)
	}
}
