package run

import (
	"slices"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/deploy/gpu"
	"github.com/launchgate/launchgate/internal/recording"
)

// The reasons for which clocks are held back are recorded when they change.
func TestReadingsOfAGPU(t *testing.T) {
	held := map[string][]string{}
	var changes []string
	for _, reasons := range [][]string{nil, nil, {"power limit"}, {"power limit"}, nil} {
		for _, o := range deviceObservations(gpu.Reading{UUID: "GPU-a", Values: map[string]float64{gpu.Power: 300}, HeldKnown: true, Held: reasons}, held) {
			if o.Name == recording.ObsHeldBack {
				changes = append(changes, strings.Join(o.Names, ","))
			} else if o.Name != recording.ObsPower || o.Value != 300 || o.Subject != "GPU-a" {
				t.Errorf("found %+v", o)
			}
		}
	}
	if !slices.Equal(changes, []string{"", "power limit", ""}) {
		t.Errorf("found the changes %q", changes)
	}
	if all := deviceObservations(gpu.Reading{UUID: "GPU-a", Xids: []uint64{79}}, held); len(all) != 1 || all[0].Name != recording.ObsXid || all[0].Value != 79 {
		t.Errorf("found %+v", all)
	}
}

// The names and units of NVIDIA's DCGM exporter.
func TestMetricsOfTheDCGMExporter(t *testing.T) {
	families, err := deploy.ReadMetrics(strings.NewReader(`# TYPE DCGM_FI_DEV_FB_USED gauge
DCGM_FI_DEV_FB_USED{gpu="0",UUID="GPU-a"} 2048
DCGM_FI_DEV_FB_USED{gpu="1",UUID="GPU-b"} 1
# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="0",UUID="GPU-a"} 5000
# TYPE DCGM_FI_DEV_GPU_UTIL gauge
DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-a"} 50
`))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, r := range known {
		if f := families[r.metric]; f != nil {
			for _, o := range r.observations("gpu_metrics", f) {
				found[o.Name+" "+o.Subject] = o.Value
			}
		}
	}
	want := map[string]float64{"device_memory_bytes GPU-a": 2 << 30, "device_memory_bytes GPU-b": 1 << 20, "energy_joules GPU-a": 5, "device_utilisation_ratio GPU-a": 0.5}
	for name, v := range want {
		if found[name] != v {
			t.Errorf("%s is %v, expected %v", name, found[name], v)
		}
	}
}
