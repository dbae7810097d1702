package run

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen/client"
)

const (
	scrapeEvery   = time.Second
	scrapeTimeout = 800 * time.Millisecond
	memoryMetric  = "process_resident_memory_bytes"
)

// meaning maps a metric of a service to an observation.
type meaning struct {
	metric string
	obs    string
	device bool    // it is about a device, which several processes may report
	unit   float64 // of the metric, in the unit of the observation; 0: the same
}

// known are the names of the metrics in the bundled service and in common servers
// (vLLM, SGLang, TGI, llama.cpp, Triton), and the name of process memory in
// Prometheus's client libraries.
var known = []meaning{
	{"inference_queue_size", recording.ObsQueue, false, 0},
	{"vllm:num_requests_waiting", recording.ObsQueue, false, 0},
	{"sglang:num_queue_reqs", recording.ObsQueue, false, 0},
	{"tgi_queue_size", recording.ObsQueue, false, 0},
	{"llamacpp:requests_deferred", recording.ObsQueue, false, 0},
	{"ai_kv_used_ratio", recording.ObsKVUsed, false, 0},
	{"vllm:kv_cache_usage_perc", recording.ObsKVUsed, false, 0},
	{"vllm:gpu_cache_usage_perc", recording.ObsKVUsed, false, 0},
	{"sglang:token_usage", recording.ObsKVUsed, false, 0},
	{"llamacpp:kv_cache_usage_ratio", recording.ObsKVUsed, false, 0},
	{memoryMetric, recording.ObsMemory, false, 0},
	{"nvidia_gpu_memory_used_bytes", recording.ObsDeviceMemory, true, 0},
	{"nv_gpu_memory_used_bytes", recording.ObsDeviceMemory, true, 0},
	{"nvidia_gpu_power_watts", recording.ObsPower, true, 0},
	{"nv_gpu_power_usage", recording.ObsPower, true, 0},
	{"nvidia_gpu_energy_joules_total", recording.ObsEnergy, true, 0},
	{"nv_energy_consumption", recording.ObsEnergy, true, 0},
	// NVIDIA's DCGM exporter.
	{"DCGM_FI_DEV_FB_USED", recording.ObsDeviceMemory, true, 1 << 20},
	{"DCGM_FI_DEV_POWER_USAGE", recording.ObsPower, true, 0},
	{"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", recording.ObsEnergy, true, 1e-3},
	{"DCGM_FI_DEV_GPU_UTIL", recording.ObsUtilisation, true, 1e-2},
	{"DCGM_FI_DEV_GPU_TEMP", recording.ObsTemperature, true, 0},
	{"DCGM_FI_DEV_SM_CLOCK", recording.ObsClock, true, 0},
	{"DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", recording.ObsECCErrors, true, 0},
}

// watchMetrics records the metrics of the service until ctx ends: those of each process
// of a deployment from its own port, those of an existing service from /metrics beside
// its API. A service that says that it has none is not asked again in this scenario.
// One that was killed, or is too busy to answer, is asked again. If a service never
// reported its memory, the reason is recorded.
func (c *conductor) watchMetrics(ctx context.Context, scenario string) {
	var beside reading
	asked := c.target.Metrics()
	tick := time.NewTicker(scrapeEvery)
	defer tick.Stop()
	for len(asked) > 0 {
		asked = slices.DeleteFunc(asked, func(s deploy.Source) bool {
			families, err := c.scrape(ctx, s)
			if s.Beside && ctx.Err() == nil {
				beside.note(families, err)
			}
			if err != nil { // it is down, and its values are missing
				return errors.Is(err, client.ErrNoMetrics)
			}
			c.tellOf(s, families)
			return false
		})
		select {
		case <-ctx.Done():
			asked = nil
		case <-tick.C:
		}
	}
	if o, missingMemory := beside.missingMemory(scenario); missingMemory {
		o.At = c.clock.Now()
		c.observe(o)
	}
}

