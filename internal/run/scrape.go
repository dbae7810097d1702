package run

import (
	"context"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/recording"
)

const (
	scrapeEvery   = time.Second
	scrapeTimeout = 800 * time.Millisecond
)

// reading says which metric of a service is which observation.
type reading struct {
	metric string
	obs    string
	device bool // it is of a device, which several processes may tell of
}

// readings are the names that the bundled service and the servers in the field
// have for the same things (vLLM, SGLang, TGI, llama.cpp, Triton; the process's
// own memory as Prometheus's client libraries tell it).
var readings = []reading{
	{"inference_queue_size", recording.ObsQueue, false},
	{"vllm:num_requests_waiting", recording.ObsQueue, false},
	{"sglang:num_queue_reqs", recording.ObsQueue, false},
	{"tgi_queue_size", recording.ObsQueue, false},
	{"llamacpp:requests_deferred", recording.ObsQueue, false},
	{"ai_kv_used_ratio", recording.ObsKVUsed, false},
	{"vllm:kv_cache_usage_perc", recording.ObsKVUsed, false},
	{"vllm:gpu_cache_usage_perc", recording.ObsKVUsed, false},
	{"sglang:token_usage", recording.ObsKVUsed, false},
	{"llamacpp:kv_cache_usage_ratio", recording.ObsKVUsed, false},
	{"process_resident_memory_bytes", recording.ObsMemory, false},
	{"nvidia_gpu_memory_used_bytes", recording.ObsDeviceMemory, true},
	{"nv_gpu_memory_used_bytes", recording.ObsDeviceMemory, true},
	{"nvidia_gpu_power_watts", recording.ObsPower, true},
	{"nv_gpu_power_usage", recording.ObsPower, true},
	{"nvidia_gpu_energy_joules_total", recording.ObsEnergy, true},
	{"nv_energy_consumption", recording.ObsEnergy, true},
}

// watchMetrics observes until ctx ends what the service says of itself: the
// processes of a deployment each on its own port, a service that is already
// there on /metrics beside its API. One that says nothing at first is not asked
// again; one that was killed is.
func (c *conductor) watchMetrics(ctx context.Context) {
	sources := c.sources(ctx)
	if len(sources) == 0 {
		return
	}
	about := c.target.About()
	tick := time.NewTicker(scrapeEvery)
	defer tick.Stop()
	for {
		for _, s := range sources {
			families, err := scrape(ctx, s.URL)
			if err != nil {
				continue // it is down, and what it would say is missing
			}
			at := c.clock.Now()
			for _, r := range readings {
				if about.TellsOf(r.obs) {
					continue // the target knows it oftener, and of processes that hang too
				}
				if f := families[r.metric]; f != nil {
					for _, o := range r.observations(s.Name, f) {
						o.At = at
						c.observe(o)
					}
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sources are those that can be asked.
func (c *conductor) sources(ctx context.Context) []deploy.Source {
	return slices.DeleteFunc(c.target.Metrics(), func(s deploy.Source) bool {
		if !s.Guess {
			return false
		}
		_, err := scrape(ctx, s.URL)
		return err != nil
	})
}

// observations of a family: summed up over what it is split by, and of devices
// for each.
func (r reading) observations(process string, f *dto.MetricFamily) (all []recording.Observation) {
	for _, m := range f.GetMetric() {
		v, ok := number(m)
		if !ok {
			continue
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

// device is what the labels call it: the same for every process that uses it.
func device(process string, m *dto.Metric) string {
	var parts []string
	for _, l := range m.GetLabel() {
		switch l.GetName() {
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

func scrape(ctx context.Context, url string) (map[string]*dto.MetricFamily, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	return deploy.Scrape(ctx, url)
}
