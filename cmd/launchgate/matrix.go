package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/version"
	"github.com/launchgate/launchgate/reports"
	"github.com/launchgate/launchgate/scenarios"
)

// runMatrix plays a gate once for each combination of its matrix, each in a process of
// its own, and sets the runs side by side. The exit code is the worst of all.
func runMatrix(ctx context.Context, gate scenarios.Gate, args []string, f runFlags, out, errOut io.Writer) (int, error) {
	if slices.Contains(args, "-") {
		return 0, errors.New("found a matrix in a gate from standard input, expected it in a file: it is read once for each combination")
	}
	if f.baseline != "" || f.live != "" {
		return 0, errors.New("found --baseline or --live with a gate that has a matrix, expected one combination, such as --set NAME=VALUE")
	}
	combinations := gate.Combinations()
	given, err := f.given()
	if err != nil {
		return 0, err
	}
	for _, c := range combinations { // each is checked before the first is played
		one := given
		one.Set = maps.Clone(c)
		maps.Copy(one.Set, given.Set)
		if _, err := gateOf(args, one); err != nil {
			return 0, fmt.Errorf("%s: %w", combined(c), err)
		}
	}
	if f.dryRun {
		fmt.Fprintf(out, "%d runs, one for each combination:\n", len(combinations))
		for _, c := range combinations {
			fmt.Fprintf(out, "  %s\n", combined(c))
		}
		fmt.Fprintf(out, "plan of one: launchgate run --dry-run %s\n", strings.Join(slices.Concat(settings(combinations[0]), args), " "))
		return checklist.ExitPass, nil
	}
	dir := f.out
	if dir == "" {
		dir = freshFolder("matrix-" + gate.Name)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return 0, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return 0, fmt.Errorf("the folder of the runs: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	doc := reports.Matrix{Language: f.lang, Gate: gate.Name, Axes: slices.Sorted(maps.Keys(gate.Matrix)), At: time.Now().UTC().Truncate(time.Second), Version: version.Short()}
	for i, c := range combinations {
		fmt.Fprintf(f.remarks(errOut), "run %d of %d: %s\n", i+1, len(combinations), combined(c))
		to := filepath.Join(dir, folderOf(i, c))
		cmd := exec.CommandContext(ctx, self, slices.Concat(os.Args[1:], settings(c), []string{"--out", to})...)
		cmd.Stdout, cmd.Stderr = out, errOut
		if f.asJSON {
			cmd.Stdout = io.Discard
		}
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		cmd.WaitDelay = endWithin
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return 0, err
		}
		doc.Runs = append(doc.Runs, sideBySide(dir, filepath.Base(to), c, cmd.ProcessState.ExitCode()))
		if ctx.Err() != nil {
			break
		}
	}
	if err := writeMatrix(dir, doc); err != nil {
		return 0, err
	}
	if f.asJSON {
		err = printJSON(out, doc)
	} else {
		err = reports.MatrixTerminal(out, doc, dir)
	}
	if ctx.Err() != nil {
		return exitInterrupted, err
	}
	return doc.ExitCode(), err
}

// sideBySide is what a run came to.
func sideBySide(dir, folder string, c map[string]string, code int) reports.MatrixRun {
	run := reports.MatrixRun{Settings: c, Folder: folder, ExitCode: code}
	gate, rec, err := openRun(filepath.Join(dir, folder))
	if err == nil {
		run.Verdict, err = checklist.Judge(gate, rec)
	}
	if err != nil {
		run.Error = err.Error()
	}
	return run
}

func writeMatrix(dir string, doc reports.Matrix) error {
	return writeFiles(dir, map[string]func(io.Writer) error{
		"matrix.json": func(w io.Writer) error { return printJSON(w, doc) },
		"matrix.html": func(w io.Writer) error { return reports.MatrixHTML(w, doc) },
	})
}

// combined names a combination.
func combined(c map[string]string) string {
	var all []string
	for _, axis := range slices.Sorted(maps.Keys(c)) {
		all = append(all, axis+"="+c[axis])
	}
	return strings.Join(all, ", ")
}

// settings are the flags that play one combination.
func settings(c map[string]string) (flags []string) {
	for _, axis := range slices.Sorted(maps.Keys(c)) {
		flags = append(flags, "--set", axis+"="+c[axis])
	}
	return flags
}

var notInNames = regexp.MustCompile(`[^A-Za-z0-9._=-]+`)

// folderOf names the folder of the i-th run.
func folderOf(i int, c map[string]string) string {
	name := notInNames.ReplaceAllString(strings.ReplaceAll(combined(c), ", ", "-"), "_")
	return fmt.Sprintf("%02d-%s", i+1, name[:min(len(name), 80)])
}

// one refuses a gate with several combinations where one is needed.
func one(gate scenarios.Gate, err error) (scenarios.Gate, error) {
	if err == nil && len(gate.Matrix) > 0 {
		return gate, fmt.Errorf("found a matrix with %d combinations, expected one: %s", len(gate.Combinations()), cmp.Or(strings.Join(settings(gate.Combinations()[0]), " "), "--set NAME=VALUE"))
	}
	return gate, err
}
