// Package trace reads recorded loads: when each request came, how long its prompt and
// its answer were, and, if the trace has it, which blocks of its prompt other requests
// share. It recognizes three formats by their first line:
//
//   - Azure's LLM inference traces (Azure/AzurePublicDataset): CSV with TIMESTAMP,
//     a date and time, ContextTokens, GeneratedTokens
//   - BurstGPT (HPMLL/BurstGPT): CSV with Timestamp in seconds, Request tokens,
//     Response tokens
//   - Mooncake (kvcache-ai/Mooncake): JSON lines with timestamp in milliseconds,
//     input_length, output_length and hash_ids, each of a block of 512 tokens
//
// Times may be dates (RFC 3339, or with a blank) in each format. A number has the unit
// that the caller gives, or else that of the format. Without either it is refused: a
// number in a trace of Azure's, JSON lines without hash_ids, which other programs write
// too, and a number that looks like the time since 1970 in another unit.
package trace

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// BlockTokens is how many tokens of a prompt a block of a Mooncake trace stands for.
const BlockTokens = 512

// Request is one line of a trace.
type Request struct {
	At     time.Duration // since the first request of the trace
	Input  int           // tokens of the prompt
	Output int           // tokens of the answer
	Blocks []uint64      // blocks of BlockTokens each, the last may be shorter; nil if the trace has none
}

// Trace is the content of a trace file.
type Trace struct {
	Format   string // Azure, BurstGPT or Mooncake
	Requests []Request
	// Failed is how many lines were left out because their answer had no token:
	// requests that failed when the trace was made.
	Failed int
}

const (
	maxTokens = 10_000_000 // of a prompt or an answer
	maxSpan   = 10_000 * 24 * time.Hour
)

// Load reads a trace file. Unit is the unit of numeric times: ns, us, ms or s; empty
// for the unit of the format.
func Load(path, unit string) (Trace, error) {
	f, err := os.Open(path)
	if err != nil {
		return Trace{}, fmt.Errorf("read the trace: %w", err)
	}
	defer f.Close()
	t, err := Read(f, unit)
	if err != nil {
		return Trace{}, fmt.Errorf("trace %s: %w", path, err)
	}
	return t, nil
}

// Read reads a trace. Requests are returned in the order of their times. An error names
// the line, what was found there, and what was expected. Unit is as for Load.
func Read(r io.Reader, unit string) (Trace, error) {
	in := bufio.NewReaderSize(r, 1<<16)
	head, err := in.Peek(3)
	if err != nil && !errors.Is(err, io.EOF) {
		return Trace{}, err
	}
	if bytes.Equal(head, []byte("\xef\xbb\xbf")) {
		_, _ = in.Discard(3)
		head, _ = in.Peek(1)
	}
	var t Trace
	switch {
	case len(head) == 0:
		return Trace{}, errors.New("found nothing, expected a trace of Azure, BurstGPT or Mooncake")
	case head[0] == '{':
		t.Format = "Mooncake"
		err = t.mooncake(in, unit)
	default:
		err = t.csv(in, unit)
	}
	if err != nil {
		return Trace{}, err
	}
	if len(t.Requests) == 0 {
		return Trace{}, errors.New("found no request with an answer, expected at least one")
	}
	slices.SortStableFunc(t.Requests, func(a, b Request) int { return int(min(max(a.At-b.At, -1), 1)) })
	first := t.Requests[0].At
	for i := range t.Requests {
		t.Requests[i].At -= first
	}
	if span := t.Requests[len(t.Requests)-1].At; span < 0 || span > maxSpan {
		return Trace{}, fmt.Errorf("found %s from the first request to the last, expected at most %s: are the times of one unit?", span, maxSpan)
	}
	return t, nil
}

// add takes a line, unless its request failed when the trace was made.
func (t *Trace) add(line int, r Request) error {
	if r.Output == 0 {
		t.Failed++
		return nil
	}
	for _, n := range []int{r.Input, r.Output} {
		if n < 1 || n > maxTokens {
			return fmt.Errorf("line %d: found %d tokens, expected from 1 to %d", line, n, maxTokens)
		}
	}
	t.Requests = append(t.Requests, r)
	return nil
}

