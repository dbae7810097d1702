package recording

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/launchgate/launchgate/internal/durable"
	"github.com/launchgate/launchgate/internal/words"
)

// GapsFile counts the gaps between the chunks of all complete answers, if the times of
// some chunks are not kept: a log of HdrHistograms, which other tools can read.
const GapsFile = "icl.hlog"

// Gaps are the gaps between chunks of the complete answers to one class of requests in
// one stage. Values are nanoseconds, exact to three digits.
type Gaps struct {
	Scenario, Stage, Class string
	*hdrhistogram.Histogram
}

const (
	leastGap   = int64(time.Microsecond)
	largestGap = int64(time.Hour)
	gapDigits  = 3
)

// gapCounter counts gaps and keeps the chunk times of some requests only.
type gapCounter struct {
	keep  func(seq int64) bool
	of    map[string]*hdrhistogram.Histogram // by tag
	dirty bool
}

// take counts the gaps of an answer, and drops the times of its chunks unless they are
// to be kept.
func (g *gapCounter) take(r *Request) {
	for i := 1; i < len(r.Chunks); i++ {
		r.MaxGap = max(r.MaxGap, r.Chunks[i]-r.Chunks[i-1])
	}
	if g.keep == nil || r.Kind != KindLoad {
		return
	}
	if len(r.Chunks) > 1 && r.OK() {
		tag := strings.Join([]string{r.Scenario, r.Stage, r.Class}, "/")
		h := g.of[tag]
		if h == nil {
			h = hdrhistogram.New(leastGap, largestGap, gapDigits)
			h.SetTag(tag)
			g.of[tag] = h
		}
		r.EachGap(func(gap, _ time.Duration) {
			_ = h.RecordValue(min(max(int64(gap), leastGap), largestGap)) // cannot fail within these bounds
		})
		g.dirty = true
	}
	if !g.keep(r.Seq) {
		r.Chunks = nil
	}
}

// write writes the counts to the file.
func (g *gapCounter) write(dir string) error {
	if !g.dirty {
		return nil
	}
	var b bytes.Buffer
	log := hdrhistogram.NewHistogramLogWriter(&b)
	options := hdrhistogram.DefaultHistogramLogOptions()
	err := errors.Join(log.OutputLogFormatVersion(), log.OutputComment("[gaps between chunks, in nanoseconds, by scenario/stage/class]"), log.OutputLegend())
	for _, tag := range slices.Sorted(maps.Keys(g.of)) {
		err = errors.Join(err, log.OutputIntervalHistogramWithLogOptions(g.of[tag], options))
	}
	if err != nil {
		return words.Errorf("count the gaps between chunks: %s", err)
	}
	g.dirty = false
	return durable.Replace(filepath.Join(dir, GapsFile), 0o644, durable.Content(b.Bytes()))
}

// readGaps reads the counts, if there are any.
func (r *Recording) readGaps() error {
	content, err := os.ReadFile(filepath.Join(r.Dir, GapsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	log := hdrhistogram.NewHistogramLogReader(bytes.NewReader(content))
	for {
		h, err := log.NextIntervalHistogram()
		if err != nil {
			return words.Errorf("%s: %s: %s", ErrDamaged, GapsFile, err)
		}
		if h == nil {
			return nil
		}
		names := strings.Split(h.Tag(), "/")
		if len(names) != 3 {
			return words.Errorf("%s: %s: found the tag %q, expected scenario/stage/class", ErrDamaged, GapsFile, h.Tag())
		}
		r.Gaps = append(r.Gaps, Gaps{names[0], names[1], names[2], h})
	}
}
