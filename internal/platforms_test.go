package internal_test

import (
	"errors"
	"go/ast"
	"go/build"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// onlySyscall imports package syscall as a system has it. The other packages are the
// same on every system, so it imports them empty, with their names.
type onlySyscall struct {
	source types.Importer
	names  map[string]string // path to name
}

func (i onlySyscall) Import(path string) (*types.Package, error) {
	if path == "syscall" {
		return i.source.Import(path)
	}
	p := types.NewPackage(path, i.names[path])
	p.MarkComplete()
	return p, nil
}

// launchgate is built for systems that the tests do not run on. A compiler for each would
// take minutes, so this checks what differs between systems: each package of launchgate
// declares what it uses of itself there, and package syscall has what it uses of that.
// make release builds them in full.
func TestLaunchgateBuildsForEverySystem(t *testing.T) {
	for _, system := range []struct{ os, arch string }{{"windows", "amd64"}, {"darwin", "arm64"}} {
		t.Run(system.os, func(t *testing.T) {
			for _, problem := range typeCheckFor(t, system.os, system.arch, "../cmd/launchgate") {
				t.Error(problem)
			}
		})
	}
}

// The check finds what it is meant to find.
func TestABuildForAnotherSystemIsChecked(t *testing.T) {
	problems := strings.Join(typeCheckFor(t, "windows", "amd64", "testdata/unixonly"), "\n")
	for _, want := range []string{"undefined: syscall.Kill", "unknown field Setsid", "undefined: onlyOnUnix"} {
		if !strings.Contains(problems, want) {
			t.Errorf("not found: %s; found:\n%s", want, problems)
		}
	}
	if len(typeCheckFor(t, "linux", "amd64", "testdata/unixonly")) > 0 {
		t.Error("on Linux the package is sound")
	}
}

// typeCheckFor checks the packages of ours that a program has on a system.
func typeCheckFor(t *testing.T, system, arch, program string) (problems []string) {
	t.Helper()
	list := exec.Command("go", "list", "-deps", "-f", "{{.ImportPath}} {{.Name}} {{.Dir}} {{range .GoFiles}}{{.}},{{end}}", "./"+program)
	list.Env = append(list.Environ(), "GOOS="+system, "GOARCH="+arch, "CGO_ENABLED=0")
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %s", err)
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatalf("go env GOROOT: %s", err)
	}
	saved := build.Default // of which the importer takes the system
	defer func() { build.Default = saved }()
	build.Default.GOROOT, build.Default.GOOS, build.Default.GOARCH, build.Default.CgoEnabled = strings.TrimSpace(string(root)), system, arch, false
	fset := token.NewFileSet()
	imports := onlySyscall{importer.ForCompiler(fset, "source", nil), map[string]string{}}
	if _, err := imports.Import("syscall"); err != nil {
		t.Fatalf("package syscall of %s: %s", system, err)
	}
	checked := 0
	for line := range strings.Lines(string(out)) { // each after those that it imports
		fields := strings.Fields(line)
		if len(fields) < 2 {
			t.Fatalf("go list printed %q", line)
		}
		imports.names[fields[0]] = fields[1]
		if len(fields) != 4 || !strings.HasPrefix(fields[0], module) {
			continue
		}
		var files []*ast.File
		for _, name := range strings.Split(strings.TrimSuffix(fields[3], ","), ",") {
			f, err := parser.ParseFile(fset, filepath.Join(fields[2], name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		conf := types.Config{Importer: imports, Error: func(err error) {
			var e types.Error
			if errors.As(err, &e) && differs(e.Msg) {
				problems = append(problems, e.Error())
			}
		}}
		_, _ = conf.Check(fields[0], fset, files, nil) // its errors came one by one
		checked++
	}
	if checked == 0 {
		t.Fatalf("no package of ours was checked for %s", system)
	}
	return problems
}

// differs reports whether an error can come of a difference between systems. Others come
// of the packages that were imported empty.
func differs(msg string) bool {
	name, undefined := strings.CutPrefix(msg, "undefined: ")
	return undefined && (!strings.Contains(name, ".") || strings.HasPrefix(name, "syscall.")) ||
		strings.HasPrefix(msg, "unknown field ") && strings.Contains(msg, "syscall.") || strings.Contains(msg, "redeclared")
}
