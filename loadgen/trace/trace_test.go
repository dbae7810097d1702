package trace

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

const (
	azure = `TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
`
	azure2024 = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2024-05-10 00:00:00.009930+00:00,2162,5\r\n2024-05-10 00:00:00.017335+00:00,2399,6\r\n"
	burstGPT  = `Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,230,1317,Conversation log
46,GPT-4,417,0,417,API log
`
	burstGPT2 = `Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
5.5,1,2.1,ChatGPT,472,18,490,Conversation log
`
	mooncake = `{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 2353, 2354]}
{"timestamp": 27000, "input_length": 512, "output_length": 26, "hash_ids": [46]}
{"timestamp": 30535, "input_length": 40, "output_length": 8}
`
)

func TestFormatsOfTheField(t *testing.T) {
	ms := func(n float64) time.Duration { return time.Duration(n * float64(time.Millisecond)) }
	for _, tt := range []struct {
		says, src string
		want      Trace
	}{
		{"Azure 2023", azure, Trace{"Azure", []Request{{0, 374, 44, nil}, {4314579 * time.Microsecond, 396, 109, nil}}, 0}},
		{"Azure 2024, with zones and CRLF", azure2024, Trace{"Azure", []Request{{0, 2162, 5, nil}, {7405 * time.Microsecond, 2399, 6, nil}}, 0}},
		{"BurstGPT", burstGPT, Trace{"BurstGPT", []Request{{0, 472, 18, nil}, {40 * time.Second, 1087, 230, nil}}, 1}},
		{"BurstGPT with sessions", burstGPT2, Trace{"BurstGPT", []Request{{0, 472, 18, nil}}, 0}},
		{"with a byte order mark", "\xef\xbb\xbf" + burstGPT2, Trace{"BurstGPT", []Request{{0, 472, 18, nil}}, 0}},
		{"Mooncake, out of order", mooncake, Trace{"Mooncake", []Request{{0, 512, 26, []uint64{46}},
			{ms(482), 6955, 52, []uint64{46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 2353, 2354}}, {ms(3535), 40, 8, nil}}, 0}},
	} {
		got, err := Read(strings.NewReader(tt.src), "")
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, %v; want %+v", tt.says, got, err, tt.want)
		}
	}
}

func TestWhatIsNoTrace(t *testing.T) {
	for _, tt := range []struct{ src, says string }{
		{"", "found nothing"},
		{"<!doctype html>\n", "found the columns <!doctype html>, expected TIMESTAMP"},
		{"a,b,c\n1,2,3\n", "found the columns a, b, c, expected TIMESTAMP"},
		{"TIMESTAMP,ContextTokens,GeneratedTokens\n", "found no request with an answer"},
		{"TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,2\n", `line 2: found the time "yesterday", expected a time such as`},
		{"Timestamp,Request tokens,Response tokens\n1,many,2\n", `line 2: found "many" for request tokens`},
		{"Timestamp,Request tokens,Response tokens\n1,0,2\n", "line 2: found 0 tokens"},
		{"Timestamp,Request tokens,Response tokens\n1,5\n", "line 2"},
		{"Timestamp,Request tokens,Response tokens\n0,5,6\n1e12,5,6\n", "line 3"},
		{`{"timestamp": 1, "input_length": 5}`, "line 1: expected timestamp, input_length and output_length"},
		{`{"timestamp": 1, "input_length": 5, "output_length": 6, "hash_ids": [1, 2]}`, "line 1: found 2 hash_ids for 5 tokens, expected at most 1"},
		{`{"timestamp": `, "line 1"},
	} {
		if got, err := Read(strings.NewReader(tt.src), ""); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%q: %+v, %v; want %q", tt.src, got, err, tt.says)
		}
	}
	if _, err := Load("testdata/none.csv", ""); err == nil || !strings.Contains(err.Error(), "none.csv") {
		t.Error(err)
	}
}

