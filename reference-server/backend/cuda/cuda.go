//go:build linux

// Package cuda computes whole engine steps on an NVIDIA GPU, Ampere or newer.
// It needs only the driver, whose library is opened at run time. The kernels
// (kernels/*.cu) are shipped compiled. cuBLASLt multiplies large matrices if it
// is found. One OS thread owns the device, and all others pass work to it.
//
// A model is compiled (tensor.Net): its weights are joined so that one kernel
// does what several operations do on the CPU, and a decode step is recorded as
// a CUDA graph for each size of batch. Weights and activations are float16 or
// bfloat16, sums float32, the residual stream float32.
package cuda

//go:generate ./generate.sh

import (
	_ "embed"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"unsafe"
)

//go:embed kernels.fatbin
var fatbin []byte

// GPU is one device, opened.
type GPU struct {
	Index  int
	Name   string
	UUID   string
	Total  int64 // bytes of memory
	SMs    int
	Driver int // CUDA version of the driver: 13000 is 13.0
	major  int // compute capability
	minor  int

	d         *driver
	device    int32
	stream    uintptr
	module    uintptr
	functions map[string]uintptr
	lt        *cublasLt // nil: not found
	noLt      error     // why

	work  chan func()
	ended chan struct{}
	once  sync.Once
	args  launchArgs
	slot  int   // bytes of shared memory of every block; 0: as many as it needs (program.few)
	err   error // the first failed launch since the last do
}

// Open opens device i. The error says if there is no GPU, no driver, or a GPU
// that cannot run the kernels.
func Open(i int) (*GPU, error) {
	d, err := openDriver()
	if err != nil {
		return nil, err
	}
	g := &GPU{Index: i, d: d, functions: map[string]uintptr{}, work: make(chan func()), ended: make(chan struct{})}
	opened := make(chan error)
	go g.own(opened)
	if err := <-opened; err != nil {
		<-g.ended
		return nil, err
	}
	return g, nil
}

// own runs on the device's thread.
func (g *GPU) own(opened chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	defer close(g.ended)
	if err := g.open(); err != nil {
		opened <- err
		return
	}
	opened <- nil
	for f := range g.work {
		f()
	}
	g.lt.close()
	g.d.streamDestroy(g.stream)
	g.d.primaryRelease(g.device)
}

func (g *GPU) open() error {
	var n int32
	if err := g.d.check("cuDeviceGetCount", g.d.deviceCount(&n)); err != nil {
		return err
	}
	if g.Index >= int(n) {
		return fmt.Errorf("there is no GPU %d; %d are found", g.Index, n)
	}
	var ctx uintptr
	var name [256]byte
	var uuid [16]byte
	var version int32
	var free, total uint64
	var err error
	try := func(call string, s func() status) {
		if err == nil {
			err = g.d.check(call, s())
		}
	}
	attribute := func(a int32) (v int32) {
		try("cuDeviceGetAttribute", func() status { return g.d.deviceAttribute(&v, a, g.device) })
		return v
	}
	try("cuDeviceGet", func() status { return g.d.deviceGet(&g.device, int32(g.Index)) })
	try("cuDeviceGetName", func() status { return g.d.deviceName(&name[0], int32(len(name)), g.device) })
	try("cuDeviceGetUuid", func() status { return g.d.deviceUUID(&uuid, g.device) })
	try("cuDriverGetVersion", func() status { return g.d.version(&version) })
	g.major, g.minor, g.SMs = int(attribute(75)), int(attribute(76)), int(attribute(16))
	if err == nil && g.major < 8 {
		return fmt.Errorf("GPU %d has compute capability %d.%d; Ampere (8.0) or newer is needed", g.Index, g.major, g.minor)
	}
	try("cuDevicePrimaryCtxRetain", func() status { return g.d.primaryRetain(&ctx, g.device) })
	try("cuCtxSetCurrent", func() status { return g.d.setCurrent(ctx) })
	try("cuMemGetInfo", func() status { return g.d.memInfo(&free, &total) })
	try("cuStreamCreate", func() status { return g.d.streamCreate(&g.stream, 1) }) // apart from the default stream
	try("cuModuleLoadData", func() status { return g.d.moduleLoad(&g.module, unsafe.Pointer(&fatbin[0])) })
	if err != nil {
		return err
	}
	g.Name, g.Total, g.Driver = text(name[:]), int64(total), int(version)
	g.UUID = fmt.Sprintf("GPU-%x-%x-%x-%x-%x", uuid[:4], uuid[4:6], uuid[6:8], uuid[8:10], uuid[10:])
	g.lt, g.noLt = openCublasLt()
	return nil
}

