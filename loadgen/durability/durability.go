// Package durability writes records that a service acknowledges, beside the load, and
// reads every one back at the end, as Jepsen tests a set: an acknowledged record that
// is missing is lost. It judges nothing; each write and each read is a row of the
// recording.
package durability

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/scenarios"
)

const (
	readers   = 4                      // records that are read at the same time
	readAgain = 200 * time.Millisecond // the delay before unsettled records are read again
)

// Writer writes the records of one scenario and reads them back.
type Writer struct {
	clock    recording.Clock
	scenario scenarios.Scenario
	client   *client.Client
	sink     func(recording.Request)

	due          int64 // writes
	mu           sync.Mutex
	acknowledged []recording.Request
}

// New makes a writer, whose rows go to sink from several goroutines.
func New(clock recording.Clock, s scenarios.Scenario, c *client.Client, sink func(recording.Request)) *Writer {
	return &Writer{clock: clock, scenario: s, client: c, sink: sink}
}

// Write writes records at their interval until stop is closed, whether or not earlier
// ones were acknowledged, and returns when all have been answered. Only ctx cancels a
// write that is under way, because it may still be acknowledged.
func (w *Writer) Write(ctx context.Context, stop <-chan struct{}) {
	d := *w.scenario.Durability
	start := w.clock.Now()
	var inFlight sync.WaitGroup
	defer inFlight.Wait()
	for ; ; w.due++ {
		n, due := w.due, start+time.Duration(w.due)*time.Duration(d.Every)
		timer := time.NewTimer(due - w.clock.Now())
		select {
		case <-stop:
			timer.Stop()
			return
		case <-timer.C:
		}
		inFlight.Go(func() {
			row := w.write(ctx, n, w.prompt(n), due)
			row.Seq, row.Kind, row.Scenario = n, recording.KindWrite, w.scenario.Name
			if row.OK() {
				w.mu.Lock()
				w.acknowledged = append(w.acknowledged, row)
				w.mu.Unlock()
			}
			w.sink(row)
		})
	}
}

// write writes a record: a background response or, every second time if the gate asks
// for it, an answer whose usage the service has to keep.
func (w *Writer) write(ctx context.Context, n int64, p client.Prompt, due time.Duration) recording.Request {
	if !w.ofUsage(n) {
		return w.client.Write(ctx, p, w.mark(n), w.clock, due)
	}
	row := w.client.WriteUsage(ctx, p, w.clock, due)
	row.Class = ofUsage
	return row
}

func (w *Writer) ofUsage(n int64) bool { return w.scenario.Durability.Usage && n%2 == 1 }

// ofUsage is the class of records of the usage of a request.
const ofUsage = "usage"

// mark identifies a record, also among those of other runs: a service that lost records
// may issue their ids again.
func (w *Writer) mark(n int64) string {
	return fmt.Sprintf("%s/%d/%d", w.scenario.Name, n, w.clock.Start().UnixNano())
}

// sameAgain reads a complete record once more; its content must be the same.
func (w *Writer) sameAgain(ctx context.Context, record, first recording.Request) (recording.Request, bool) {
	d := w.scenario.Durability
	again, settled := w.client.Read(ctx, record.Record, w.mark(record.Seq), record.Answer, d.MaxTokens, time.Duration(d.Timeout), w.clock)
	if !settled || again.Error != "" {
		return again, settled
	}
	if again.AnswerHash != first.AnswerHash || again.OutputTokens != first.OutputTokens {
		first.Fail(recording.ErrorGone, words.Say("the record %s was read twice and held two texts: of %d tokens and %d characters, and of %d and %d",
			record.Record, first.OutputTokens, first.AnswerChars, again.OutputTokens, again.AnswerChars))
	}
	return first, true
}

// ReadBack is the final read. Records that are not complete yet, or cannot be read at
// the moment, are read again until the scenario's patience ends. It returns how many
// writes were due. It is false if it was cancelled, so that there is no final read.
func (w *Writer) ReadBack(ctx context.Context) (due int64, ok bool) {
	slices.SortFunc(w.acknowledged, func(a, b recording.Request) int { return cmp.Compare(a.Seq, b.Seq) })
	until := w.clock.Now() + time.Duration(w.scenario.Durability.Within)
	var rows []recording.Request
	for left := w.acknowledged; ; {
		var settled []recording.Request
		settled, left = w.read(ctx, left, until)
		rows = append(rows, settled...)
		if len(left) == 0 || ctx.Err() != nil {
			w.altered(ctx, rows, until)
			for _, row := range rows {
				w.sink(row)
			}
			return w.due, ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(readAgain):
		}
	}
}

// read reads records once. It returns the rows of those that are settled, and the
// records that are not. From the time until on, each has a row, settled or not. A
// record whose read hangs at that time gets its last row without a further wait.
func (w *Writer) read(ctx context.Context, records []recording.Request, until time.Duration) (rows, left []recording.Request) {
	tokens, timeout := w.scenario.Durability.MaxTokens, time.Duration(w.scenario.Durability.Timeout)
	var mu sync.Mutex
	var reading sync.WaitGroup
	slots := make(chan struct{}, readers)
	for _, record := range records {
		slots <- struct{}{}
		reading.Go(func() {
			defer func() { <-slots }()
			now := w.clock.Now()
			row, settled := recording.Request{Due: now, Record: record.Record}, false
			row.Fail(recording.ErrorTimeout, words.Say("not read: the reads before it took too long"))
			if now < until+timeout {
				if w.ofUsage(record.Seq) {
					row, settled = w.client.ReadUsage(ctx, record.Record, record.OutputTokens, timeout, w.clock)
				} else {
					row, settled = w.client.Read(ctx, record.Record, w.mark(record.Seq), record.Answer, tokens, timeout, w.clock)
					if settled && row.Error == "" {
						row, settled = w.sameAgain(ctx, record, row)
					}
				}
			}
			row.Class = record.Class
			mu.Lock()
			defer mu.Unlock()
			if !settled && now < until {
				left = append(left, record)
				return
			}
			row.Seq, row.Kind, row.Scenario = record.Seq, recording.KindRead, w.scenario.Name
			rows = append(rows, row)
		})
	}
	reading.Wait()
	return rows, left
}
