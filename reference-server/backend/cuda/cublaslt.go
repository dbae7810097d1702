//go:build linux

package cuda

import (
	"errors"
	"fmt"
	"math"
	"unsafe"

	"github.com/ebitengine/purego"
)

// cublasLt multiplies large matrices if NVIDIA's library is found. It is
// searched in the paths of the dynamic linker (LD_LIBRARY_PATH).
type cublasLt struct {
	handle     uintptr
	create     func(h *uintptr) int32
	destroy    func(h uintptr) int32
	newDesc    func(d *uintptr, compute, scale int32) int32
	setDesc    func(d uintptr, attribute int32, v unsafe.Pointer, n uintptr) int32
	newLayout  func(l *uintptr, kind int32, rows, cols uint64, ld int64) int32
	freeLayout func(l uintptr) int32
	newPrefer  func(p *uintptr) int32
	setPrefer  func(p uintptr, attribute int32, v unsafe.Pointer, n uintptr) int32
	heuristic  func(h, desc, a, b, c, d, prefer uintptr, want int32, results unsafe.Pointer, got *int32) int32
	matmul     func(h, desc uintptr, alpha unsafe.Pointer, a ptr, la uintptr, b ptr, lb uintptr, beta unsafe.Pointer, c ptr, lc uintptr, d ptr, ld uintptr, algo unsafe.Pointer, work ptr, workBytes uintptr, stream uintptr) int32
	desc       map[int32]uintptr // how numbers of a type are multiplied
	prefer     uintptr
	ordered    uintptr // prefers algorithms that sum over the columns in one go
	plans      map[ltShape]*ltPlan
	numbers    [2]float32 // 0 and 1, for beta and alpha
	whole      [2]int32   // the same, where sums are int32
}

// ltWorkspace is the workspace that Hopper's kernels need.
const ltWorkspace = 32 << 20

// ltShape is a product: y (tokens, rows) of 16 bits or float32, of int8 int32.
type ltShape struct {
	kind, out          int32
	rows, cols, tokens int
	exact              bool // the result of a token must not depend on the number of tokens
}

// ltPlan is how a shape is computed.
type ltPlan struct {
	w, x, y   uintptr // layouts
	algorithm [64]byte
}

// ltResult is cublasLtMatmulHeuristicResult_t.
type ltResult struct {
	algorithm [64]byte
	workspace uint64
	state     int32
	waves     float32
	_         [4]int32
}

// Types of numbers, as CUDA counts them.
const (
	typeF32  int32 = 0
	typeF16  int32 = 2
	typeI8   int32 = 3
	typeI32  int32 = 10
	typeBF16 int32 = 14
	typeE4M3 int32 = 28
)

func openCublasLt() (*cublasLt, error) {
	var failed []error
	for _, name := range []string{"libcublasLt.so.13", "libcublasLt.so.12"} {
		lib, err := purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_LOCAL)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		return newCublasLt(lib)
	}
	return nil, errors.Join(failed...)
}

func newCublasLt(lib uintptr) (*cublasLt, error) {
	l := &cublasLt{desc: map[int32]uintptr{}, plans: map[ltShape]*ltPlan{}, numbers: [2]float32{0, 1}, whole: [2]int32{0, 1}}
	for _, f := range []struct {
		name string
		f    any
	}{
		{"cublasLtCreate", &l.create}, {"cublasLtDestroy", &l.destroy}, {"cublasLtMatmulDescCreate", &l.newDesc}, {"cublasLtMatmulDescSetAttribute", &l.setDesc},
		{"cublasLtMatrixLayoutCreate", &l.newLayout}, {"cublasLtMatrixLayoutDestroy", &l.freeLayout}, {"cublasLtMatmulPreferenceCreate", &l.newPrefer},
		{"cublasLtMatmulPreferenceSetAttribute", &l.setPrefer}, {"cublasLtMatmulAlgoGetHeuristic", &l.heuristic}, {"cublasLtMatmul", &l.matmul},
	} {
		at, err := purego.Dlsym(lib, f.name)
		if err != nil {
			return nil, err
		}
		purego.RegisterFunc(f.f, at)
	}
	const in32F, in32I = 68, 72 // what sums are computed in
	var half, eight, float8 uintptr
	transposed, bytes, perRow, quick, unsplit := int32(1), uint64(ltWorkspace), int32(3), int8(1), uint32(0)
	for _, s := range []int32{
		l.create(&l.handle), l.newDesc(&half, in32F, typeF32), l.newDesc(&eight, in32I, typeI32),
		l.setDesc(half, 3, unsafe.Pointer(&transposed), 4), l.setDesc(eight, 3, unsafe.Pointer(&transposed), 4), // weights lie row after row
		l.newPrefer(&l.prefer), l.setPrefer(l.prefer, 1, unsafe.Pointer(&bytes), 8),
		l.newPrefer(&l.ordered), l.setPrefer(l.ordered, 1, unsafe.Pointer(&bytes), 8), l.setPrefer(l.ordered, 3, unsafe.Pointer(&unsplit), 4),
	} {
		if s != 0 {
			return nil, fmt.Errorf("cuBLASLt cannot be used: status %d", s)
		}
	}
	l.desc[typeF16], l.desc[typeBF16], l.desc[typeI8] = half, half, eight
	if l.newDesc(&float8, in32F, typeF32) == 0 && l.setDesc(float8, 3, unsafe.Pointer(&transposed), 4) == 0 && l.setDesc(float8, 25, unsafe.Pointer(&quick), 1) == 0 &&
		l.setDesc(float8, 31, unsafe.Pointer(&perRow), 4) == 0 && l.setDesc(float8, 32, unsafe.Pointer(&perRow), 4) == 0 {
		l.desc[typeE4M3] = float8 // since CUDA 12.9; sums are kept with fewer bits, which is quicker
	}
	return l, nil
}

