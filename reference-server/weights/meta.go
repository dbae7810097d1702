package weights

import "fmt"

// String is the string at key, or def when there is none.
func (m Meta) String(key, def string) string {
	if s, ok := m[key].(string); ok {
		return s
	}
	return def
}

// Int is the integer at key, or def when there is none.
func (m Meta) Int(key string, def int) int {
	switch v := m[key].(type) {
	case uint64:
		return int(v)
	case int64:
		return int(v)
	}
	return def
}

// Float is the number at key, or def when there is none.
func (m Meta) Float(key string, def float64) float64 {
	switch v := m[key].(type) {
	case float64:
		return v
	case uint64:
		return float64(v)
	case int64:
		return float64(v)
	}
	return def
}

// Bool is the truth at key, or def when there is none.
func (m Meta) Bool(key string, def bool) bool {
	if b, ok := m[key].(bool); ok {
		return b
	}
	return def
}

// Strings is the list of strings at key.
func (m Meta) Strings(key string) []string {
	s, _ := m[key].([]string)
	return s
}

// Ints is the list of integers at key.
func (m Meta) Ints(key string) []int {
	var out []int
	switch v := m[key].(type) {
	case []int64:
		for _, x := range v {
			out = append(out, int(x))
		}
	case []uint64:
		for _, x := range v {
			out = append(out, int(x))
		}
	}
	return out
}

// Floats is the list of numbers at key.
func (m Meta) Floats(key string) []float64 {
	f, _ := m[key].([]float64)
	return f
}

// NeedInt is the integer at key, which must be there and lie in [low, high].
func (m Meta) NeedInt(key string, low, high int) (int, error) {
	if _, ok := m[key]; !ok {
		return 0, fmt.Errorf("the model's metadata lacks %s", key)
	}
	v := m.Int(key, low-1)
	if v < low || v > high {
		return 0, fmt.Errorf("the model's %s is %v; %d to %d are possible", key, m[key], low, high)
	}
	return v, nil
}
