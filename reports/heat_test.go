package reports

import (
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

// Two clusters of requests stay two in the map. Every request is in a cell, and
// the cells cover the time.
func TestHeat(t *testing.T) {
	for _, seconds := range []int{1, 7, 96, 97, 500, 5000} {
		c := newClockwork()
		n := int64(0)
		for s := range seconds {
			for i := range 4 {
				first := 10 * time.Millisecond
				if i == 3 {
					first = time.Second
				}
				due := time.Duration(s)*time.Second + time.Duration(i)*100*time.Millisecond
				c.request(&recording.Request{Kind: recording.KindLoad, Due: due, Sent: due + 1, FirstToken: due + first, End: due + first})
				n++
			}
		}
		line := c.timeline(0, time.Duration(seconds)*time.Second, &recording.Recording{})
		if len(line.Heat) != 1 {
			t.Fatalf("%d s: %d maps, of TTFT alone there should be one", seconds, len(line.Heat))
		}
		h := line.Heat[0]
		var all int64
		rows := map[int]int64{}
		for i, n := range h.Cells {
			all += n
			if n > 0 {
				rows[i%h.Rows] += n
			}
		}
		if all != n || len(rows) != 2 || rows[0] != n/4*3 || rows[h.Rows-1] != n/4 {
			t.Errorf("%d s: %d of %d requests are in the map, by row %v", seconds, all, n, rows)
		}
		if h.Columns > heatColumns || h.To < float64(seconds) || h.Columns*h.Rows != len(h.Cells) {
			t.Errorf("%d s: %d columns until %g", seconds, h.Columns, h.To)
		}
		svg := string(heatSVG(English, h, nil))
		if len(svg) > 60_000 || !strings.Contains(svg, `class="heat-6"`) || strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
			t.Errorf("%d s: a drawing of %d bytes: %.300s", seconds, len(svg), svg)
		}
	}
}