// reading is the result of reading the metrics of one service.
type reading struct {
	memory bool // it reported its memory
	read   bool // its metrics were read
	why    error
}

// note records a result; the first error is kept.
func (r *reading) note(families map[string]*dto.MetricFamily, err error) {
	if err != nil && r.why == nil {
		r.why = err
	}
	r.read = r.read || err == nil
	r.memory = r.memory || families[memoryMetric] != nil
}

// missingMemory is the observation that a service did not report its memory: because it has no
// such metric, or because its metrics could not be read.
func (r *reading) missingMemory(scenario string) (recording.Observation, bool) {
	switch {
	case r.memory || !r.read && r.why == nil:
		return recording.Observation{}, false
	case r.read:
		return recording.Observation{Name: recording.ObsMemoryUnreported, Subject: scenario, Text: words.Say("its /metrics has no %s", memoryMetric)}, true
	case errors.Is(r.why, client.ErrNoMetrics):
		return recording.Observation{Name: recording.ObsMemoryUnreported, Subject: scenario, Text: words.Of(r.why)}, true
	}
	return recording.Observation{Name: recording.ObsMetricsUnread, Subject: scenario, Text: words.Of(r.why)}, true
}

// tellOf records the metrics of a process, except those that the target reports itself:
// it does so more often, and for processes that hang too.
func (c *conductor) tellOf(s deploy.Source, families map[string]*dto.MetricFamily) {
	at, about := c.clock.Now(), c.target.About()
	for _, r := range known {
		f := families[r.metric]
		if f == nil || about.TellsOf(r.obs) {
			continue
		}
		for _, o := range r.observations(s.Name, f) {
			if r.device && c.readHere(o.Subject) {
				continue
			}
			o.At = at
			c.observe(o)
		}
	}
}

// observations are those of a metric family: the sum over its labels, or for a device
// one of each device.
func (r meaning) observations(process string, f *dto.MetricFamily) (all []recording.Observation) {
	for _, m := range f.GetMetric() {
		v, ok := number(m)
		if !ok {
			continue
		}
		if r.unit != 0 {
			v *= r.unit
		}
		subject := process
		if r.device {
			subject = device(process, m)
		}
		i := slices.IndexFunc(all, func(o recording.Observation) bool { return o.Subject == subject })
		switch {
		case i < 0:
			all = append(all, recording.Observation{Name: r.obs, Subject: subject, Value: v})
		case r.obs == recording.ObsKVUsed:
			all[i].Value = max(all[i].Value, v)
		default:
			all[i].Value += v
		}
	}
	return all
}

// device is the name of a device by its labels, the same for every process that uses
// it.
func device(process string, m *dto.Metric) string {
	var parts []string
	for _, l := range m.GetLabel() {
		switch l.GetName() {
		case "UUID": // DCGM's; it also has the number, as gpu
			return l.GetValue()
		case "gpu", "gpu_uuid", "kind":
			parts = append(parts, l.GetValue())
		}
	}
	if len(parts) == 0 {
		return process
	}
	return strings.Join(parts, " ")
}

func number(m *dto.Metric) (float64, bool) {
	switch {
	case m.GetGauge() != nil:
		return m.GetGauge().GetValue(), true
	case m.GetCounter() != nil:
		return m.GetCounter().GetValue(), true
	case m.GetUntyped() != nil:
		return m.GetUntyped().GetValue(), true
	}
	return 0, false
}

func (c *conductor) scrape(ctx context.Context, s deploy.Source) (map[string]*dto.MetricFamily, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	if !s.Beside {
		return deploy.Scrape(ctx, s.URL)
	}
	page, err := c.client.Metrics(ctx)
	if err != nil {
		return nil, err
	}
	families, err := deploy.ReadMetrics(bytes.NewReader(page))
	if err != nil {
		return nil, words.Errorf("%s (it answers with something else: %s)", client.ErrNoMetrics, err)
	}
	return families, nil
}
