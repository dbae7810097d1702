package run

import (
	"reflect"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/launchgate/launchgate/internal/recording"
)

// The metrics of common servers are read under one name each: sums over their labels,
// the fullest cache, and each device by itself.
func TestReadings(t *testing.T) {
	const said = `# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="1",model_name="m"} 4.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.75
# TYPE nvidia_gpu_power_watts gauge
nvidia_gpu_power_watts{gpu="GPU-1"} 300
nvidia_gpu_power_watts{gpu="GPU-2"} 310
# TYPE nvidia_gpu_energy_joules_total counter
nvidia_gpu_energy_joules_total{gpu="GPU-1"} 5
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 1.5e+08
# no type
tgi_queue_size 2
# TYPE something_else histogram
something_else_bucket{le="+Inf"} 1
something_else_sum 1
something_else_count 1
`
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(said))
	if err != nil {
		t.Fatal(err)
	}
	var got []recording.Observation
	for _, r := range known {
		if f := families[r.metric]; f != nil {
			got = append(got, r.observations("service", f)...)
		}
	}
	want := []recording.Observation{
		{Name: recording.ObsQueue, Subject: "service", Value: 7},
		{Name: recording.ObsQueue, Subject: "service", Value: 2},
		{Name: recording.ObsKVUsed, Subject: "service", Value: 0.75},
		{Name: recording.ObsMemory, Subject: "service", Value: 1.5e8},
		{Name: recording.ObsPower, Subject: "GPU-1", Value: 300},
		{Name: recording.ObsPower, Subject: "GPU-2", Value: 310},
		{Name: recording.ObsEnergy, Subject: "GPU-1", Value: 5},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read\n%+v, want\n%+v", got, want)
	}
}
