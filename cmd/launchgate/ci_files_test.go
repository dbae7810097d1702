package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
)

// ciFiles are the files that users copy into their CI, and the page that shows them.
func ciFiles(t *testing.T) []string {
	t.Helper()
	files := []string{"../../action.yml", "../../.pre-commit-hooks.yaml", "../../docs/ci.md", "../../docs/interchange.md"}
	for _, pattern := range []string{"../../deploy/ci/*", "../../deploy/ci/*/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			if st, err := os.Stat(f); err == nil && st.Mode().IsRegular() {
				files = append(files, f)
			}
		}
	}
	if len(files) < 10 {
		t.Fatalf("found only %v", files)
	}
	return files
}

// foreign are flags of other programs in these files.
var foreign = []string{"--context", "--style", "--summary-export", "--save-detailed", "--save-result"}

// Every flag of launchgate that stands in a file for CI is one of the real command.
func TestFilesForCINameRealFlags(t *testing.T) {
	code := 0
	root := newRoot(io.Discard, io.Discard, &code)
	commands := regexp.MustCompile(`launchgate(?:/launchgate)?"? (run|export|import|serve|judge|report|slo|scan|compare|capacity)\b|(?:args|command): \[(run|export|serve)\b`)
	flags := regexp.MustCompile(`--[a-z][a-z-]+`)
	for _, path := range ciFiles(t) {
		text := string(readFile(t, path))
		var named []*cobra.Command
		for _, m := range commands.FindAllStringSubmatch(text, -1) {
			cmd, _, err := root.Find([]string{m[1] + m[2]})
			if err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			named = append(named, cmd)
		}
		if run, _, err := root.Find([]string{"run"}); err == nil {
			named = append(named, run) // flags in args of a component or an action are of run
		}
		for _, flag := range flags.FindAllString(text, -1) {
			known := false
			for _, f := range foreign {
				known = known || flag == f
			}
			for _, cmd := range named {
				known = known || cmd.Flags().Lookup(strings.TrimPrefix(flag, "--")) != nil
			}
			if !known {
				t.Errorf("%s has %s, which no command in it takes", path, flag)
			}
		}
	}
}

func TestFilesForCIAreYAML(t *testing.T) {
	templates := regexp.MustCompile(`(?m)^\s*\{\{-.*\}\}\s*$`) // a line of a Helm chart that makes lines
	for _, path := range ciFiles(t) {
		if ext := filepath.Ext(path); ext != ".yml" && ext != ".yaml" {
			continue
		}
		decoder := yaml.NewDecoder(bytes.NewReader(templates.ReplaceAll(readFile(t, path), nil)), yaml.DisallowUnknownField())
		n := 0
		for ; ; n++ {
			var document any
			if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Errorf("%s: %v", path, err)
				break
			}
			if m, is := document.(map[string]any); is && m["kind"] != nil && (m["apiVersion"] == nil || m["metadata"] == nil) {
				t.Errorf("%s: a %v without apiVersion or metadata", path, m["kind"])
			}
		}
		if n == 0 {
			t.Errorf("%s is empty", path)
		}
	}
}
