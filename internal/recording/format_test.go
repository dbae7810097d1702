package recording

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/internal/words"
)

// FORMAT.md names every file, column and key, and no others are in its tables.
func TestFormatIsDocumented(t *testing.T) {
	source, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(source)
	if !strings.Contains(text, fmt.Sprintf("This is format %d,", Format)) {
		t.Errorf("FORMAT.md does not say that it is of format %d", Format)
	}
	for _, name := range []string{GateFile, EnvironmentFile, "requests-*.parquet", InjectionsFile, ObservationsFile, ScanFile, "results.sarif", LogsFolder + "/",
		"verdict.json", "report.html", "junit.xml", "summary.md", unfinished} {
		if !strings.Contains(text, "`"+name+"`") {
			t.Errorf("FORMAT.md does not name the file %s", name)
		}
	}
	for _, tt := range []struct {
		section string
		of      any
		tag     string
	}{
		{"## requests-*.parquet", Request{}, "parquet"},
		{"## injections.jsonl", Injection{}, "json"},
		{"## injections.jsonl", words.Written{}, "json"},
		{"## observations.jsonl", Observation{}, "json"},
		{"## observations.jsonl", words.Written{}, "json"},
		{"## Sentences", words.Written{}, "json"},
		{"## scan.jsonl", ScanResult{}, "json"},
		{"## scan.jsonl", Others{}, "json"},
		{"## scan.jsonl", ScanFinding{}, "json"},
		{"## scan.jsonl", Exchange{}, "json"},
		{"## scan.jsonl", Waiver{}, "json"},
		{"## environment.json", Environment{}, "json"},
		{"## environment.json", Host{}, "json"},
		{"## environment.json", Target{}, "json"},
	} {
		documented := section(t, text, tt.section)
		for _, name := range tagged(tt.of, tt.tag) {
			if name == "-" {
				continue // it is written with the keys below
			}
			if !strings.Contains(documented, "`"+name+"`") {
				t.Errorf("%s: %s of %T is not named", tt.section, name, tt.of)
			}
		}
	}
	columns := tagged(Request{}, "parquet")
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (string|boolean|int32|int64|list of int64) \\|").FindAllStringSubmatch(text, -1) {
		if !strings.Contains(" "+strings.Join(columns, " ")+" ", " "+row[1]+" ") {
			t.Errorf("FORMAT.md names a column %s, and there is none", row[1])
		}
	}
}

// The names of requests, faults and observations are constants of this package, and
// each is in FORMAT.md.
func TestNamesAreDocumented(t *testing.T) {
	source, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	types, err := os.ReadFile("types.go")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`(?m)^\t(?:Kind|Error|Fault|Obs)\w+ += "(\w+)"`).FindAllStringSubmatch(string(types), -1)
	if len(names) < 30 {
		t.Fatalf("%d names found in types.go, want all of them", len(names))
	}
	for _, name := range names {
		if !strings.Contains(string(source), "`"+name[1]+"`") {
			t.Errorf("FORMAT.md does not name %s", name[1])
		}
	}
}

func section(t *testing.T, text, title string) string {
	t.Helper()
	_, rest, found := strings.Cut(text, "\n"+title+"\n")
	if !found {
		t.Fatalf("FORMAT.md has no section %s", title)
	}
	body, _, _ := strings.Cut(rest, "\n## ")
	return body
}

// tagged are the names of a type's fields in a file.
func tagged(of any, tag string) []string {
	var names []string
	for _, field := range reflect.VisibleFields(reflect.TypeOf(of)) {
		name, _, _ := strings.Cut(field.Tag.Get(tag), ",")
		names = append(names, name)
	}
	return names
}
