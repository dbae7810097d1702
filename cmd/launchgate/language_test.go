package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/checklist"
)

// The same run folder gives the report in Chinese, and then the same English
// report again, byte for byte. verdict.json is the same in both languages.
func TestReportInChinese(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if err := os.CopyFS(dir, os.DirFS("../../checklist/testdata/runs/fail")); err != nil {
		t.Fatal(err)
	}
	output := func(args ...string) (string, map[string]string) {
		var out, errOut bytes.Buffer
		if code := launchgate(context.Background(), append(args, dir), &out, &errOut); code != checklist.ExitFail {
			t.Fatalf("%v ends with %d: %s", args, code, errOut.String())
		}
		files := map[string]string{}
		for _, name := range []string{"report.html", "summary.md", "junit.xml", "verdict.json"} {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			files[name] = string(b)
		}
		return out.String(), files
	}
	english, first := output("judge")
	chinese, zh := output("judge", "--lang", "zh")
	again, last := output("judge", "--lang", "en")
	if !strings.Contains(chinese, "不通过") || !strings.Contains(zh["report.html"], `<html lang="zh-CN">`) || !strings.Contains(zh["summary.md"], "要求") || !strings.Contains(zh["junit.xml"], "要求") {
		t.Errorf("not everything is in Chinese: %s", chinese)
	}
	if zh["verdict.json"] != first["verdict.json"] {
		t.Error("verdict.json depends on the reader's language")
	}
	if english != again {
		t.Errorf("it was\n%s\nand is\n%s", english, again)
	}
	for name := range first {
		if first[name] != last[name] {
			t.Errorf("%s is not what it was before the report in Chinese", name)
		}
	}
}

// Every command that writes text for a person has the languages. For an unknown
// language its error lists them.
func TestUnknownLanguage(t *testing.T) {
	for _, command := range []string{"run", "judge", "report", "compare", "capacity", "checklist"} {
		var out, errOut bytes.Buffer
		code := launchgate(context.Background(), []string{command, "--lang", "fr"}, &out, &errOut)
		if said := errOut.String(); code != checklist.ExitCouldNotRun || !strings.Contains(said, `"fr"`) || !strings.Contains(said, "en (English)") || !strings.Contains(said, "zh (Chinese") {
			t.Errorf("%s --lang fr ends with %d: %s", command, code, said)
		}
	}
}
