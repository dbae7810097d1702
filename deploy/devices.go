package deploy

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/launchgate/launchgate/deploy/gpu"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Seat is what a replica computes on, and how much of it the replica may take.
type Seat struct {
	Replica string
	Device  string // as reference-server serve --device takes it: cpu, cuda:0; auto where NVML tells nothing
	// GPU is the device; nil where it is no GPU, or not known.
	GPU *gpu.GPU
	// Share of the GPU's memory in bytes that the replica may take for weights, working
	// memory and KV cache.
	Share int64
	// Sharing is how many replicas compute on the same GPU.
	Sharing int
}

// Seating is where the replicas of a deployment are.
type Seating struct {
	Seats []Seat
	// Why no GPU is used, where none was asked for by its number.
	Why words.Sentence
	// LeftOut are GPUs that could not be used, and why.
	LeftOut []words.Sentence
}

// Need is what a replica needs of a device, in bytes.
type Need struct {
	Model   string `json:"model"`
	Weights int64  `json:"weights"`
	Working int64  `json:"working"` // buffers for a step
	Cache   int64  `json:"cache"`   // keys and values of one sequence of the greatest length
	// Host is the memory that servers share on the CPU.
	Host int64 `json:"host"`
}

func (n Need) sum() int64 { return n.Weights + n.Working + n.Cache }

// GPUContext is what CUDA takes of a GPU's memory for each process, besides what the
// process asks for.
const GPUContext = 600 << 20

// fractionVariable is the variable with a replica's share of a device's free
// memory.
const fractionVariable = "GPU_MEMORY_FRACTION"

// defaultFraction of the free memory is what servers take of a GPU.
const defaultFraction = 0.9

// seat spreads n replicas evenly over GPUs: each goes to the one with the fewest, of
// those to the one with the most free memory, and of those to the first. The replicas
// of a GPU share the fraction of its free memory in equal parts. A GPU takes no more
// replicas than their parts suffice for.
func seat(n int, devices scenarios.Devices, gpus []gpu.GPU, need Need, fraction float64) (Seating, error) {
	candidates, left, err := candidates(devices, gpus)
	s := Seating{LeftOut: left}
	if err != nil {
		return s, err
	}
	on := make([][]int, len(candidates)) // the replicas on each
	for i := range n {
		best := -1
		for c, g := range candidates {
			if part(g, len(on[c])+1, fraction) < need.sum() {
				continue
			}
			if best < 0 || cmp.Or(len(on[c])-len(on[best]), cmp.Compare(freeGiB(candidates[best]), freeGiB(g)), candidates[c].Index-candidates[best].Index) < 0 {
				best = c
			}
		}
		if best < 0 {
			return s, doesNotFit(i, n, candidates, on, need, fraction)
		}
		on[best] = append(on[best], i)
	}
	s.Seats = make([]Seat, n)
	for c, replicas := range on {
		for _, i := range replicas {
			s.Seats[i] = Seat{Replica: scenarios.ReplicaName(i), Device: fmt.Sprintf("cuda:%d", candidates[c].CUDA), GPU: &candidates[c],
				Share: part(candidates[c], len(replicas), fraction), Sharing: len(replicas)}
		}
	}
	return s, nil
}

// part is what each of several replicas may take of a GPU.
func part(g gpu.GPU, replicas int, fraction float64) int64 {
	return int64(fraction*float64(g.Free))/int64(replicas) - GPUContext
}

// freeGiB makes GPUs equal whose free memory hardly differs.
func freeGiB(g gpu.GPU) int64 { return (g.Free + 1<<29) >> 30 }

