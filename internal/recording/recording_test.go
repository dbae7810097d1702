package recording

import (
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

func TestARunIsReadAsItWasWritten(t *testing.T) {
	dir := t.TempDir()
	w, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	w.Gate([]byte("name: x\n"))
	w.Environment(Environment{Version: "1"})
	want := Request{Seq: 3, Kind: KindLoad, Due: 5, Sent: 7, Chunks: []time.Duration{1, 2, 9}, Status: 200}
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
