package cpu

import (
	"fmt"

	"github.com/launchgate/launchgate/reference-server/tensor"
)

// matrix has weights in panels (see body.h). One of f32, f16 and int8 is set.
type matrix struct {
	rows, cols int
	f32        []float32
	f16        []uint16
	int8       []uint8
	scale      []float32 // of int8
}

func (m *matrix) Rows() int { return m.rows }
func (m *matrix) Cols() int { return m.cols }

func (m *matrix) Bytes() int64 {
	return int64(4*len(m.f32) + 2*len(m.f16) + len(m.int8) + 4*len(m.scale))
}

func (m *matrix) panels() int { return (m.rows + panel - 1) / panel }

// groups is the number of int8 groups in a row; the last may be padded.
func (m *matrix) groups() int { return (m.cols + group - 1) / group }

// Load converts a stored matrix to panels of a format.
func (b *Backend) Load(s tensor.Stored, f tensor.Format) (tensor.Matrix, error) {
	m := &matrix{rows: s.Rows, cols: s.Cols}
	padded := m.panels() * panel
	switch f {
	case tensor.FormatF32:
		m.f32 = make([]float32, padded*s.Cols)
	case tensor.FormatF16:
		m.f16 = make([]uint16, padded*s.Cols)
	case tensor.FormatInt8:
		m.int8 = make([]uint8, padded*m.groups()*group)
		m.scale = make([]float32, padded*m.groups())
	default:
		return nil, fmt.Errorf("the CPU has no weight format %d", f)
	}
	b.parallel(m.panels(), func(_, from, to int) {
		row := make([]float32, m.groups()*group)
		for r := from * panel; r < min(to*panel, m.rows); r++ {
			s.Row(row[:s.Cols], r)
			m.pack(row, r)
		}
	})
	return m, nil
}

// pack writes row r, padded with zeros to whole groups, to its lane.
func (m *matrix) pack(row []float32, r int) {
	p, lane := r/panel, r%panel
	switch {
	case m.f32 != nil:
		for k, v := range row[:m.cols] {
			m.f32[(p*m.cols+k)*panel+lane] = v
		}
	case m.f16 != nil:
		for k, v := range row[:m.cols] {
			m.f16[(p*m.cols+k)*panel+lane] = tensor.FloatToHalf(v)
		}
	default:
		groups := m.groups()
		q, scale, off := make([]int8, len(row)), make([]float32, groups), make([]int32, groups)
		plain{}.quantize(q, scale, off, row)
		for g := range groups {
			m.scale[(p*groups+g)*panel+lane] = scale[g]
			for k := range group {
				m.int8[(p*groups+g)*panel*group+k/4*panel*4+lane*4+k%4] = uint8(int(q[g*group+k]) + 128)
			}
		}
	}
}

// row reads row r back as float32: for embeddings.
func (m *matrix) row(dst []float32, r int) {
	p, lane := r/panel, r%panel
	switch {
	case m.f32 != nil:
		for k := range dst {
			dst[k] = m.f32[(p*m.cols+k)*panel+lane]
		}
	case m.f16 != nil:
		for k := range dst {
			dst[k] = tensor.HalfToFloat(m.f16[(p*m.cols+k)*panel+lane])
		}
	default:
		groups := m.groups()
		for k := range dst {
			g, i := k/group, k%group
			q := int(m.int8[(p*groups+g)*panel*group+i/4*panel*4+lane*4+i%4]) - 128
			dst[k] = float32(q) * m.scale[(p*groups+g)*panel+lane]
		}
	}
}
