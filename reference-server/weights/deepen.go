package weights

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
)

// layerOf splits the name of a layer's tensor.
var layerOf = regexp.MustCompile(`^blk\.(\d+)\.(.+)$`)

// addsTo are the tensors with which a layer adds to the residual stream. If
// they are zero, the layer adds nothing.
var addsTo = map[string]bool{"attn_output.weight": true, "attn_output.bias": true, "ffn_down.weight": true, "ffn_down.bias": true}

// Deepen writes a GGUF file whose every layer is followed by times−1 like it
// that add nothing: the same answers, to the last bit, for times the work. It
// is for those who have to tell a slow version from a good one.
//
//	header │ metadata, with times the layers │ tensors, more │ data as it was │ zeros
//
// The added layers point to the data of the first, except for the tensors that
// are zero.
func Deepen(w io.Writer, b []byte, times int) error {
	if times < 2 {
		return fmt.Errorf("a model of %d times its layers is not deeper", times)
	}
	meta, tensors, err := parseGGUF(b)
	if err != nil {
		return err
	}
	architecture, _ := meta["general.architecture"].(string)
	key := architecture + ".block_count"
	r := &reader{b: b}
	r.bytes(4 + 4) // the magic and the version, which were read
	count, pairs := r.u64(), r.u64()
	head := append([]byte(nil), b[:r.at]...)
	deeper := false
	for range pairs {
		from := r.at
		name, typ := r.str(), r.u32()
		value := r.at
		r.value(typ, 0)
		pair := append([]byte(nil), b[from:r.at]...)
		if name == key && typ == ggufUint32 {
			at := pair[value-from:]
			binary.LittleEndian.PutUint32(at, binary.LittleEndian.Uint32(at)*uint32(times))
			deeper = true
		}
		head = append(head, pair...)
	}
	if !deeper {
		return fmt.Errorf("the file does not say in %s how many layers it has", key)
	}
	infos, err := r.tensorInfos(int(count))
	if err != nil {
		return err
	}
	up := aligner(meta)
	start := up(uint64(r.at))
	data, zeros := b[min(start, uint64(len(b))):], 0
	zerosAt, all := up(uint64(len(data))), make([]info, 0, len(infos)*times)
	for _, in := range infos {
		m := layerOf.FindStringSubmatch(in.name)
		if m == nil {
			all = append(all, in)
			continue
		}
		layer, err := strconv.Atoi(m[1])
		if err != nil {
			return fmt.Errorf("tensor %q: %w", in.name, err)
		}
		for i := range times {
			more := in
			more.name = fmt.Sprintf("blk.%d.%s", layer*times+i, m[2])
			if i > 0 && addsTo[m[2]] { // all zero, in every type that can be read
				more.offset = zerosAt
				zeros = max(zeros, len(tensors[in.name].Data))
			}
			all = append(all, more)
		}
	}
	if zeros == 0 {
		return errors.New("the file has no layers blk.0.… that can be repeated")
	}
	binary.LittleEndian.PutUint64(head[8:], uint64(len(all)))
	for _, in := range all {
		head = binary.LittleEndian.AppendUint64(head, uint64(len(in.name)))
		head = append(head, in.name...)
		head = append(head, dims(in)...)
		head = binary.LittleEndian.AppendUint32(head, in.typ)
		head = binary.LittleEndian.AppendUint64(head, in.offset)
	}
	for _, part := range [][]byte{head, make([]byte, up(uint64(len(head)))-uint64(len(head))), data, make([]byte, zerosAt-uint64(len(data))), make([]byte, zeros)} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// dims are a tensor's dimensions in the file's format: a vector has one.
func dims(in info) []byte {
	if in.rows == 1 {
		return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint32(nil, 1), in.cols)
	}
	b := binary.LittleEndian.AppendUint32(nil, 2)
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, in.cols), in.rows)
}
