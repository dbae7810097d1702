package deploy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whether a canary is worse than the others, or it is too early to say.
func TestWorse(t *testing.T) {
	for _, tt := range []struct {
		says        string
		own, others ReplicaStatus
		why         string
	}{
		{"as the others", ReplicaStatus{Answered: 20, Timed: 20, Median: 0.030}, ReplicaStatus{Answered: 40, Timed: 40, Median: 0.030}, ""},
		{"one error may be anybody's", ReplicaStatus{Answered: 2, Failed: 2}, ReplicaStatus{Answered: 40}, ""},
		{"three of three are its own", ReplicaStatus{Answered: 3, Failed: 3}, ReplicaStatus{Answered: 40}, "3 of its 3 answers"},
		{"callers who ask wrongly ask all of them", ReplicaStatus{Answered: 50, Failed: 5}, ReplicaStatus{Answered: 100, Failed: 8}, ""},
		{"three times slower", ReplicaStatus{Answered: 20, Timed: 20, Median: 0.090}, ReplicaStatus{Answered: 40, Timed: 40, Median: 0.030}, "its answers take 90ms, those of the others 30ms"},
		{"three times slower, of too few", ReplicaStatus{Answered: 19, Timed: 19, Median: 0.090}, ReplicaStatus{Answered: 40, Timed: 40, Median: 0.030}, ""},
		{"a millisecond is no answer's time", ReplicaStatus{Answered: 20, Timed: 20, Median: 0.003}, ReplicaStatus{Answered: 40, Timed: 40, Median: 0.001}, ""},
		{"there are no others", ReplicaStatus{Answered: 20, Timed: 20, Median: 0.090}, ReplicaStatus{}, ""},
	} {
		if got := worse(tt.own, tt.others).String(); tt.why == "" && got != "" || !strings.Contains(got, tt.why) {
			t.Errorf("%s: %q, want %q", tt.says, got, tt.why)
		}
	}
}

func TestSince(t *testing.T) {
	before := Status{Replicas: []ReplicaStatus{{Name: "a", Answered: 100, Failed: 10}, {Name: "b", Answered: 50}, {Name: "c", Answered: 70}}}
	now := Status{Replicas: []ReplicaStatus{{Name: "a", Answered: 110, Failed: 13, Median: 0.5}, {Name: "b", Answered: 60, Failed: 1, Median: 0.1, Timed: 9}, {Name: "c", Answered: 5, Median: 0.2, Timed: 10}}}
	own, others := since(before, now, "a")
	if own.Answered != 10 || own.Failed != 3 || own.Median != 0.5 {
		t.Errorf("own %+v", own)
	}
	if others.Answered != 15 || others.Failed != 1 || others.Median != 0.2 { // the counts of c began again; b has answered too few
		t.Errorf("others %+v", others)
	}
}

func TestHashOf(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a", "abc")
	if sum, err := hashOf(filepath.Join(dir, "a")); err != nil || sum != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" {
		t.Errorf("%s %v", sum, err)
	}
	one, err := hashOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	write("b", "")
	if two, err := hashOf(dir); err != nil || one == two {
		t.Errorf("another file in a folder is not seen: %s %v", two, err)
	}
	if _, err := hashOf(filepath.Join(dir, "none")); err == nil {
		t.Error("a file that is not there has a hash")
	}
}
