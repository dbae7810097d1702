package tensor

import (
	"encoding/binary"
	"math"
	"testing"
)

// Each of the 65,536 binary16 numbers is unchanged after conversion to float32
// and back. Floats between two of them round to the nearer one, ties to even.
func TestHalves(t *testing.T) {
	for i := range 1 << 16 {
		h := uint16(i)
		f := HalfToFloat(h)
		if f != f {
			if back := FloatToHalf(f); back&0x7c00 != 0x7c00 || back&0x3ff == 0 {
				t.Fatalf("NaN %04x comes back as %04x", h, back)
			}
			continue
		}
		if back := FloatToHalf(f); back != h {
			t.Fatalf("%04x is %v and comes back as %04x", h, f, back)
		}
		if h&0x7fff >= 0x7bff {
			continue // no finite neighbour above
		}
		next := HalfToFloat(h + 1)
		mid := (f + next) / 2
		even := h + h&1
		if got := FloatToHalf(mid); got != even {
			t.Fatalf("%v between %04x and %04x goes to %04x, want %04x", mid, h, h+1, got, even)
		}
		if got := FloatToHalf(math.Nextafter32(mid, f)); got != h {
			t.Fatalf("just below the middle of %04x and its neighbour goes to %04x", h, got)
		}
	}
	if FloatToHalf(70000) != 0x7c00 || FloatToHalf(-70000) != 0xfc00 || FloatToHalf(1e-9) != 0 {
		t.Error("what is too large or too small for a half")
	}
}

// row is one row of a single block.
func row(t *testing.T, typ Type, data []byte) []float32 {
	t.Helper()
	n, size := typ.Block()
	if len(data) != size {
		t.Fatalf("%s: a block of %d bytes, want %d", typ, len(data), size)
	}
	dst := make([]float32, n)
	Stored{Type: typ, Rows: 1, Cols: n, Data: data}.Row(dst, 0)
	return dst
}

func halfBytes(f float32) []byte { return binary.LittleEndian.AppendUint16(nil, FloatToHalf(f)) }

// Blocks written by hand from ggml's layouts.
func TestBlocksByHand(t *testing.T) {
	q8 := append(halfBytes(0.5), make([]byte, 32)...)
	q8[2], q8[33] = 10, 0x80
	if got := row(t, Q8_0, q8); got[0] != 5 || got[31] != -64 || got[1] != 0 {
		t.Errorf("Q8_0: %v", got)
	}
	q40 := append(halfBytes(2), make([]byte, 16)...)
	q40[2] = 0x1f // low nibble 15: weight 0; high nibble 1: weight 16
	if got := row(t, Q4_0, q40); got[0] != 14 || got[16] != -14 || got[1] != -16 {
		t.Errorf("Q4_0: %v", got)
	}
	q41 := append(append(halfBytes(2), halfBytes(-1)...), make([]byte, 16)...)
	q41[4] = 0x3f
	if got := row(t, Q4_1, q41); got[0] != 29 || got[16] != 5 || got[1] != -1 {
		t.Errorf("Q4_1: %v", got)
	}
	// Q4_K: group 0 with scale 3 and minimum 2, group 5 with a scale of 33 and a
	// minimum of 17, whose upper bits lie in other bytes.
	q4k := append(append(halfBytes(1), halfBytes(0.5)...), make([]byte, 140)...)
	scales := q4k[4:16]
	scales[0], scales[4] = 3, 2
	scales[9] = 33&15 | 17&15<<4 // scales[j+4] for j = 5
	scales[1] |= 33 >> 4 << 6
	scales[5] |= 17 >> 4 << 6
	q4k[16] = 7         // group 0, weight 0
	q4k[16+64+3] = 0x90 // group 5 (high nibbles of bytes 64 …), weight 3
	if got := row(t, Q4_K, q4k); got[0] != 3*7-1 || got[1] != -1 || got[5*32+3] != 33*9-8.5 {
		t.Errorf("Q4_K: %v %v %v", got[0], got[1], got[5*32+3])
	}
	// Q6_K: weight 0 is 45−32, weight 96+1 is in the high nibbles of byte 33.
	q6k := make([]byte, 210)
	copy(q6k[208:], halfBytes(0.25))
	q6k[0], q6k[128] = 45&15, 45>>4
	q6k[33], q6k[128+1] = 50&15<<4, 50>>4<<6
	q6k[192], q6k[192+6] = 4, 0xfe // scales 4 and −2
	if got := row(t, Q6_K, q6k); got[0] != 13 || got[97] != 0.25*-2*(50-32) {
		t.Errorf("Q6_K: %v %v", got[0], got[97])
	}
	bf := []byte{0x80, 0x3f}
	if got := row(t, BF16, bf); got[0] != 1 {
		t.Errorf("BF16: %v", got)
	}
}

func TestFormats(t *testing.T) {
	for _, name := range []string{"none", "fp16", "int8"} {
		f, err := ParseFormat(name)
		if err != nil || f.String() != name {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
	if _, err := ParseFormat("int4"); err == nil {
		t.Error("int4 was taken")
	}
}
