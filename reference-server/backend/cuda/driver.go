//go:build linux

package cuda

import (
	"fmt"
	"unsafe"

	"github.com/ebitengine/purego"
)

// driver is the part of CUDA's driver API that is used. The library is part of
// the driver, so nothing else must be installed.
type driver struct {
	init                 func(flags uint32) status
	version              func(v *int32) status
	deviceCount          func(n *int32) status
	deviceGet            func(d *int32, i int32) status
	deviceName           func(name *byte, n int32, d int32) status
	deviceAttribute      func(v *int32, attribute int32, d int32) status
	deviceUUID           func(uuid *[16]byte, d int32) status
	primaryRetain        func(ctx *uintptr, d int32) status
	primaryRelease       func(d int32) status
	setCurrent           func(ctx uintptr) status
	memInfo              func(free, total *uint64) status
	alloc                func(p *ptr, n uint64) status
	free                 func(p ptr) status
	hostAlloc            func(p *unsafe.Pointer, n uint64, flags uint32) status
	hostFree             func(p unsafe.Pointer) status
	toDevice             func(to ptr, from unsafe.Pointer, n uint64, stream uintptr) status
	toHost               func(to unsafe.Pointer, from ptr, n uint64, stream uintptr) status
	within               func(to, from ptr, n uint64, stream uintptr) status
	fill                 func(to ptr, value byte, n uint64, stream uintptr) status
	streamCreate         func(s *uintptr, flags uint32) status
	streamDestroy        func(s uintptr) status
	streamSync           func(s uintptr) status
	capture              func(s uintptr, mode int32) status
	captureEnd           func(s uintptr, graph *uintptr) status
	instantiate          func(exec *uintptr, graph uintptr, flags uint64) status
	graphDestroy         func(g uintptr) status
	execDestroy          func(g uintptr) status
	graphLaunch          func(g uintptr, stream uintptr) status
	eventCreate          func(e *uintptr, flags uint32) status
	eventRecord          func(e, stream uintptr) status
	eventSync            func(e uintptr) status
	eventDestroy         func(e uintptr) status
	eventElapsed         func(ms *float32, from, to uintptr) status
	moduleLoad           func(m *uintptr, image unsafe.Pointer) status
	moduleFunction       func(f *uintptr, m uintptr, name string) status
	functionSet          func(f uintptr, attribute, value int32) status
	launch               func(config unsafe.Pointer, f uintptr, args, extra unsafe.Pointer) status
	errorName, errorText func(s status, text **byte) status
}

// status is the return value of driver calls; 0 is success.
type status int32

// The errors that are handled.
const outOfMemory status = 2

// ptr is an address in the device's memory.
type ptr uint64

func (p ptr) plus(n int64) ptr { return p + ptr(n) }

// Error is a failed call of CUDA.
type Error struct {
	Call, Name, Text string
	status           status
}

func (e *Error) Error() string {
	return fmt.Sprintf("CUDA: %s: %s (%s)", e.Call, e.Name, e.Text)
}

// openDriver loads the driver's library.
func openDriver() (*driver, error) {
	lib, err := purego.Dlopen("libcuda.so.1", purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return nil, fmt.Errorf("no NVIDIA driver is found: %w", err)
	}
	d := &driver{}
	for _, f := range []struct {
		name string
		f    any
	}{
		{"cuInit", &d.init}, {"cuDriverGetVersion", &d.version}, {"cuDeviceGetCount", &d.deviceCount}, {"cuDeviceGet", &d.deviceGet},
		{"cuDeviceGetName", &d.deviceName}, {"cuDeviceGetAttribute", &d.deviceAttribute}, {"cuDeviceGetUuid_v2", &d.deviceUUID},
		{"cuDevicePrimaryCtxRetain", &d.primaryRetain}, {"cuDevicePrimaryCtxRelease_v2", &d.primaryRelease}, {"cuCtxSetCurrent", &d.setCurrent},
		{"cuMemGetInfo_v2", &d.memInfo}, {"cuMemAlloc_v2", &d.alloc}, {"cuMemFree_v2", &d.free}, {"cuMemHostAlloc", &d.hostAlloc}, {"cuMemFreeHost", &d.hostFree},
		{"cuMemcpyHtoDAsync_v2", &d.toDevice}, {"cuMemcpyDtoHAsync_v2", &d.toHost}, {"cuMemcpyDtoDAsync_v2", &d.within}, {"cuMemsetD8Async", &d.fill},
		{"cuStreamCreate", &d.streamCreate}, {"cuStreamDestroy_v2", &d.streamDestroy}, {"cuStreamSynchronize", &d.streamSync},
		{"cuStreamBeginCapture_v2", &d.capture}, {"cuStreamEndCapture", &d.captureEnd}, {"cuGraphInstantiateWithFlags", &d.instantiate},
		{"cuGraphDestroy", &d.graphDestroy}, {"cuGraphExecDestroy", &d.execDestroy}, {"cuGraphLaunch", &d.graphLaunch},
		{"cuEventCreate", &d.eventCreate}, {"cuEventRecord", &d.eventRecord}, {"cuEventSynchronize", &d.eventSync}, {"cuEventElapsedTime", &d.eventElapsed}, {"cuEventDestroy_v2", &d.eventDestroy},
		{"cuModuleLoadData", &d.moduleLoad}, {"cuModuleGetFunction", &d.moduleFunction}, {"cuFuncSetAttribute", &d.functionSet},
		{"cuLaunchKernelEx", &d.launch}, {"cuGetErrorName", &d.errorName}, {"cuGetErrorString", &d.errorText},
	} {
		at, err := purego.Dlsym(lib, f.name)
		if err != nil {
			return nil, fmt.Errorf("the NVIDIA driver is too old: it lacks %s; one of CUDA 13.0 (580 or newer) is needed", f.name)
		}
		purego.RegisterFunc(f.f, at)
	}
	if err := d.check("cuInit", d.init(0)); err != nil {
		return nil, err
	}
	return d, nil
}

// check turns the status of a failed call into an error.
func (d *driver) check(call string, s status) error {
	if s == 0 {
		return nil
	}
	text := func(f func(status, **byte) status) string {
		var p *byte
		if f(s, &p) != 0 || p == nil {
			return fmt.Sprintf("error %d", s)
		}
		n := 0
		for *(*byte)(unsafe.Add(unsafe.Pointer(p), n)) != 0 {
			n++
		}
		return string(unsafe.Slice(p, n))
	}
	return &Error{Call: call, Name: text(d.errorName), Text: text(d.errorText), status: s}
}