func (t *Trace) mooncake(in *bufio.Reader, unit string) error {
	d := json.NewDecoder(in)
	d.UseNumber()
	times := times{format: "Mooncake", unit: unit, own: "ms"}
	hashed := false
	for line := 1; ; line++ {
		var row struct {
			Timestamp any   `json:"timestamp"`
			Input     any   `json:"input_length"`
			Output    any   `json:"output_length"`
			Blocks    []any `json:"hash_ids"`
		}
		err := d.Decode(&row)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		if row.Timestamp == nil || row.Input == nil || row.Output == nil {
			return fmt.Errorf("line %d: expected timestamp, input_length and output_length, as Mooncake's traces have", line)
		}
		var r Request
		if r.At, err = times.read(written(row.Timestamp)); err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		for _, of := range []struct {
			name  string
			value any
			into  *int
		}{{"input_length", row.Input, &r.Input}, {"output_length", row.Output, &r.Output}} {
			if *of.into, err = count(written(of.value)); err != nil {
				return fmt.Errorf("line %d: found %q for %s, expected a number of tokens", line, written(of.value), of.name)
			}
		}
		for _, block := range row.Blocks {
			id, err := whole(written(block))
			if err != nil {
				return fmt.Errorf("line %d: found the hash_id %q, expected a whole number", line, written(block))
			}
			r.Blocks = append(r.Blocks, id)
		}
		hashed = hashed || len(row.Blocks) > 0
		if need := (r.Input + BlockTokens - 1) / BlockTokens; len(row.Blocks) > need {
			return fmt.Errorf("line %d: found %d hash_ids for %d tokens, expected at most %d: one for each %d tokens", line, len(row.Blocks), r.Input, need, BlockTokens)
		}
		if err := t.add(line, r); err != nil {
			return err
		}
	}
	if times.byFormat && !hashed {
		return errors.New("found times that are numbers, and no hash_ids, by which Mooncake's traces, which are of milliseconds, are known; expected the unit to be stated: unit: ms, or unit: s")
	}
	return nil
}

// written is a JSON value as it was written.
func written(v any) string {
	switch v := v.(type) {
	case json.Number:
		return v.String()
	case string:
		return strings.TrimSpace(v)
	}
	return fmt.Sprint(v)
}

// count is a number of tokens, in any form in which programs write whole numbers: 12,
// "12", 12.0, 1.2e1.
func count(s string) (int, error) {
	n, err := whole(s)
	if err != nil {
		return 0, err
	}
	return int(min(n, math.MaxInt32)), nil
}

func whole(s string) (uint64, error) {
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		return n, nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || v != math.Trunc(v) || v < 0 || v > 1<<53 {
		return 0, fmt.Errorf("%q is no whole number", s)
	}
	return uint64(v), nil
}

// csvFormat is a CSV trace: the names of its columns, in lower case.
type csvFormat struct {
	name, at, input, output string
	unit                    string // unit of numeric times; empty: times are dates
}

var csvFormats = []csvFormat{
	{"Azure", "timestamp", "contexttokens", "generatedtokens", ""},
	{"BurstGPT", "timestamp", "request tokens", "response tokens", "s"},
}

func (t *Trace) csv(in *bufio.Reader, unit string) error {
	r := csv.NewReader(in)
	r.ReuseRecord = true
	header, err := r.Read()
	if err != nil {
		return fmt.Errorf("found what is neither JSON lines nor CSV (%w), expected a trace of Azure, BurstGPT or Mooncake", err)
	}
	columns := map[string]int{}
	for i, name := range header {
		columns[strings.ToLower(strings.TrimSpace(name))] = i
	}
	format := slices.IndexFunc(csvFormats, func(f csvFormat) bool {
		return hasAll(columns, f.at, f.input, f.output)
	})
	if format < 0 {
		return fmt.Errorf("found the columns %s, expected TIMESTAMP, ContextTokens, GeneratedTokens (Azure) or Timestamp, Request tokens, Response tokens (BurstGPT)",
			strings.Join(header, ", "))
	}
	f := csvFormats[format]
	t.Format = f.name
	times := times{format: f.name, unit: unit, own: f.unit}
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err // it already names the line
		}
		line, _ := r.FieldPos(0)
		at, err := times.read(strings.TrimSpace(row[columns[f.at]]))
		if err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		var tokens [2]int
		for i, column := range []string{f.input, f.output} {
			if tokens[i], err = count(strings.TrimSpace(row[columns[column]])); err != nil {
				return fmt.Errorf("line %d: found %q for %s, expected a number of tokens", line, row[columns[column]], column)
			}
		}
		if err := t.add(line, Request{At: at, Input: tokens[0], Output: tokens[1]}); err != nil {
			return err
		}
	}
}