func text(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// Close ends the device's thread. What was allocated must be released before.
func (g *GPU) Close() {
	g.once.Do(func() { close(g.work) })
	<-g.ended
}

// do runs f on the device's thread, and returns f's error or that of a launch
// in it.
func (g *GPU) do(f func() error) error {
	var err error
	done := make(chan struct{})
	g.work <- func() {
		defer close(done)
		g.err = nil
		err = errors.Join(f(), g.err)
	}
	<-done
	return err
}

// Describe describes the GPU, for the log.
func (g *GPU) Describe() string {
	products := "cuBLASLt"
	if g.lt == nil {
		products = "own kernels for products"
	}
	return fmt.Sprintf("cuda:%d (%s, compute capability %d.%d, %s)", g.Index, g.Name, g.major, g.minor, products)
}

// Free is how much memory of the device is free at this moment.
func (g *GPU) Free() (free int64, err error) {
	err = g.do(func() error {
		var f, total uint64
		s := g.d.memInfo(&f, &total)
		free = int64(f)
		return g.d.check("cuMemGetInfo", s)
	})
	return free, err
}

// Hold allocates memory, as another program would, until giveBack is called.
func (g *GPU) Hold(bytes int64) (giveBack func(), err error) {
	var p ptr
	if err := g.do(func() (err error) { p, err = g.alloc(bytes); return err }); err != nil {
		return nil, err
	}
	return func() { _ = g.do(func() error { g.d.free(p); return nil }) }, nil
}

// alloc allocates memory of the device. It must run on the device's thread.
func (g *GPU) alloc(n int64) (p ptr, err error) {
	s := g.d.alloc(&p, uint64(max(n, 256)))
	return p, g.d.check(fmt.Sprintf("cuMemAlloc of %d bytes", n), s)
}

func (g *GPU) sync() error { return g.d.check("cuStreamSynchronize", g.d.streamSync(g.stream)) }

// OutOfMemory reports whether an error is that the device has no memory left.
func OutOfMemory(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.status == outOfMemory
}

// launchArgs is a kernel launch in the form of cuLaunchKernelEx. It is reused,
// so that launches allocate nothing.
type launchArgs struct {
	config struct {
		gx, gy, gz, bx, by, bz, shared uint32
		_                              uint32
		stream                         uintptr
		attributes                     *launchAttribute
		count                          uint32
	}
	attributes [2]launchAttribute
	values     [20]uint64
	at         [20]unsafe.Pointer
}

// launchAttribute is CUlaunchAttribute: an id and 64 bytes.
type launchAttribute struct {
	id    uint32
	_     uint32
	value [64]byte
}

// grid is the size of a launch.
type grid struct {
	x, y, z int // blocks
	threads int
	shared  int // bytes
	split   int // percent of a processor's fast memory that is shared memory, the rest is cache; 0: the driver chooses
}

// launch starts a kernel. Arguments are ptr, int, float32 and int64, by their C
// types. A kernel may start before the previous one has ended, and waits for it
// itself. The first error is kept for do.
func (g *GPU) launch(name string, size grid, args ...any) {
	if g.err != nil || size.x == 0 || size.y == 0 {
		return
	}
	f, err := g.function(name)
	if err != nil {
		g.err = err
		return
	}
	l := &g.args
	for i, a := range args {
		switch v := a.(type) {
		case ptr:
			l.values[i] = uint64(v)
		case int:
			l.values[i] = uint64(uint32(int32(v)))
		case int64:
			l.values[i] = uint64(v)
		case float32:
			l.values[i] = uint64(*(*uint32)(unsafe.Pointer(&v)))
		default:
			panic(fmt.Sprintf("cuda: a kernel argument is a %T", a))
		}
		l.at[i] = unsafe.Pointer(&l.values[i])
	}
	c := &l.config
	c.gx, c.gy, c.gz = uint32(size.x), uint32(size.y), uint32(max(1, size.z))
	c.bx, c.by, c.bz, c.shared, c.stream = uint32(size.threads), 1, 1, uint32(max(size.shared, g.slot)), g.stream
	c.attributes, c.count = &l.attributes[0], 0
	attribute := func(id uint32, v byte) {
		l.attributes[c.count].id, l.attributes[c.count].value[0] = id, v
		c.count++
	}
	if g.major >= 9 {
		attribute(6, 1) // programmatic stream serialization
	}
	if g.slot > 0 {
		attribute(14, 100) // preferred shared memory carveout
	} else if size.split > 0 {
		attribute(14, byte(size.split))
	}
	s := g.d.launch(unsafe.Pointer(c), f, unsafe.Pointer(&l.at[0]), nil)
	g.err = g.d.check("launch of "+name, s)
}

// function finds a kernel and allows it to use all shared memory.
func (g *GPU) function(name string) (uintptr, error) {
	if f, ok := g.functions[name]; ok {
		return f, nil
	}
	var f uintptr
	if err := g.d.check("cuModuleGetFunction "+name, g.d.moduleFunction(&f, g.module, name)); err != nil {
		return 0, err
	}
	if err := g.d.check("cuFuncSetAttribute", g.d.functionSet(f, 8, int32(g.shared()))); err != nil {
		return 0, err
	}
	g.functions[name] = f
	return f, nil
}

// shared is the most shared memory that a block may use.
func (g *GPU) shared() int {
	if g.major == 9 || g.major == 8 && g.minor == 0 {
		return 160 << 10
	}
	return 99 << 10 // of 8.6 and 8.9
}

// timed is how long work takes on the device in milliseconds: the shortest of
// several tries. It runs on the device's thread.
func (g *GPU) timed(times int, work func() bool) (ms float32, ok bool) {
	var from, to uintptr
	if g.d.eventCreate(&from, 0) != 0 || g.d.eventCreate(&to, 0) != 0 {
		return 0, false
	}
	defer func() { g.d.eventDestroy(from); g.d.eventDestroy(to) }()
	for range times {
		g.d.eventRecord(from, g.stream)
		if !work() {
			return 0, false
		}
		g.d.eventRecord(to, g.stream)
		var took float32
		if g.d.eventSync(to) != 0 || g.d.eventElapsed(&took, from, to) != 0 {
			return 0, false
		}
		if !ok || took < ms {
			ms, ok = took, true
		}
	}
	return ms, ok
}
