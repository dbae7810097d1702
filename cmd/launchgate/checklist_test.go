package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/checklist"
)

// A run and a file complete a user's own checklist, and the report shows it.
func TestChecklist(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if err := os.CopyFS(dir, os.DirFS("../../checklist/testdata/runs/pass")); err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(t.TempDir(), "release.yaml")
	held := func(src string, args ...string) (int, string) {
		if err := os.WriteFile(list, []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		code := launchgate(t.Context(), append([]string{"checklist", "--file", list}, args...), &out, &out)
		return code, out.String()
	}
	runbook := filepath.Join(filepath.Dir(list), "runbook.md")
	if err := os.WriteFile(runbook, []byte("Reviewed: 2026-01-01\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const one = "name: mine\nitems:\n  - {id: a, name: Book, checks: [{id: b, name: Reviewed, document: runbook.md}, {id: c, name: Errors, promise: error_rate}]}\n"
	if code, out := held(one); code != checklist.ExitUnproven || !strings.Contains(out, "no run has an objective about error_rate") {
		t.Errorf("without a run: exit code %d, %s", code, out)
	}
	if code, out := held(one, dir); code != checklist.ExitPass || !strings.Contains(out, "DONE  mine") {
		t.Errorf("with it: exit code %d, %s", code, out)
	}
	if page := string(readFile(t, filepath.Join(dir, "report.html"))); !strings.Contains(page, "reviewed on 2026-01-01") {
		t.Error("the report does not tell of the checklist")
	}
	if code, out := held("items: []"); code != checklist.ExitCouldNotRun || !strings.Contains(out, "items: found none") {
		t.Errorf("an empty list: exit code %d, %s", code, out)
	}
	if code, out := held(one, t.TempDir()); code != checklist.ExitCouldNotRun {
		t.Errorf("a folder that is no run: exit code %d, %s", code, out)
	}
	var out bytes.Buffer
	if code := launchgate(t.Context(), []string{"checklist", "--print"}, &out, &out); code != 0 || !bytes.Equal(out.Bytes(), checklist.GoLive) {
		t.Errorf("--print: exit code %d, %d bytes", code, out.Len())
	}
}
