//go:build !unix

package loadgen

// cpuSeconds is not known on this system, and is not observed.
func cpuSeconds() float64 { return 0 }
