package durability

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen/client"
)

// What a record has to hold is not known when it is written. Two records have the same
// question, so they are compared. A service may answer a question otherwise the second
// time, so a different text alone proves nothing. Two differences do, because chance does
// not make them: the same characters in another order, and the text of a record with
// another question. Then the question is written again, until two new records agree on
// what the record should hold.

const (
	mostDoubted  = 8 // questions that are written again
	mostRewrites = 3 // times each
	leastText    = 8 // characters that a text needs to be compared
)

// twinOf is the first of the writes with the same question as a write. Records of usage
// have questions of their own.
func (w *Writer) twinOf(n int64) int64 {
	switch {
	case w.ofUsage(n):
		return n
	case w.scenario.Durability.Usage:
		return n - n%4
	}
	return n - n%2
}

// altered fails the complete records that hold something else than the answer to their
// question.
func (w *Writer) altered(ctx context.Context, rows []recording.Request, until time.Duration) {
	slices.SortFunc(rows, func(a, b recording.Request) int { return cmp.Compare(a.Seq, b.Seq) })
	of := map[int64][]int{}       // records by question
	holds := map[string][]int64{} // questions by text
	for i := range rows {
		if r := &rows[i]; r.Error == "" && r.Class != ofUsage && utf8.RuneCountInString(r.Answer) >= leastText {
			q := w.twinOf(r.Seq)
			of[q] = append(of[q], i)
			if !slices.Contains(holds[r.Answer], q) {
				holds[r.Answer] = append(holds[r.Answer], q)
			}
		}
	}
	foreign := func(text string, q int64) bool {
		return slices.ContainsFunc(holds[text], func(other int64) bool { return other != q })
	}
	doubted := 0
	for i := range rows {
		q := w.twinOf(rows[i].Seq)
		twins := of[q]
		if rows[i].Seq != q || len(twins) != 2 || doubted == mostDoubted || ctx.Err() != nil || w.clock.Now() > until {
			continue
		}
		a, b := rows[twins[0]].Answer, rows[twins[1]].Answer
		if a == b || !reordered(a, b) && !foreign(a, q) && !foreign(b, q) {
			continue
		}
		doubted++
		text, steady := w.again(ctx, q, until)
		for _, at := range twins {
			r := &rows[at]
			switch {
			case !steady || r.Answer == text:
			case reordered(r.Answer, text):
				r.Fail(recording.ErrorGone, words.Say("the record %s holds the characters of its answer in another order: its question was written again twice, and both times the text was the other one", r.Record))
			case foreign(r.Answer, q):
				r.Fail(recording.ErrorGone, words.Say("the record %s holds the text of a record with another question: its question was written again twice, and both times the text was another one", r.Record))
			}
		}
	}
}

// again writes a question again, and returns the text that two of the new records hold.
func (w *Writer) again(ctx context.Context, q int64, until time.Duration) (text string, steady bool) {
	d := w.scenario.Durability
	seen := map[string]bool{}
	for i := range mostRewrites {
		mark := w.mark(-1 - q*mostRewrites - int64(i))
		record := w.client.Write(ctx, w.prompt(q), mark, w.clock, w.clock.Now())
		if record.Error != "" {
			return "", false
		}
		for {
			row, settled := w.client.Read(ctx, record.Record, mark, record.Answer, d.MaxTokens, time.Duration(d.Timeout), w.clock)
			if settled {
				if row.Error == "" && seen[row.Answer] {
					return row.Answer, true
				}
				seen[row.Answer] = row.Error == ""
				break
			}
			select {
			case <-ctx.Done():
				return "", false
			case <-time.After(readAgain):
			}
			if w.clock.Now() > until {
				return "", false
			}
		}
	}
	return "", false
}

// prompt is the question of a write.
func (w *Writer) prompt(n int64) client.Prompt {
	d := w.scenario.Durability
	return client.Prompt{
		Model:     w.scenario.Mix()[0].Workload.Model,
		Messages:  []client.Message{{Role: "user", Content: fmt.Sprintf("Tell me a story about a dog that has %d friends.", w.twinOf(n))}},
		MaxTokens: d.MaxTokens, Timeout: time.Duration(d.Timeout),
	}
}

// reordered reports whether two different texts have the same characters.
func reordered(a, b string) bool {
	if a == b || len(a) != len(b) {
		return false
	}
	x, y := []rune(a), []rune(b)
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}
