//go:build !linux

package cuda

import (
	"errors"

	"github.com/launchgate/launchgate/reference-server/tensor"
)

// GPU is a GPU, which is not supported here.
type GPU struct {
	UUID  string
	Total int64
}

// Model is a model on it.
type Model struct{ tensor.Compiler }

// Open returns an error: GPUs are supported on Linux only.
func Open(int) (*GPU, error) { return nil, errors.New("GPUs are used on Linux alone") }

// Describe, Free, NewModel and Close are never called.
func (*GPU) Describe() string     { return "" }
func (*GPU) Free() (int64, error) { return 0, errors.ErrUnsupported }
func (*GPU) NewModel() *Model     { return &Model{} }
func (*GPU) Close()               {}

// Hold is never called.
func (*GPU) Hold(int64) (func(), error) { return nil, errors.ErrUnsupported }

// Name, Taken and Close are never called.
func (*Model) Name() string { return "" }
func (*Model) Taken() int64 { return 0 }
func (*Model) Close()       {}

// OutOfMemory is never called.
func OutOfMemory(error) bool { return false }