// candidates are the GPUs that may be used.
func candidates(devices scenarios.Devices, gpus []gpu.GPU) (may []gpu.GPU, left []words.Sentence, err error) {
	for _, want := range devices.GPUs {
		i := slices.IndexFunc(gpus, func(g gpu.GPU) bool { return g.Index == want })
		switch {
		case i < 0 && len(gpus) == 1:
			return nil, nil, words.Errorf("target.local.devices names GPU %d, and this machine has GPU 0 alone", want)
		case i < 0:
			return nil, nil, words.Errorf("target.local.devices names GPU %d, and this machine has the GPUs 0 to %d", want, len(gpus)-1)
		case gpus[i].CUDA < 0:
			return nil, nil, words.Errorf("target.local.devices names GPU %d, which %s hides (%s)", want, gpu.VisibleVariable, os.Getenv(gpu.VisibleVariable))
		case gpus[i].MIG == gpu.On:
			return nil, nil, words.Errorf("target.local.devices names GPU %d, which is partitioned (its MIG mode is on); replicas are placed on whole GPUs", want)
		}
		may = append(may, gpus[i])
	}
	if len(devices.GPUs) > 0 {
		return may, nil, nil
	}
	for _, g := range gpus {
		switch {
		case g.CUDA < 0:
			left = append(left, words.Say("GPU %d (%s): %s hides it", g.Index, g.Name, gpu.VisibleVariable))
		case g.MIG == gpu.On:
			left = append(left, words.Say("GPU %d (%s): it is partitioned (its MIG mode is on)", g.Index, g.Name))
		default:
			may = append(may, g)
		}
	}
	return may, left, nil
}

// doesNotFit is why there is no GPU for a replica, with the arithmetic.
func doesNotFit(i, n int, gpus []gpu.GPU, on [][]int, need Need, fraction float64) error {
	there := words.Sentence{}
	for c, g := range gpus {
		more := words.Say("GPU %d (%s) has %s free, of which %s of %d replicas may take %s each", g.Index, g.Name, gib(g.Free),
			percent(fraction), len(on[c])+1, gib(max(0, part(g, len(on[c])+1, fraction))))
		if c == 0 {
			there = more
		} else {
			there = words.Say("%s; %s", there, more)
		}
	}
	return words.Errorf("%s of %d does not fit on a GPU: %s needs %s (weights %s, working memory %s, KV cache of one sequence %s); %s. Take fewer replicas, a smaller model or quantization, or more GPUs",
		scenarios.ReplicaName(i), n, need.Model, gib(need.sum()), gib(need.Weights), gib(need.Working), gib(need.Cache), there)
}

func gib(bytes int64) string { return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30)) }

func percent(share float64) string { return strconv.FormatFloat(share*100, 'g', 3, 64) + "%" }

// onCPU seats all replicas on the processor.
func onCPU(n int, device string, why words.Sentence) Seating {
	s := Seating{Why: why}
	for i := range n {
		s.Seats = append(s.Seats, Seat{Replica: scenarios.ReplicaName(i), Device: device})
	}
	return s
}

// ListGPUs lists the GPUs of this machine.
func ListGPUs() ([]gpu.GPU, error) {
	l, err := gpu.Open()
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.List()
}

// Seat plans which replica computes on what, before anything is started. build is the
// reference-server program, which knows what a model needs.
func (p LocalPlan) Seat(ctx context.Context, build string) (Seating, error) {
	if err := DeploysHere(); err != nil {
		return Seating{}, err
	}
	list := p.GPUs
	if list == nil {
		list = ListGPUs
	}
	return seatAll(ctx, p.Spec, build, list)
}

func seatAll(ctx context.Context, spec scenarios.Local, build string, list func() ([]gpu.GPU, error)) (Seating, error) {
	if spec.Devices.CPU {
		return fitsHost(ctx, spec, build, onCPU(spec.Replicas, "cpu", words.Say("target.local.devices is cpu")))
	}
	gpus, err := list()
	switch {
	case err == nil && len(gpus) == 0:
		err = words.Errorf("this machine has no GPU")
	case err != nil && len(spec.Devices.GPUs) == 0 && driverIsThere():
		// The replicas find out by themselves what they can use.
		return onCPU(spec.Replicas, "auto", words.Say("which replica is where is not planned: %s", err)), nil
	}
	if err != nil && len(spec.Devices.GPUs) > 0 {
		return Seating{}, words.Errorf("target.local.devices is %s, and no GPU can be used: %s", spec.Devices, err)
	}
	if err != nil {
		return fitsHost(ctx, spec, build, onCPU(spec.Replicas, "cpu", words.Of(err)))
	}
	if may, left, err := candidates(spec.Devices, gpus); err == nil && len(may) == 0 {
		s := onCPU(spec.Replicas, "cpu", words.Say("no GPU of this machine can be used"))
		s.LeftOut = left
		return fitsHost(ctx, spec, build, s)
	}
	need, err := askNeed(ctx, spec, build, "cuda:0")
	if err != nil {
		return Seating{}, err
	}
	return seat(spec.Replicas, spec.Devices, gpus, need, fractionOf(spec))
}

