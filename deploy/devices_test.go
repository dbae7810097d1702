package deploy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/deploy/gpu"
	"github.com/launchgate/launchgate/scenarios"
)

// cards are GPUs with so many GiB free of 80 each.
func cards(free ...int64) (all []gpu.GPU) {
	for i, f := range free {
		all = append(all, gpu.GPU{Index: i, CUDA: i, Name: "H100", UUID: fmt.Sprintf("GPU-%d", i), Total: 80 << 30, Free: f << 30})
	}
	return all
}

func TestReplicasAreSpreadOverGPUs(t *testing.T) {
	const GiB = 1 << 30
	small := Need{Model: "1B", Weights: 2 * GiB, Working: GiB / 2, Cache: GiB / 2}
	large := Need{Model: "8B", Weights: 16 * GiB, Working: GiB, Cache: GiB}
	for _, test := range []struct {
		name    string
		n       int
		devices scenarios.Devices
		gpus    []gpu.GPU
		need    Need
		want    string // the device of each replica
		refused string
	}{
		{name: "one on one", n: 1, gpus: cards(80), need: large, want: "0"},
		{name: "two share one", n: 2, gpus: cards(80), need: large, want: "0 0"},
		{name: "two on two", n: 2, gpus: cards(80, 80), need: large, want: "0 1"},
		{name: "three on two", n: 3, gpus: cards(80, 80), need: small, want: "0 1 0"},
		{name: "the freest is first", n: 2, gpus: cards(60, 80), need: small, want: "1 0"},
		{name: "a little less free is as good", n: 1, gpus: cards(80, 80), need: small, want: "0"},
		{name: "one that is full is left out", n: 3, gpus: cards(1, 80, 80), need: large, want: "1 2 1"},
		{name: "eight on eight", n: 8, gpus: cards(80, 80, 80, 80, 80, 80, 80, 80), need: large, want: "0 1 2 3 4 5 6 7"},
		{name: "ten on eight", n: 10, gpus: cards(80, 80, 80, 80, 80, 80, 80, 80), need: large, want: "0 1 2 3 4 5 6 7 0 1"},
		{name: "those that are named", n: 3, devices: scenarios.Devices{GPUs: []int{2, 1}}, gpus: cards(80, 80, 80), need: small, want: "1 2 1"},
		{name: "one that is small takes fewer", n: 4, gpus: cards(24, 80), need: large, want: "1 0 1 1"},
		{name: "too many", n: 4, gpus: cards(80), need: large, refused: "replica-3 of 4 does not fit on a GPU: 8B needs 18.0 GiB (weights 16.0 GiB, working memory 1.0 GiB, KV cache of one sequence 1.0 GiB); GPU 0 (H100) has 80.0 GiB free, of which 90% of 4 replicas may take 17.4 GiB each"},
		{name: "not there", n: 1, devices: scenarios.Devices{GPUs: []int{8}}, gpus: cards(80, 80), need: small, refused: "names GPU 8, and this machine has the GPUs 0 to 1"},
	} {
		s, err := seat(test.n, test.devices, test.gpus, test.need, 0.9)
		if test.refused != "" {
			if err == nil || !strings.Contains(err.Error(), test.refused) {
				t.Errorf("%s: found %v, expected it to be refused: %s", test.name, err, test.refused)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		var got []string
		taken := map[string]int64{}
		for _, seat := range s.Seats {
			got = append(got, strings.TrimPrefix(seat.Device, "cuda:"))
			taken[seat.Device] += seat.Share + GPUContext
			if seat.Share < test.need.sum() {
				t.Errorf("%s: %s may take %s and needs %s", test.name, seat.Replica, gib(seat.Share), gib(test.need.sum()))
			}
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: found the replicas on %v, expected %s", test.name, got, test.want)
		}
		for _, g := range test.gpus {
			if sum := taken[fmt.Sprintf("cuda:%d", g.CUDA)]; float64(sum) > 0.9*float64(g.Free) {
				t.Errorf("%s: the replicas of GPU %d may take %s of %s", test.name, g.Index, gib(sum), gib(g.Free))
			}
		}
	}
}

// The plan of a gate, with a list of GPUs that stands for NVML's.
func TestThePlanSaysWhichReplicaIsWhere(t *testing.T) {
	spec := scenarios.Local{Replicas: 3}
	none := func() ([]gpu.GPU, error) { return nil, nil }
	s, err := LocalPlan{Spec: spec, GPUs: none}.Seat(t.Context(), "/nonexistent/program")
	if err != nil || !slices.Equal(s.Seats[2].args(), []string{"--device", "cpu"}) || s.Describe()[0].String() != "all replicas on the CPU: this machine has no GPU" {
		t.Errorf("found %v %v, expected all on the CPU", s, err)
	}
	hidden := func() ([]gpu.GPU, error) {
		all := cards(80, 80)
		all[0].CUDA, all[1].MIG = -1, gpu.On
		return all, nil
	}
	s, err = LocalPlan{Spec: spec, GPUs: hidden}.Seat(t.Context(), "/nonexistent/program")
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, line := range s.Describe() {
		said = append(said, line.String())
	}
	if want := []string{
		"all replicas on the CPU: no GPU of this machine can be used",
		"not used: GPU 0 (H100): CUDA_VISIBLE_DEVICES hides it",
		"not used: GPU 1 (H100): it is partitioned (its MIG mode is on)",
	}; !slices.Equal(said, want) || s.Seats[2].Device != "cpu" {
		t.Errorf("found %q, expected %q", said, want)
	}
	spec.Devices = scenarios.Devices{GPUs: []int{0, 1}}
	if _, err := (LocalPlan{Spec: spec, GPUs: none}).Seat(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "target.local.devices is [0, 1], and no GPU can be used: this machine has no GPU") {
		t.Errorf("found %v, expected GPUs that are not there to be refused", err)
	}
	s, err = seat(3, scenarios.Devices{}, cards(80, 80), Need{Model: "m", Weights: 1 << 30}, 0.9)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, line := range s.Describe() {
		told = append(told, line.String())
	}
	want := []string{
		"replica-0, replica-2 on GPU 0 (H100, 80.0 GiB of 80.0 GiB free): each may take 35.4 GiB",
		"replica-1 on GPU 1 (H100, 80.0 GiB of 80.0 GiB free): it may take 71.4 GiB",
	}
	if !slices.Equal(told, want) {
		t.Errorf("found %q, expected %q", told, want)
	}
	if args := s.Seats[0].args(); !slices.Equal(args, []string{"--device", "cuda:0", "--gpu-memory-mib", "36264"}) {
		t.Errorf("found %q", args)
	}
}

// A gate's settings of a replica reach the program, and the fraction the plan.
func TestSettingsReachTheServer(t *testing.T) {
	t.Setenv(fractionVariable, "0.5")
	plain := scenarios.Local{Replicas: 1}
	if got := strings.Join(modelArgs(plain), " "); got != "" {
		t.Errorf("found %s, expected the server's defaults", got)
	}
	if got := fractionOf(plain); got != 0.5 {
		t.Errorf("found a fraction of %v, expected that of the variable, 0.5", got)
	}
	set := scenarios.Local{Replicas: 1, KVCache: 96 << 20, MaxBatchSize: 8, MaxSequenceLength: 512, GPUMemoryFraction: 0.8}
	if got, want := strings.Join(modelArgs(set), " "), "--kv-cache-mib 96 --max-batch-size 8 --max-sequence-length 512"; got != want {
		t.Errorf("found %s, expected %s", got, want)
	}
	if got := fractionOf(set); got != 0.8 {
		t.Errorf("found a fraction of %v, expected the gate's, 0.8", got)
	}
	want := Settings{MaxBatchSize: 8, MaxSequenceLength: 512, GPUMemoryFraction: 0.8, KVCacheBytes: 96 << 20}
	if got := (LocalPlan{Spec: set}).About().Settings; got != want {
		t.Errorf("found %+v, expected %+v", got, want)
	}
}
