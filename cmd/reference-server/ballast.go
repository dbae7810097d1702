package main

import (
	"bufio"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/reference-server/backend/cuda"
	"github.com/launchgate/launchgate/reference-server/device"
)

// ballastOptions are the flags of ballast.
type ballastOptions struct {
	device     string
	deviceMiB  int64
	deviceFile string
	leave      int64
	ask        bool
}

// ballastCommand is for faults: it takes the device's memory, as another
// program on a GPU would.
func ballastCommand(in io.Reader, out io.Writer) *cobra.Command {
	var o ballastOptions
	cmd := &cobra.Command{
		Use:   "ballast",
		Short: "Take the device's memory until standard input ends",
		Long: `ballast waits for a line on standard input. It then takes all free memory of the
device except --leave-bytes, prints "taken", and holds the memory until standard
input ends. With --ask it only prints how many bytes are free. On a GPU it subtracts
the memory that asking takes, and prints 0 if there is not enough to ask.`,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(*cobra.Command, []string) error { return o.run(bufio.NewReader(in), out) },
	}
	cmd.Flags().StringVar(&o.device, "device", "auto", "the device, as for serve")
	cmd.Flags().Int64Var(&o.deviceMiB, "device-memory-mib", defaultMiB(os.DirFS("/")), "the device memory in MiB, as for serve")
	cmd.Flags().StringVar(&o.deviceFile, "device-file", device.DefaultPath(), "the `file` through which servers share --device-memory-mib")
	cmd.Flags().Int64Var(&o.leave, "leave-bytes", 0, "the bytes to leave free for the servers")
	cmd.Flags().BoolVar(&o.ask, "ask", false, "print the number of free bytes and end")
	return cmd
}

// memory is the memory that ballast takes.
type memory interface {
	free() (int64, error)
	take(bytes int64) (giveBack func() error, err error)
}

// open finds the device that servers with the same flags compute on.
func (o ballastOptions) open() (memory, error) {
	index, named, err := parseDevice(o.device)
	if err != nil {
		return nil, err
	}
	if index >= 0 {
		gpu, err := cuda.Open(index)
		if err == nil || cuda.OutOfMemory(err) {
			return gpuMemory{gpu}, nil
		}
		if named {
			return nil, fmt.Errorf("--device %s: %w", o.device, err)
		}
	}
	d, err := device.Open(o.deviceFile, o.deviceMiB<<20)
	return accounted{d}, err
}

func (o ballastOptions) run(in *bufio.Reader, out io.Writer) error {
	m, err := o.open()
	if err != nil {
		return err
	}
	if o.ask {
		free, err := m.free()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(out, free)
		return err
	}
	if _, err := in.ReadString('\n'); err != nil {
		return nil // cancelled before the start
	}
	free, err := m.free()
	if err != nil {
		return err
	}
	giveBack, err := m.take(max(0, free-o.leave))
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "taken")
	_, _ = io.Copy(io.Discard, in)
	return giveBack()
}

// accounted is the CPU's memory, for which servers account in a file.
type accounted struct{ *device.Device }

func (d accounted) free() (int64, error) {
	u, err := d.Usage()
	return u.Free(), err
}

func (d accounted) take(bytes int64) (func() error, error) {
	taken, err := d.Claim(fmt.Sprintf("ballast of pid %d", os.Getpid()), bytes)
	return taken.Release, err
}

// gpuMemory is the memory of a GPU. A nil GPU means that there is not enough
// memory to open it.
type gpuMemory struct{ *cuda.GPU }

func (g gpuMemory) free() (int64, error) {
	if g.GPU == nil {
		return 0, nil
	}
	return g.Free()
}

// take takes as much as the GPU's pages allow, because the free memory is not
// contiguous.
func (g gpuMemory) take(bytes int64) (func() error, error) {
	const page = 2 << 20
	if g.GPU == nil || bytes < page {
		return func() error { return nil }, nil
	}
	for less := int64(0); ; less += page {
		giveBack, err := g.Hold(bytes - less)
		if err == nil {
			return func() error { giveBack(); return nil }, nil
		}
		if !cuda.OutOfMemory(err) || less == 64*page || bytes-less < 2*page {
			return nil, err
		}
	}
}