// scale sets the scales of the rows of weights and of the tokens for float8.
func (l *cublasLt) scale(rows, tokens ptr) {
	l.setDesc(l.desc[typeE4M3], 17, unsafe.Pointer(&rows), 8)
	l.setDesc(l.desc[typeE4M3], 18, unsafe.Pointer(&tokens), 8)
}

func (l *cublasLt) close() {
	if l != nil {
		l.destroy(l.handle)
	}
}

// multiply computes y = x × wᵀ, or adds it to y, and reports whether it could.
func (l *cublasLt) multiply(g *GPU, s ltShape, y, w, x ptr, add bool, work, scratch ptr, spare int64) bool {
	p, ok := l.plans[s]
	if !ok {
		p = l.plan(g, s, w, x, work, scratch, spare)
		l.plans[s] = p
	}
	return p != nil && l.run(p, s.kind, y, w, x, add, work, g.stream)
}

func (l *cublasLt) run(p *ltPlan, kind int32, y, w, x ptr, add bool, work ptr, stream uintptr) bool {
	alpha, beta := unsafe.Pointer(&l.numbers[1]), unsafe.Pointer(&l.numbers[0])
	if kind == typeI8 {
		alpha, beta = unsafe.Pointer(&l.whole[1]), unsafe.Pointer(&l.whole[0])
	}
	if add {
		beta = alpha
	}
	return l.matmul(l.handle, l.desc[kind], alpha, w, p.w, x, p.x, beta, y, p.y, y, p.y, unsafe.Pointer(&p.algorithm[0]), work, ltWorkspace, stream) == 0
}

// plan chooses an algorithm once for each shape. If there is scratch memory, it
// measures those that cuBLASLt proposes and takes the fastest.
func (l *cublasLt) plan(g *GPU, s ltShape, w, x, work, scratch ptr, spare int64) *ltPlan {
	p, found := l.propose(s, l.prefer, 8)
	if p == nil {
		return nil
	}
	best := float32(math.Inf(1))
	p.algorithm = found[0]
	each := int64(2)
	if s.out == typeF32 || s.out == typeI32 {
		each = 4
	}
	if int64(s.rows)*int64(s.tokens)*each > spare {
		return p
	}
	chosen := p.algorithm
	for _, algorithm := range found {
		p.algorithm = algorithm
		took, ok := g.timed(3, func() bool { return l.run(p, s.kind, scratch, w, x, false, work, g.stream) })
		if ok && took < best {
			best, chosen = took, algorithm
		}
	}
	p.algorithm = chosen
	return p
}

// propose makes the layouts of a product, and asks for up to most algorithms.
func (l *cublasLt) propose(s ltShape, prefer uintptr, most int) (*ltPlan, [][64]byte) {
	p := &ltPlan{}
	var got int32
	results := make([]ltResult, most)
	if l.newLayout(&p.w, s.kind, uint64(s.cols), uint64(s.rows), int64(s.cols)) != 0 ||
		l.newLayout(&p.x, s.kind, uint64(s.cols), uint64(s.tokens), int64(s.cols)) != 0 ||
		l.newLayout(&p.y, s.out, uint64(s.rows), uint64(s.tokens), int64(s.rows)) != 0 ||
		l.heuristic(l.handle, l.desc[s.kind], p.w, p.x, p.y, p.y, prefer, int32(len(results)), unsafe.Pointer(&results[0]), &got) != 0 || got < 1 {
		return nil, nil
	}
	var found [][64]byte
	for _, r := range results[:got] {
		found = append(found, r.algorithm)
	}
	return p, found
}