// fractionOf is the share of a GPU's free memory that its replicas take together.
func fractionOf(spec scenarios.Local) float64 {
	if spec.GPUMemoryFraction > 0 {
		return float64(spec.GPUMemoryFraction)
	}
	if f, err := strconv.ParseFloat(os.Getenv(fractionVariable), 64); err == nil && f > 0 && f <= 1 {
		return f
	}
	return defaultFraction
}

// driverIsThere reports whether there is a device of NVIDIA's driver.
func driverIsThere() bool {
	devices, _ := filepath.Glob("/dev/nvidia[0-9]*")
	return len(devices) > 0
}

// fitsHost refuses replicas whose weights need more than the servers of this host may
// take together. Where the program does not say, the replicas find out.
func fitsHost(ctx context.Context, spec scenarios.Local, build string, s Seating) (Seating, error) {
	need, err := askNeed(ctx, spec, build, "cpu")
	if err != nil {
		return s, nil
	}
	if all := int64(spec.Replicas) * need.Weights; all > need.Host {
		return s, words.Errorf("%d replicas do not fit into the memory of this machine: the weights of %s need %s each, %s together, and %s may be taken. Take fewer replicas, or a smaller model or quantization",
			spec.Replicas, need.Model, gib(need.Weights), gib(all), gib(need.Host))
	}
	return s, nil
}

const needWithin = 20 * time.Second

// askNeed asks the program what a replica needs of a device.
func askNeed(ctx context.Context, spec scenarios.Local, build, device string) (Need, error) {
	ctx, cancel := context.WithTimeout(ctx, needWithin)
	defer cancel()
	argv := append([]string{"need", "--device", device}, modelArgs(spec)...)
	var errs bytes.Buffer
	cmd := exec.CommandContext(ctx, build, argv...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	var n Need
	if err == nil {
		err = json.Unmarshal(out, &n)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = errors.New(strings.TrimPrefix(strings.TrimSpace(errs.String()), "reference-server: "))
	}
	if err != nil {
		return n, words.Errorf("what a replica needs of a GPU is not known: %s", err)
	}
	return n, nil
}

// Describe says where the replicas are, in lines.
func (s Seating) Describe() (lines []words.Sentence) {
	if len(s.Seats) > 0 && s.Seats[0].GPU == nil {
		why := s.Why
		if s.Seats[0].Device == "cpu" {
			why = words.Say("all replicas on the CPU: %s", s.Why)
		}
		return append([]words.Sentence{why}, s.leftOut()...)
	}
	var order []int // the GPUs, by their numbers
	on := map[int][]Seat{}
	for _, seat := range s.Seats {
		i := seat.GPU.Index
		if on[i] == nil {
			order = append(order, i)
		}
		on[i] = append(on[i], seat)
	}
	slices.Sort(order)
	for _, i := range order {
		var names []string
		for _, seat := range on[i] {
			names = append(names, seat.Replica)
		}
		g := on[i][0].GPU
		if len(names) == 1 {
			lines = append(lines, words.Say("%s on GPU %d (%s, %s of %s free): it may take %s", names[0], i, g.Name, gib(g.Free), gib(g.Total), gib(on[i][0].Share)))
		} else {
			lines = append(lines, words.Say("%s on GPU %d (%s, %s of %s free): each may take %s", strings.Join(names, ", "), i, g.Name, gib(g.Free), gib(g.Total), gib(on[i][0].Share)))
		}
	}
	return append(lines, s.leftOut()...)
}

func (s Seating) leftOut() (lines []words.Sentence) {
	for _, why := range s.LeftOut {
		lines = append(lines, words.Say("not used: %s", why))
	}
	return lines
}

// args are the flags of serve for a seat.
func (s Seat) args() []string {
	argv := []string{"--device", s.Device}
	if s.Share > 0 {
		argv = append(argv, "--gpu-memory-mib", strconv.FormatInt(s.Share>>20, 10))
	}
	return argv
}
