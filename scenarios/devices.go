package scenarios

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Devices are what the replicas of a local target compute on. The zero value is auto.
type Devices struct {
	// CPU: the processor computes, even where there is a GPU.
	CPU bool
	// GPUs are the numbers of the GPUs that may be used; none, without CPU: all.
	GPUs []int
}

// IsZero reports whether nothing is said, which is auto.
func (d Devices) IsZero() bool { return !d.CPU && len(d.GPUs) == 0 }

// maxGPU is the highest number of a GPU of one machine.
const maxGPU = 255

const devicesExample = "auto, cpu, or a list of GPUs such as [0, 1]"

// devicesPattern is what devices look like as a text.
const devicesPattern = `^(auto|cpu|\[ *[0-9]{1,3}( *, *[0-9]{1,3})* *\])$`

// String writes the devices as UnmarshalText reads them.
func (d Devices) String() string {
	switch {
	case d.CPU:
		return "cpu"
	case len(d.GPUs) == 0:
		return "auto"
	}
	list := make([]string, len(d.GPUs))
	for i, n := range d.GPUs {
		list[i] = strconv.Itoa(n)
	}
	return "[" + strings.Join(list, ", ") + "]"
}

// MarshalText writes the devices as UnmarshalText reads them.
func (d Devices) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads devices.
func (d *Devices) UnmarshalText(text []byte) error {
	src := string(text)
	switch src {
	case "auto":
		*d = Devices{}
		return nil
	case "cpu":
		*d = Devices{CPU: true}
		return nil
	}
	list, isList := strings.CutPrefix(src, "[")
	list, closed := strings.CutSuffix(list, "]")
	if !isList || !closed || strings.TrimSpace(list) == "" {
		return fmt.Errorf("found %s, expected %s", quoted(src), devicesExample)
	}
	var gpus []int
	for word := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil || n < 0 || n > maxGPU {
			return fmt.Errorf("found %s in a list of GPUs, expected numbers from 0 to %d, as nvidia-smi shows them", quoted(strings.TrimSpace(word)), maxGPU)
		}
		if slices.Contains(gpus, n) {
			return fmt.Errorf("found GPU %d twice, expected each once: replicas share a GPU by themselves", n)
		}
		gpus = append(gpus, n)
	}
	*d = Devices{GPUs: gpus}
	return nil
}
