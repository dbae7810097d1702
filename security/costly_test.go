package security

import (
	"testing"
	"time"
)

// Linear growth is never reported, however expensive the first size is. Quadratic
// growth is reported as soon as it can be measured.
func TestOutgrown(t *testing.T) {
	times := func(ms ...int) (sizes []tried) {
		for _, m := range ms {
			sizes = append(sizes, tried{took: time.Duration(m) * time.Millisecond})
		}
		return sizes
	}
	for name, tt := range map[string]struct {
		sizes []tried
		want  int
	}{
		"one size":                   {times(5000), -1},
		"two sizes":                  {times(10, 5000), -1},
		"linear":                     {times(200, 400, 800, 1600, 3200), -1},
		"linear after a cost":        {times(100, 110, 130, 170, 250, 410, 730), -1},
		"linear and slow in the end": {times(200, 400, 800, 1600, 4500), -1},
		"n log n":                    {times(100, 220, 480, 1040, 2240), -1},
		"quadratic":                  {times(20, 80, 320, 1280), 1},
		"quadratic, with noise":      {times(77, 447, 1291, 2658), 0},
		"cubic":                      {times(10, 80, 640), 0},
		"refused at first":           {times(0, 0, 0), -1},
	} {
		if got := outgrown(tt.sizes, 50*time.Millisecond); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}