// The unit of a time comes from the gate or the format, and is never guessed. The usual
// forms of numbers and dates are read.
func TestUnitsAndForms(t *testing.T) {
	jsonl := func(times ...string) (src string) {
		for _, at := range times {
			src += `{"timestamp": ` + at + `, "input_length": 5, "output_length": 6}` + "\n"
		}
		return src
	}
	hashed := func(times ...string) string {
		return strings.ReplaceAll(jsonl(times...), "}", `, "hash_ids": [7]}`)
	}
	burst := func(times ...string) string {
		return "Timestamp,Request tokens,Response tokens\n" + strings.Join(times, ",5,6\n") + ",5,6\n"
	}
	azured := func(times ...string) string {
		return "TIMESTAMP,ContextTokens,GeneratedTokens\n" + strings.Join(times, ",5,6\n") + ",5,6\n"
	}
	for _, tt := range []struct {
		name, src, unit string
		want            time.Duration // between the two requests
		says            string        // part of the error; empty: none
	}{
		{"Mooncake has milliseconds", hashed("0", "1500"), "", 1500 * time.Millisecond, ""},
		{"in any form", hashed(`"1e3"`, "2.5e3"), "", 1500 * time.Millisecond, ""},
		{"seconds, as stated", hashed("0", "1.5"), "s", 1500 * time.Millisecond, ""},
		{"microseconds, as stated", jsonl("0", "1500"), "us", 1500 * time.Microsecond, ""},
		{"nanoseconds since 1970", jsonl("1700000000000000000", "1700000001500000000"), "ns", 1500 * time.Millisecond, ""},
		{"JSON lines without hashes, in no unit", jsonl("0", "1500"), "", 0, "expected the unit to be stated"},
		{"JSON lines without hashes, stated", jsonl("0", "1500"), "ms", 1500 * time.Millisecond, ""},
		{"JSON lines of dates", jsonl(`"2024-05-10T00:00:00Z"`, `"2024-05-10T02:00:01.5+02:00"`), "", 1500 * time.Millisecond, ""},
		{"fractions of milliseconds", hashed("0", "0.25"), "", 0, "line 2: found the time 0.25, where Mooncake has whole milliseconds"},
		{"Mooncake since 1970", hashed("1700000000000", "1700000001500"), "", 1500 * time.Millisecond, ""},
		{"Mooncake in seconds since 1970", hashed("1700000000", "1700000001"), "", 0, "line 1: found the time 1700000000, which looks like the time since 1970 in s"},
		{"seconds since 1970", burst("1700000000", "1700000001.5"), "", 1500 * time.Millisecond, ""},
		{"milliseconds since 1970 for seconds", burst("1700000000000", "1700000001500"), "", 0, "which looks like the time since 1970 in ms"},
		{"milliseconds since 1970, stated", burst("1700000000000", "1700000001500"), "ms", 1500 * time.Millisecond, ""},
		{"BurstGPT with dates", burst("2024-05-10 00:00:00", "2024-05-10T00:00:01.5Z"), "", 1500 * time.Millisecond, ""},
		{"Azure with numbers", azured("0", "1500"), "", 0, "line 2: found the time 0, expected a time such as 2023-11-16 18:15:46.6805900; of a number the unit has to be stated"},
		{"Azure with numbers, stated", azured("0", "1500"), "ms", 1500 * time.Millisecond, ""},
		{"numbers and dates", azured("0", "2024-05-10 00:00:00"), "s", 0, "line 3: found the time \"2024-05-10 00:00:00\", and numbers before it"},
		{"dates and numbers", burst("2024-05-10 00:00:00", "1"), "", 0, "and dates before it"},
		{"not a number", burst("0", "NaN"), "", 0, "line 3: found the time \"NaN\", expected seconds"},
		{"no end of time", burst("0", "1e300"), "", 0, "line 3: found the time 1e300, expected seconds"},
		{"no time", hashed("0", "true"), "", 0, `line 2: found the time "true", expected milliseconds`},
	} {
		got, err := Read(strings.NewReader(tt.src), tt.unit)
		switch {
		case tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)):
			t.Errorf("%s: %+v, %v; want %q", tt.name, got, err, tt.says)
		case tt.says == "" && (err != nil || len(got.Requests) != 2 || got.Requests[1].At != tt.want):
			t.Errorf("%s: %+v, %v; want %s between them", tt.name, got, err, tt.want)
		}
	}
	for form, want := range map[string]int{"12": 12, "1.2e1": 12, "12.0": 12, ` "12" `: 12, `"1e3"`: 1000} {
		got, err := Read(strings.NewReader(`{"timestamp": 0, "input_length": `+form+`, "output_length": `+form+`, "hash_ids": [1.0]}`), "")
		if err != nil || got.Requests[0].Input != want || got.Requests[0].Output != want {
			t.Errorf("%s is read as %+v, %v", form, got, err)
		}
		if strings.Contains(form, `"`) {
			continue
		}
		if got, err = Read(strings.NewReader("Timestamp,Request tokens,Response tokens\n0,"+form+","+form+"\n"), ""); err != nil || got.Requests[0].Input != want {
			t.Errorf("%s in CSV is read as %+v, %v", form, got, err)
		}
	}
	for _, form := range []string{"12.5", "-1", `"many"`, "true", "[3]", "1e30"} {
		if got, err := Read(strings.NewReader(`{"timestamp": 0, "input_length": 5, "output_length": `+form+`}`), "ms"); err == nil || !strings.Contains(err.Error(), "line 1: found") {
			t.Errorf("%s is read as %+v, %v", form, got, err)
		}
	}
}

// Whatever a file holds, a trace that is read without an error can be played.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{azure, azure2024, burstGPT, burstGPT2, mooncake} {
		f.Add(seed, "")
		f.Add(seed, "s")
	}
	f.Fuzz(func(t *testing.T, src, unit string) {
		if nanoseconds[unit] == 0 {
			unit = ""
		}
		got, err := Read(strings.NewReader(src), unit)
		if err != nil {
			return
		}
		if len(got.Requests) == 0 || got.Requests[0].At != 0 {
			t.Fatalf("%+v", got)
		}
		last := time.Duration(0)
		for _, r := range got.Requests {
			if r.At < last || r.At > maxSpan || r.Input < 1 || r.Output < 1 || r.Input > maxTokens || r.Output > maxTokens || len(r.Blocks) > (r.Input+BlockTokens-1)/BlockTokens {
				t.Fatalf("%+v", r)
			}
			last = r.At
		}
	})
}
