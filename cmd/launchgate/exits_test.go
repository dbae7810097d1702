package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/checklist"
)

// Every command has a line in the table of exit codes. Its help and
// docs/judging.md have the same text.
func TestExitCodesAreDocumented(t *testing.T) {
	doc := string(readFile(t, "../../docs/judging.md"))
	rows := map[string]string{}
	for _, e := range exits {
		rows[e.command] = e.means
		if line := fmt.Sprintf("| `%s` | %s |\n", e.command, e.means); !strings.Contains(doc, line) {
			t.Errorf("docs/judging.md lacks the line\n%s", line)
		}
	}
	if !strings.Contains(doc, exitsOfAll) {
		t.Errorf("docs/judging.md does not say: %s", exitsOfAll)
	}
	var out bytes.Buffer
	code := 0
	for _, cmd := range newRoot(&out, &out, &code).Commands() {
		if cmd.Hidden || cmd.Name() == "help" || cmd.Name() == "completion" {
			continue
		}
		if want := rows[cmd.Name()]; want == "" || !strings.Contains(cmd.Long, want+"; "+exitsOfAll) {
			t.Errorf("the help of %s does not tell %q and %s:\n%s", cmd.Name(), want, exitsOfAll, cmd.Long)
		}
		delete(rows, cmd.Name())
	}
	for command := range rows {
		t.Errorf("there is no command %s", command)
	}
}

// Every command exits with 4 if it cannot do its work.
func TestWhatCannotBeDoneIsFour(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	there := filepath.Join(t.TempDir(), "gate.yaml")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"run", none}, {"judge", none}, {"compare", none, none}, {"capacity", none}, {"checklist", none}, {"report", none}, {"init", there}, {"list", "nothing"},
		{"up", none, "--dir", none}, {"down", "--dir", none}, {"backup", "--dir", none, "--to", none}, {"restore", "--dir", none},
		{"release", "--dir", none, "--config", there}, {"release", "--dir", none}, {"unheard-of"},
	} {
		var out bytes.Buffer
		if code := launchgate(context.Background(), args, &out, &out); code != checklist.ExitCouldNotRun || !strings.HasPrefix(out.String(), "launchgate: ") {
			t.Errorf("%v: exit code %d, want %d: %s", args, code, checklist.ExitCouldNotRun, out.String())
		}
	}
}
