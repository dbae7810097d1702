//go:build !unix

package gateway

// descriptors is how many files the process may have open.
func descriptors() int { return 1024 }
