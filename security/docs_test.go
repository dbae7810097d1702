package security

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

var update = flag.Bool("update", false, "rewrite docs/scan.md")

// The second half of docs/scan.md is the catalogue, made from the checks.
func TestScanDoc(t *testing.T) {
	const path, from = "../docs/scan.md", "## The checks\n"
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text, _, found := strings.Cut(string(src), from)
	if !found {
		t.Fatalf("%s has no line %q", path, strings.TrimSpace(from))
	}
	var b strings.Builder
	b.WriteString(text + from + "\n| check | worst finding | disruptive | needs |\n|---|--:|---|---|\n")
	for _, c := range Checks {
		disruptive := ""
		if c.Disruptive {
			disruptive = "yes"
		}
		fmt.Fprintf(&b, "| [%s](#%s) | %.1f %s | %s | %s |\n", c.Name, c.Name, c.Worst(), recording.Severity(c.Worst()), disruptive, c.Needs)
	}
	for _, c := range Checks {
		fmt.Fprintf(&b, "\n### %s\n\n| | |\n|---|---|\n| asks | %s |\n| control | %s |\n| flaw | %s |\n| at most | %s |\n| planted by | %s |\n",
			c.Name, c.Asks, c.Control, c.Flaw, bounds(c), c.Planted)
	}
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != b.String() {
		t.Errorf("%s is not what the checks say (%v): go test ./security -run Doc -update", path, err)
	}
}

func bounds(c Check) string {
	if c.offline {
		return "sends nothing to the service"
	}
	return fmt.Sprintf("%d requests, %.0f s, %d MiB", c.Cap.Requests, c.Cap.Seconds, c.Cap.Bytes>>20)
}

// The names that a gate may use are those of the catalogue, and every entry is
// complete.
func TestChecksAreWhatGatesName(t *testing.T) {
	var names []string
	for _, c := range Checks {
		names = append(names, c.Name)
		if c.Asks == "" || c.Control == "" || c.Flaw == "" || c.Planted == "" || c.run == nil {
			t.Errorf("%s does not say what it asks, its control, its flaw and what plants it", c.Name)
		}
		if score, err := Score(c.worst); err != nil || score == 0 {
			t.Errorf("%s: its worst finding has no score: %v", c.Name, err)
		}
		if !c.offline && (c.Cap.Requests == 0 || c.Cap.Seconds == 0 || c.Cap.Bytes == 0) {
			t.Errorf("%s has no cap", c.Name)
		}
	}
	if !slices.Equal(names, scenarios.ScanChecks) {
		t.Errorf("scenarios.ScanChecks is\n%v\nand the catalogue is\n%v", scenarios.ScanChecks, names)
	}
}

// Scores from the examples of the CVSS 3.1 specification and from the calculator of
// FIRST.
func TestScore(t *testing.T) {
	for _, tt := range []struct {
		vector string
		want   float64
	}{
		{"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 9.8},
		{"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", 10},
		{"CVSS:3.1/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", 6.1},
		{"CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:C/C:L/I:L/A:N", 6.4},
		{"CVSS:3.1/AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N", 3.1},
		{"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N", 0},
		{"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N", 7.5},
		{"CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H", 7.8},
		{"CVSS:3.1/AV:P/AC:L/PR:N/UI:N/S:U/C:N/I:H/A:H", 6.1},
		{"CVSS:3.1/AV:A/AC:H/PR:H/UI:R/S:C/C:H/I:L/A:N", 5.9},
	} {
		if got, err := Score(tt.vector); err != nil || got != tt.want {
			t.Errorf("%s is %v (%v), want %v", tt.vector, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", "CVSS:3.0/AV:N", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H", "CVSS:3.1/AV:N/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", "CVSS:3.1/AV:X/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"} {
		if _, err := Score(bad); err == nil {
			t.Errorf("%q has a score", bad)
		}
	}
}
