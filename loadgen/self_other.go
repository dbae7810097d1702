//go:build !unix

package loadgen

// cpuSeconds is not known here, and then not observed.
func cpuSeconds() float64 { return 0 }
