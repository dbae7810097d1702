package main

import (
	"bufio"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/reference-server/device"
)

// ballastOptions are the flags of ballast.
type ballastOptions struct {
	deviceMiB  int64
	deviceFile string
	leave      int64
	ask        bool
}

// ballastCommand is for those who break the service on purpose: it takes the
// device's memory away from it, as another program on a GPU would.
func ballastCommand(in io.Reader, out io.Writer) *cobra.Command {
	var o ballastOptions
	cmd := &cobra.Command{
		Use:   "ballast",
		Short: "Take the device's memory until standard input ends",
		Long: `ballast waits for a line on standard input, claims what is free of the device's
memory but for --leave-bytes, says "taken", and holds it until standard input
ends. With --ask it only says how many bytes are free.`,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(*cobra.Command, []string) error { return o.run(bufio.NewReader(in), out) },
	}
	cmd.Flags().Int64Var(&o.deviceMiB, "device-memory-mib", hostMiB(), "memory of the device, as the servers have it")
	cmd.Flags().StringVar(&o.deviceFile, "device-file", device.DefaultPath(), "the `file` that they share")
	cmd.Flags().Int64Var(&o.leave, "leave-bytes", 0, "what is left to the servers")
	cmd.Flags().BoolVar(&o.ask, "ask", false, "say how many bytes are free, and end")
	return cmd
}

func (o ballastOptions) run(in *bufio.Reader, out io.Writer) error {
	d, err := device.Open(o.deviceFile, o.deviceMiB<<20)
	if err != nil {
		return err
	}
	if o.ask {
		return o.tellFree(d, out)
	}
	if _, err := in.ReadString('\n'); err != nil {
		return nil // it was called off
	}
	u, err := d.Usage()
	if err != nil {
		return err
	}
	taken, err := d.Claim(fmt.Sprintf("ballast of pid %d", os.Getpid()), max(0, u.Free()-o.leave))
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "taken")
	_, _ = io.Copy(io.Discard, in)
	return taken.Release()
}

func (o ballastOptions) tellFree(d *device.Device, out io.Writer) error {
	u, err := d.Usage()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, u.Free())
	return err
}