func hasAll(columns map[string]int, names ...string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { _, has := columns[name]; return !has })
}

// nanoseconds of each unit.
var nanoseconds = map[string]float64{"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}

// times read the times of one trace. Numeric times have the unit that the caller gave,
// or else that of the format.
type times struct {
	format, unit, own string
	byFormat          bool // the format defines the unit of numbers
	dates, numbers    bool // what was read so far: a trace must not mix them
}

// epoch is the origin of dates, close enough to them for a Duration.
var epoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

var layouts = []string{
	"2006-01-02 15:04:05.999999999", "2006-01-02 15:04:05.999999999-07:00", "2006-01-02T15:04:05.999999999", time.RFC3339Nano,
}

// read reads a time. Its error says what was found and what was expected.
func (t *times) read(s string) (time.Duration, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		for _, layout := range layouts {
			if at, err := time.Parse(layout, s); err == nil && at.Year() > 1800 && at.Year() < 2200 {
				if t.dates = true; t.numbers {
					return 0, fmt.Errorf("found the time %q, and numbers before it, expected one of the two", s)
				}
				return at.Sub(epoch), nil
			}
		}
		return 0, fmt.Errorf("found the time %q, expected %s", s, t.expected())
	}
	if t.numbers = true; t.dates {
		return 0, fmt.Errorf("found the time %s, and dates before it, expected one of the two", s)
	}
	unit := t.unit
	if unit == "" {
		unit, t.byFormat = t.own, true
		if unit == "" {
			return 0, fmt.Errorf("found the time %s, expected %s; of a number the unit has to be stated: unit: s", s, t.expected())
		}
		if since := sinceEpoch(v); since != "" && since != unit {
			return 0, fmt.Errorf("found the time %s, which looks like the time since 1970 in %s, where %s has numbers of %s; expected the unit to be stated: unit: %s", s, since, t.format, unit, since)
		}
		if t.own == "ms" && v != math.Trunc(v) {
			return 0, fmt.Errorf("found the time %s, where %s has whole milliseconds; expected the unit to be stated: unit: s", s, t.format)
		}
	}
	if sinceEpoch(v) == unit { // counted from epoch, so that a Duration can hold it
		v -= float64(epoch.Unix()) * 1e9 / nanoseconds[unit]
	}
	if v *= nanoseconds[unit]; !(math.Abs(v) < float64(maxSpan)) {
		return 0, fmt.Errorf("found the time %s, expected %s", s, t.expected())
	}
	return time.Duration(math.Round(v)), nil
}

func (t *times) expected() string {
	date := "a time such as 2023-11-16 18:15:46.6805900"
	switch {
	case t.unit != "":
		return fmt.Sprintf("%s since the trace began or since 1970, or %s", unitNames[t.unit], date)
	case t.own != "":
		return fmt.Sprintf("%s since the trace began, or %s", unitNames[t.own], date)
	}
	return date
}

var unitNames = map[string]string{"ns": "nanoseconds", "us": "microseconds", "ms": "milliseconds", "s": "seconds"}

// sinceEpoch is the unit in which a number is a time since 1970, in the years 2001 to
// 2100; empty if there is no such unit.
func sinceEpoch(v float64) string {
	const from, to = 1e9, 4.1e9
	for _, unit := range []string{"ns", "us", "ms", "s"} {
		if s := v * nanoseconds[unit] / 1e9; s >= from && s < to {
			return unit
		}
	}
	return ""
}
