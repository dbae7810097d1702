package grammar

import (
	"encoding/binary"
	"sort"
	"sync"
)

// Tokens are the tokens of a vocabulary.
type Tokens interface {
	Bytes(id int32) string // what the token writes; empty for control tokens
	IsControl(id int32) bool
	Ends(id int32) bool
}

// Vocabulary is the tokens of a model in the order of their bytes, so that a
// common beginning is checked once. It is made once for a model.
type Vocabulary struct {
	Tokens
	sorted []entry
	ends   []int32
	size   int
}

// entry is a token, and how many bytes it has in common with the one before.
type entry struct {
	id     int32
	text   string
	common int
}

// NewVocabulary sorts the tokens 0 to n-1.
func NewVocabulary(t Tokens, n int) *Vocabulary {
	v := &Vocabulary{Tokens: t, size: n}
	for id := range int32(n) {
		text := t.Bytes(id)
		switch {
		case t.Ends(id):
			v.ends = append(v.ends, id)
		case text != "" && !t.IsControl(id):
			v.sorted = append(v.sorted, entry{id: id, text: text})
		}
	}
	sort.Slice(v.sorted, func(i, j int) bool { return v.sorted[i].text < v.sorted[j].text })
	for i := 1; i < len(v.sorted); i++ {
		a, b := v.sorted[i-1].text, v.sorted[i].text
		n := 0
		for n < min(len(a), len(b)) && a[n] == b[n] {
			n++
		}
		v.sorted[i].common = n
	}
	return v
}

// Mask is a set of tokens.
type Mask []uint64

// Has reports whether a token is in the set.
func (m Mask) Has(id int32) bool { return m[id/64]&(1<<(id%64)) != 0 }

func (m Mask) add(id int32) { m[id/64] |= 1 << (id % 64) }

// Mask is the set of all tokens that may come next. It takes at most as many
// steps as the vocabulary has bytes.
func (j *JSON) Mask() []uint64 {
	return j.form.masks.of(&j.at, func() Mask { m, _ := j.form.vocabulary.mask(&j.at); return m })
}

// mask finds the tokens that the automaton accepts, and returns how many bytes
// it checked.
func (v *Vocabulary) mask(at *machine) (m Mask, steps int) {
	m = make(Mask, (v.size+63)/64)
	if at.complete() {
		for _, id := range v.ends {
			m.add(id)
		}
	}
	states := make([]machine, 1, 32) // state after each byte of the token before
	states[0].become(at)
	failed := -1 // index of the byte that was not accepted
	for _, e := range v.sorted {
		if failed >= 0 && e.common > failed {
			continue // it has that byte too
		}
		failed = -1
		for n := e.common; n < len(e.text); n++ {
			if n+1 == len(states) {
				states = append(states, machine{})
			}
			next := &states[n+1]
			next.become(&states[n])
			if steps++; !next.step(e.text[n]) {
				failed = n
				break
			}
		}
		if failed < 0 {
			m.add(e.id)
		}
	}
	return m, steps
}

// masks caches the masks of frequent states, such as within a string.
type masks struct {
	mu   sync.Mutex
	kept map[string]Mask
}

const masksKept = 64

func (k *masks) of(at *machine, find func() Mask) Mask {
	key := at.key()
	k.mu.Lock()
	m, ok := k.kept[key]
	k.mu.Unlock()
	if ok {
		return m
	}
	m = find()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kept == nil || len(k.kept) >= masksKept {
		k.kept = map[string]Mask{}
	}
	k.kept[key] = m
	return m
}

// key identifies a state of the automaton among those of its form.
func (m *machine) key() string {
	b := binary.AppendUvarint(nil, uint64(m.blanks))
	for _, f := range m.stack {
		for _, n := range []uint64{uint64(f.what), uint64(f.schema.id), uint64(f.state), f.candidates, uint64(len(f.literals)), uint64(f.from), uint64(f.to), uint64(f.at), f.seen, uint64(f.count), uint64(f.rest)} {
			b = binary.AppendUvarint(b, n)
		}
	}
	return string(b)
}
