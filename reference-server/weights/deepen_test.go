package weights

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

// layered is a file of two layers, each a matrix that adds and one that does not.
func layered() []byte {
	var f bytes.Buffer
	u32 := func(v uint32) { f.Write(binary.LittleEndian.AppendUint32(nil, v)) }
	u64 := func(v uint64) { f.Write(binary.LittleEndian.AppendUint64(nil, v)) }
	str := func(s string) { u64(uint64(len(s))); f.WriteString(s) }
	names := []string{"token_embd.weight", "blk.0.attn_q.weight", "blk.0.ffn_down.weight", "blk.1.attn_q.weight", "blk.1.ffn_down.weight"}
	f.WriteString("GGUF")
	u32(3)
	u64(uint64(len(names)))
	u64(2)
	str("general.architecture")
	u32(ggufString)
	str("llama")
	str("llama.block_count")
	u32(ggufUint32)
	u32(2)
	for i, name := range names {
		str(name)
		u32(1)
		u64(8)
		u32(0) // F32
		u64(uint64(32 * i))
	}
	f.Write(make([]byte, (32-f.Len()%32)%32))
	for i := range names {
		f.Write(bytes.Repeat([]byte{byte(i + 1)}, 32))
	}
	return f.Bytes()
}

// Every layer is followed by layers that add nothing, and everything else is
// unchanged.
func TestDeepen(t *testing.T) {
	var deep bytes.Buffer
	if err := Deepen(&deep, layered(), 3); err != nil {
		t.Fatal(err)
	}
	meta, tensors, err := parseGGUF(deep.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if n := meta.Int("llama.block_count", 0); n != 6 || len(tensors) != 13 {
		t.Errorf("%d layers, %d tensors", n, len(tensors))
	}
	want := map[string]byte{"token_embd.weight": 1}
	for layer := range 6 {
		want[fmt.Sprintf("blk.%d.attn_q.weight", layer)] = byte(2 + 2*(layer/3))
		want[fmt.Sprintf("blk.%d.ffn_down.weight", layer)] = 0
	}
	want["blk.0.ffn_down.weight"], want["blk.3.ffn_down.weight"] = 3, 5
	for name, filled := range want {
		if got := tensors[name].Data; !bytes.Equal(got, bytes.Repeat([]byte{filled}, 32)) {
			t.Errorf("%s is %v, want 32 × %d", name, got, filled)
		}
	}
	for problem, tt := range map[string]struct {
		b     []byte
		times int
	}{"not a GGUF file": {[]byte("text"), 3}, "not deeper": {layered(), 1}, ".block_count how many": {small(), 3}} {
		if err := Deepen(&deep, tt.b, tt.times); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%v, want %q", err, problem)
		}
	}
}
