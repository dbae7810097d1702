//go:build !cgo || !amd64

package cpu

func fastest() kernels { return plain{} }

func available() []kernels { return []kernels{plain{}} }
