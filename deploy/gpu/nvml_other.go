//go:build !linux || !cgo

package gpu

import "errors"

// Library is NVML, which cannot be had here.
type Library struct{}

// Open says that there is no NVML: it is called through C, on Linux.
func Open() (*Library, error) {
	return nil, errors.New("NVIDIA's management library (NVML) is called on Linux alone, by a launchgate that was built with C")
}

// List is never called.
func (*Library) List() ([]GPU, error) { return nil, nil }

// Read is never called.
func (*Library) Read() []Reading { return nil }

// Watch and Close are never called.
func (*Library) Watch() {}
func (*Library) Close() {}

// Limits and LimitPower are never called.
func (*Library) Limits(string) (Limits, error)    { return Limits{}, nil }
func (*Library) LimitPower(string, float64) error { return nil }
