package security

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
	"golang.org/x/vuln/scan"

	"github.com/launchgate/launchgate/scenarios"
)

var permissions = Check{
	Name:    "permissions",
	Asks:    "whether other users of the machine can read or change keys, ledgers and audit logs",
	Control: "the named files exist",
	Flaw:    "users other than the owner can read a private key, an API key or a ledger, in a folder that they can enter; or they can write any of the files",
	Planted: "files written by the test",
	Needs:   "the files with secrets (secrets)",
	worst:   "CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:N",
	asked:   func(s scenarios.Scan) bool { return len(s.Secrets) > 0 },
	offline: true,
	run:     runPermissions,
}

var knownVulnerabilities = Check{
	Name:    "known-vulnerabilities",
	Asks:    "whether deployed Go programs contain vulnerable code from modules with known vulnerabilities",
	Control: "the programs contain their list of modules, and the vulnerability database can be read",
	Flaw:    "golang.org/x/vuln finds a vulnerable symbol in the program",
	Planted: "a test database that lists a module of the test program",
	Needs:   "the Go programs (binaries)",
	worst:   "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:L/I:L/A:L",
	asked:   func(s scenarios.Scan) bool { return len(s.Binaries) > 0 },
	offline: true,
	run:     runVulnerabilities,
}

// secretFile reports whether a file should be readable by its owner only.
func secretFile(path string) bool {
	name := strings.ToLower(filepath.Base(path))
	switch filepath.Ext(name) {
	case ".key", ".db", ".db-wal", ".db-shm", ".sqlite", ".ltx", ".p12", ".pfx":
		return true
	}
	return strings.Contains(name, "key") && !strings.HasSuffix(name, ".pub") || strings.Contains(name, "secret") || strings.Contains(name, "audit") || strings.Contains(name, "token") || strings.Contains(name, "password")
}

func runPermissions(_ context.Context, t *trial) end {
	if runtime.GOOS == "windows" {
		return unproven("file permissions are read from mode bits, which this system does not have")
	}
	looked := 0
	for _, where := range t.Scan.Secrets {
		// The files in a folder that others cannot enter are closed too.
		closed := map[string]bool{}
		named := false
		err := filepath.WalkDir(where, func(path string, d fs.DirEntry, err error) error {
			if path != where && errors.Is(err, fs.ErrNotExist) {
				return nil // it was removed during the walk
			}
			if err != nil {
				return err
			}
			info, err := d.Info()
			switch {
			case path != where && errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil || info.Mode()&fs.ModeSymlink != 0:
				return err
			}
			named = true
			mode := info.Mode().Perm()
			inside := closed[filepath.Dir(path)]
			if d.IsDir() {
				closed[path] = inside || mode&0o011 == 0
				if !inside && mode&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
					t.file(relative(where, path), "written", t.check.worst, say("other users of the machine can change the contents of a folder with secrets"), fmt.Sprintf("mode %v", mode), say("chmod 0700"), "CWE-732")
				}
				return nil
			}
			if !info.Mode().IsRegular() {
				return nil
			}
			looked++
			switch {
			case inside:
			case mode&0o022 != 0:
				t.file(relative(where, path), "written", t.check.worst, say("other users of the machine can change a file with secrets"), fmt.Sprintf("mode %v", mode), say("chmod 0600"), "CWE-732")
			case mode&0o044 != 0 && (secretFile(path) || path == where || holdsPrivateKey(path)):
				t.file(relative(where, path), "read", "CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:N/A:N", say("other users of the machine can read a file with secrets"), fmt.Sprintf("mode %v", mode), say("chmod 0600"), "CWE-732")
			}
			if looked > maxFiles {
				return fs.SkipAll
			}
			return nil
		})
		if err != nil || !named {
			return unproven("the files cannot be examined: %s", orError(err, where))
		}
	}
	if looked == 0 {
		return unproven("the named paths contain no file")
	}
	return t.ended("only the owner can read the secret ones of %s files, and nobody else can change any", number(int64(looked)))
}

func orError(err error, where string) string {
	if err == nil {
		return where
	}
	return err.Error()
}

func relative(where, path string) string {
	if r, err := filepath.Rel(where, path); err == nil && r != "." {
		return filepath.Base(where) + "/" + r
	}
	return filepath.Base(path)
}

