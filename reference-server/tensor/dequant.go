package tensor

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"math/rand/v2"
)

// Row writes the weights of row r to dst (cols), as float32. The block layouts
// are ggml's (https://github.com/ggml-org/ggml, ggml-common.h).
func (s Stored) Row(dst []float32, r int) {
	if s.Type == Random {
		s.draw(dst, r)
		return
	}
	per, size := s.Type.Block()
	rowBytes := s.Cols / per * size
	row := s.Data[r*rowBytes : (r+1)*rowBytes]
	for i := 0; i < s.Cols/per; i++ {
		dequantizeBlock(dst[i*per:(i+1)*per], row[i*size:(i+1)*size], s.Type)
	}
}

func dequantizeBlock(dst []float32, b []byte, t Type) {
	switch t {
	case F32:
		dst[0] = math.Float32frombits(binary.LittleEndian.Uint32(b))
	case F16:
		dst[0] = half(b)
	case BF16:
		dst[0] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16)
	case Q8_0: // scale, 32 × int8
		d := half(b)
		for i := range 32 {
			dst[i] = d * float32(int8(b[2+i]))
		}
	case Q4_0: // scale, 16 bytes: low nibbles are weights 0–15, high 16–31, offset by 8
		d := half(b)
		for i := range 16 {
			dst[i] = d * float32(int(b[2+i]&15)-8)
			dst[i+16] = d * float32(int(b[2+i]>>4)-8)
		}
	case Q4_1: // scale, minimum, 16 bytes of nibbles
		d, m := half(b), half(b[2:])
		for i := range 16 {
			dst[i] = d*float32(b[4+i]&15) + m
			dst[i+16] = d*float32(b[4+i]>>4) + m
		}
	case Q4_K:
		dequantizeQ4K(dst, b)
	case Q6_K:
		dequantizeQ6K(dst, b)
	}
}

// dequantizeQ4K: super-block of 256 as 8 groups of 32, each with a 6-bit scale
// and a 6-bit minimum; d and dmin, 12 bytes of scales, 128 bytes of nibbles.
func dequantizeQ4K(dst []float32, b []byte) {
	d, dmin := half(b), half(b[2:])
	scales, q := b[4:16], b[16:]
	for j := range 8 {
		var sc, m byte
		if j < 4 {
			sc, m = scales[j]&63, scales[j+4]&63
		} else {
			sc = scales[j+4]&15 | scales[j-4]>>6<<4
			m = scales[j+4]>>4 | scales[j]>>6<<4
		}
		for i := range 32 {
			nibble := q[j/2*32+i]
			if j%2 == 0 {
				nibble &= 15
			} else {
				nibble >>= 4
			}
			dst[j*32+i] = d*float32(sc)*float32(nibble) - dmin*float32(m)
		}
	}
}

// dequantizeQ6K: super-block of 256 as 16 groups of 16 with an 8-bit scale:
// 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 scales, d.
func dequantizeQ6K(dst []float32, b []byte) {
	low, high, scales, d := b[:128], b[128:192], b[192:208], half(b[208:])
	for n := range 2 {
		l, h, sc, y := low[n*64:], high[n*32:], scales[n*8:], dst[n*128:]
		for i := range 32 {
			q := [4]int{
				int(l[i]&15 | h[i]&3<<4),
				int(l[i+32]&15 | h[i]>>2&3<<4),
				int(l[i]>>4 | h[i]>>4&3<<4),
				int(l[i+32]>>4 | h[i]>>6<<4),
			}
			for k, v := range q {
				y[i+32*k] = d * float32(int8(sc[i/16+2*k])) * float32(v-32)
			}
		}
	}
}

// half reads an IEEE 754 binary16 as float32.
func half(b []byte) float32 { return HalfToFloat(binary.LittleEndian.Uint16(b)) }

// HalfToFloat converts an IEEE 754 binary16 to float32, exactly.
func HalfToFloat(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exp := uint32(h>>10) & 31
	frac := uint32(h & 0x3ff)
	switch {
	case exp == 0: // zero or subnormal: frac · 2⁻²⁴
		f := float32(frac) * (1.0 / (1 << 24))
		return math.Float32frombits(math.Float32bits(f) | sign)
	case exp == 31:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// FloatToHalf converts a float32 to the nearest IEEE 754 binary16, ties to
// even. Numbers that are too large become infinity.
func FloatToHalf(f float32) uint16 {
	bits := math.Float32bits(f)
	sign := uint16(bits >> 16 & 0x8000)
	exp := int(bits>>23&0xff) - 127
	frac := bits & 0x7fffff
	switch {
	case exp == 128 && frac != 0:
		return sign | 0x7e00
	case exp > 15:
		return sign | 0x7c00
	case exp < -25:
		return sign
	case exp < -14: // subnormal: shift the implicit one in
		frac |= 0x800000
		shift := uint(-exp - 1)
		return sign | uint16(roundShift(frac, shift))
	}
	return sign + uint16(roundShift(uint32(exp+15)<<23|frac, 13)) // a carry goes into the exponent, as it should
}

// roundShift is v >> n, rounded to nearest, ties to even.
func roundShift(v uint32, n uint) uint32 {
	half := uint32(1) << (n - 1)
	rest := v & (2*half - 1)
	v >>= n
	if rest > half || rest == half && v&1 == 1 {
		v++
	}
	return v
}

// draw draws row r of random weights. Their variance is 1/Cols, so that a product
// keeps the size of its input.
func (s Stored) draw(dst []float32, r int) {
	rng := rand.New(rand.NewPCG(s.Seed(), uint64(r)))
	scale := 1 / math.Sqrt(float64(s.Cols))
	for i := range s.Cols {
		dst[i] = float32(rng.NormFloat64() * scale)
	}
}

// Seed is the seed of random weights, by the tensor's name.
func (s Stored) Seed() uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s.Name)) // it never fails
	return h.Sum64()
}
