package recording

import (
	"errors"
	"reflect"
	"testing"
	"time"
)

func collect(t *testing.T, r *Recording) []Request {
	t.Helper()
	var rows []Request
	for request, err := range r.Requests {
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, request)
	}
	return rows
}

// If chunk times are kept for every tenth request only, gaps are still counted for all
// complete answers.
func TestGapsAreCountedOfAll(t *testing.T) {
	dir := t.TempDir()
	w, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	w.KeepChunks(func(seq int64) bool { return seq%10 == 0 })
	if err := errors.Join(w.Gate([]byte("name: x\n")), w.Environment(Environment{Version: "1"})); err != nil {
		t.Fatal(err)
	}
	for n := range 100 {
		ms := time.Duration(n+1) * time.Millisecond
		r := Request{Seq: int64(n), Kind: KindLoad, Scenario: "s", Stage: "m", Class: "gold", Due: 1, Sent: 1, End: time.Second, Chunks: []time.Duration{ms, 2 * ms, 2*ms + 1000}}
		if n == 99 {
			r.Error = ErrorTruncated // its gaps do not count
		}
		w.Request(r)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range collect(t, r) {
		if kept := len(row.Chunks) > 0; kept != (row.Seq%10 == 0) || row.MaxGap != time.Duration(row.Seq+1)*time.Millisecond {
			t.Fatalf("%+v", row)
		}
	}
	if len(r.Gaps) != 1 || r.Gaps[0].Class != "gold" || r.Gaps[0].Stage != "m" || r.Gaps[0].Scenario != "s" {
		t.Fatalf("%+v", r.Gaps)
	}
	g := r.Gaps[0]
	if n := g.TotalCount(); n != 198 {
		t.Errorf("%d gaps, want 198", n)
	}
	if p75 := g.ValueAtQuantile(75); p75 < 49_000_000 || p75 > 51_000_000 {
		t.Errorf("p75 is %d ns, want 50 ms", p75)
	}
}

func TestARunIsReadAsItWasWritten(t *testing.T) {
	dir := t.TempDir()
	w, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	w.Gate([]byte("name: x\n"))
	w.Environment(Environment{Version: "1"})
	want := Request{Seq: 3, Kind: KindLoad, Due: 5, Sent: 7, Chunks: []time.Duration{1, 2, 9}, MaxGap: 7, Status: 200}
	w.Request(want)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	w.Request(want)
	w.Observe(Observation{At: 1, Name: ObsRunEnded})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := collect(t, r); !reflect.DeepEqual(got, []Request{want, want}) {
		t.Fatalf("%+v", got)
	}
	t.Log(r.Environment.Files, r.Warnings, r.Complete)
}