func holdsPrivateKey(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head, _ := io.ReadAll(io.LimitReader(f, 4096))
	return bytes.Contains(head, []byte("PRIVATE KEY-----"))
}

func runVulnerabilities(ctx context.Context, t *trial) end {
	db := t.Scan.Vulnerabilities
	if db == "" {
		return unproven("no vulnerability database was given; set vulnerabilities to the folder or URL of a copy of the Go vulnerability database")
	}
	if !strings.Contains(db, "://") {
		if _, err := os.Stat(filepath.Join(db, "index", "modules.json")); err != nil {
			return unproven("%s is not a copy of a vulnerability database: %s", filepath.Base(db), err)
		}
		db = (&url.URL{Scheme: "file", Path: filepath.ToSlash(db)}).String()
	}
	for _, binary := range t.Scan.Binaries {
		if _, err := buildinfo.ReadFile(binary); err != nil {
			return unproven("%s contains no list of its modules: %s", filepath.Base(binary), err)
		}
		out, err := vulncheck(ctx, db, binary)
		if err != nil {
			return unproven("%s could not be checked against the database: %s", filepath.Base(binary), err)
		}
		for _, v := range out {
			t.file(filepath.Base(binary)+" "+v.module, v.id, t.check.worst, say("a program contains code with a known vulnerability: %s", v.id), v.module+" "+v.version+", fixed in "+orElse(v.fixed, "no version yet"),
				say("upgrade to %s of %s and build again", orElse(v.fixed, "another module"), v.module), "CWE-1395")
		}
	}
	return t.ended("%s programs contain no known vulnerability", number(int64(len(t.Scan.Binaries))))
}

// vulnerability is a vulnerability found in a program.
type vulnerability struct{ id, module, version, fixed string }

// vulncheck compares a binary with a database of vulnerabilities. A vulnerability
// counts only if its symbols are in the binary.
func vulncheck(ctx context.Context, db, binary string) ([]vulnerability, error) {
	cmd := scan.Command(ctx, "-mode", "binary", "-format", "json", "-db", db, binary)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Start()
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return nil, errors.Join(err, errors.New(clip(strings.TrimSpace(said.String()), 300)))
	}
	var found []vulnerability
	for dec := json.NewDecoder(&out); ; {
		var m struct {
			Finding *struct {
				OSV   string `json:"osv"`
				Fixed string `json:"fixed_version"`
				Trace []struct {
					Module   string `json:"module"`
					Version  string `json:"version"`
					Function string `json:"function"`
				} `json:"trace"`
			} `json:"finding"`
		}
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return found, nil
		} else if err != nil {
			return nil, err
		}
		f := m.Finding
		if f == nil || len(f.Trace) == 0 || f.Trace[0].Function == "" {
			continue // the module is in the binary, and the vulnerable code is not
		}
		v := vulnerability{f.OSV, f.Trace[0].Module, f.Trace[0].Version, f.Fixed}
		if !slices.Contains(found, v) {
			found = append(found, v)
		}
	}
}

// SBOM writes the modules of Go programs, as CycloneDX 1.6 in JSON.
func SBOM(w io.Writer, binaries []string) error {
	bom := cyclonedx.NewBOM()
	bom.SpecVersion = cyclonedx.SpecVersion1_6
	var components []cyclonedx.Component
	seen := map[string]bool{}
	for _, binary := range binaries {
		info, err := buildinfo.ReadFile(binary)
		if err != nil {
			return fmt.Errorf("the bill of materials of %s: %w", binary, err)
		}
		add := func(kind cyclonedx.ComponentType, name, version string) {
			ref := "pkg:golang/" + name + "@" + version
			if name == "" || seen[ref] {
				return
			}
			seen[ref] = true
			components = append(components, cyclonedx.Component{BOMRef: ref, Type: kind, Name: name, Version: version, PackageURL: ref})
		}
		add(cyclonedx.ComponentTypeApplication, info.Main.Path, info.Main.Version)
		add(cyclonedx.ComponentTypeLibrary, "std", strings.TrimPrefix(info.GoVersion, "go"))
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			add(cyclonedx.ComponentTypeLibrary, m.Path, m.Version)
		}
	}
	bom.Components = &components
	e := cyclonedx.NewBOMEncoder(w, cyclonedx.BOMFileFormatJSON)
	e.SetPretty(true)
	return e.EncodeVersion(bom, cyclonedx.SpecVersion1_6)
}
