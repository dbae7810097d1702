// Package trace reads recorded loads: when each request came, how long its
// prompt and its answer were, and, where the trace says so, which blocks of its
// prompt other requests had too. Three formats of the field are known by their
// first line:
//
//   - Azure's LLM inference traces (Azure/AzurePublicDataset): CSV with TIMESTAMP,
//     ContextTokens, GeneratedTokens
//   - BurstGPT (HPMLL/BurstGPT): CSV with Timestamp in seconds, Request tokens,
//     Response tokens
//   - Mooncake (kvcache-ai/Mooncake): JSON lines with timestamp in milliseconds,
//     input_length, output_length and hash_ids, each of a block of 512 tokens
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

// BlockTokens is how many tokens of a prompt a block of a Mooncake trace is.
const BlockTokens = 512

// Request is one line of a trace.
type Request struct {
	At     time.Duration // since the first request of the trace
	Input  int           // tokens of the prompt
	Output int           // tokens of the answer
	Blocks []uint64      // of the prompt, BlockTokens each but the last; nil where the trace has none
}

// Trace is what was read.
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

// Load reads a trace file.
func Load(path string) (Trace, error) {
	f, err := os.Open(path)
	if err != nil {
		return Trace{}, fmt.Errorf("read the trace: %w", err)
	}
	defer f.Close()
	t, err := Read(f)
	if err != nil {
		return Trace{}, fmt.Errorf("trace %s: %w", path, err)
	}
	return t, nil
}

// Read reads a trace. Requests are returned in the order of their times. An
// error names the line, what was found there, and what was expected.
func Read(r io.Reader) (Trace, error) {
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
		err = t.mooncake(in)
	default:
		err = t.csv(in)
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

func (t *Trace) mooncake(in *bufio.Reader) error {
	d := json.NewDecoder(in)
	for line := 1; ; line++ {
		var row struct {
			Timestamp *float64 `json:"timestamp"`
			Input     *int     `json:"input_length"`
			Output    *int     `json:"output_length"`
			Blocks    []uint64 `json:"hash_ids"`
		}
		err := d.Decode(&row)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		if row.Timestamp == nil || row.Input == nil || row.Output == nil {
			return fmt.Errorf("line %d: expected timestamp, input_length and output_length, as Mooncake's traces have", line)
		}
		if ms := *row.Timestamp; !(math.Abs(ms) < float64(maxSpan/time.Millisecond)) {
			return fmt.Errorf("line %d: found the timestamp %v, expected milliseconds since the trace began", line, ms)
		}
		if need := (*row.Input + BlockTokens - 1) / BlockTokens; len(row.Blocks) > 0 && len(row.Blocks) > need {
			return fmt.Errorf("line %d: found %d hash_ids for %d tokens, expected at most %d: one for each %d tokens", line, len(row.Blocks), *row.Input, need, BlockTokens)
		}
		at := time.Duration(*row.Timestamp * float64(time.Millisecond))
		if err := t.add(line, Request{at, *row.Input, *row.Output, row.Blocks}); err != nil {
			return err
		}
	}
}

// csvFormat is a CSV trace: the names of its columns, in small letters.
type csvFormat struct {
	name, at, input, output string
	time                    func(string) (time.Duration, error)
}

var csvFormats = []csvFormat{
	{"Azure", "timestamp", "contexttokens", "generatedtokens", azureTime},
	{"BurstGPT", "timestamp", "request tokens", "response tokens", seconds},
}

func (t *Trace) csv(in *bufio.Reader) error {
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
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err // it names the line
		}
		line, _ := r.FieldPos(0)
		at, err := f.time(strings.TrimSpace(row[columns[f.at]]))
		if err != nil {
			return fmt.Errorf("line %d: found the time %q, expected %w", line, row[columns[f.at]], err)
		}
		var tokens [2]int
		for i, column := range []string{f.input, f.output} {
			if tokens[i], err = strconv.Atoi(strings.TrimSpace(row[columns[column]])); err != nil {
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

// azureEpoch keeps the times of Azure's traces small enough for a Duration.
var azureEpoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

func azureTime(s string) (time.Duration, error) {
	for _, layout := range []string{"2006-01-02 15:04:05.999999999", "2006-01-02 15:04:05.999999999-07:00", time.RFC3339Nano} {
		if at, err := time.Parse(layout, s); err == nil && at.Year() > 1800 && at.Year() < 2200 {
			return at.Sub(azureEpoch), nil
		}
	}
	return 0, errors.New("a time such as 2023-11-16 18:15:46.6805900")
}

func seconds(s string) (time.Duration, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(math.Abs(v) < maxSpan.Seconds()) {
		return 0, errors.New("seconds since the trace began")
	}
	return time.Duration(v * float64(time.Second)), nil
}
