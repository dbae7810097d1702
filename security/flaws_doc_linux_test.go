package security

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// foundElsewhere are flaws of the reference server that no scan of the bundle has to
// find, with the reason.
var foundElsewhere = map[string]string{
	"engine-blocks": "costly-requests finds it in the test service; the reference server is too fast for the check to see it",
	"inside-errors": "none: a scan sees it only while a replica fails",
	"echo-inside":   "none: what /v1/models shows is not a secret of its own",
	"n-not-counted": "none: the tests of the fair queue cover what it breaks",
	"unfair-queue":  "none: the tests of the fair queue cover what it breaks",
}

// docs/flaws.md is made from the lists of flaws: those of the test service, those of the
// bundle, and those that the sources of the reference server name.
func TestFlawsDoc(t *testing.T) {
	const path = "../docs/flaws.md"
	var b strings.Builder
	b.WriteString(`# Planted flaws

This page lists the security flaws that tests plant, each with the check of the
[security scan](scan.md) that has to find it. [defects.md](defects.md) lists planted
defects of other kinds, which gates find. A test holds this page equal to the lists in
the source:

` + "```sh" + `
go test ./security -run FlawsDoc -update          # write this page
go test ./security -run PlantedFlawsAreFound      # every flaw of the test service
LAUNCHGATE_FLAWS=all go test ./security -run FlawedBundleIsFound -timeout 30m   # every flaw of the bundle
LAUNCHGATE_ROUNDS=20 go test ./security -run 'TestBundleIsSafe' -timeout 60m -v # no flaw: 20 rounds, all safe
` + "```" + `

## The test service

A small OpenAI-compatible service in ` + "`security/fake_test.go`" + `. The name of a flaw is its
switch: ` + "`startFake(t, FLAW)`" + `.

| flaw and switch | what is wrong | check that finds it |
|---|---|---|
`)
	for _, p := range planted {
		fmt.Fprintf(&b, "| `%s` | %s | [%s](scan.md#%s) |\n", p.flaw, p.wrong, p.check, p.check)
	}
	b.WriteString(`
## The bundled reference server

` + "Built with `go build -tags flaws ./cmd/reference-server`; the environment variable\n`LAUNCHGATE_FLAW` lists the flaws to switch on, separated by commas. The shipped program has\nnone of them: `TestShippedServerHasNoFlaws`. CI plays the flaws marked \"yes\", one of each\ncheck that does not take a minute." + `

| flaw and switch | what is wrong | where | check that finds it | in CI |
|---|---|---|---|---|
`)
	seen := map[string]bool{}
	for _, where := range []struct{ name, source string }{{"gateway", "../reference-server/gateway/flaw_planted.go"}, {"replica", "../internal/flaws/on.go"}} {
		for _, f := range namedFlaws(t, where.source) {
			found, plays := elsewhereOrChecks(f.name)
			if found == "" {
				t.Errorf("no check has to find %s, and foundElsewhere does not say why", f.name)
			}
			seen[f.name] = true
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", f.name, f.wrong, where.name, found, plays)
		}
	}
	for _, f := range flawsOfBundle {
		for name := range strings.SplitSeq(f.flaw, ",") {
			if name, _, _ = strings.Cut(name, "="); !seen[name] {
				t.Errorf("the bundle is tested with %s, which the reference server does not name", name)
			}
		}
	}
	for name := range foundElsewhere {
		if !seen[name] {
			t.Errorf("foundElsewhere names %s, which the reference server does not", name)
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != b.String() {
		t.Errorf("%s is not what the lists say (%v): go test ./security -run FlawsDoc -update", path, err)
	}
}

// elsewhereOrChecks are the checks that have to find a flaw of the bundle, or the reason
// why none has to, and whether CI plays it.
func elsewhereOrChecks(name string) (found, plays string) {
	var checks []string
	for _, f := range flawsOfBundle {
		first, _, _ := strings.Cut(f.flaw, ",") // others are there to make the first reachable
		if first, _, _ = strings.Cut(first, "="); first != name {
			continue
		}
		if link := fmt.Sprintf("[%s](scan.md#%s)", f.check, f.check); !slices.Contains(checks, link) {
			checks = append(checks, link)
		}
		if playedInCI(f.flaw) {
			plays = "yes"
		}
	}
	if why, is := foundElsewhere[name]; is && len(checks) == 0 {
		return why, ""
	}
	return strings.Join(checks, ", "), plays
}

// playedInCI reports whether TestFlawedBundleIsFound plays a flaw by default.
func playedInCI(flaw string) bool {
	played := map[string]bool{}
	for _, f := range flawsOfBundle {
		if f.slow || played[f.check] {
			continue
		}
		played[f.check] = true
		if f.flaw == flaw {
			return true
		}
	}
	return false
}

// namedFlaw is a flaw as a list in the reference server's source names it.
type namedFlaw struct{ name, wrong string }

var flawLine = regexp.MustCompile(`(?m)^\t"([a-z0-9-]+)",\s*// (.+)$`)

func namedFlaws(t *testing.T, source string) (all []namedFlaw) {
	t.Helper()
	src, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range flawLine.FindAllStringSubmatch(string(src), -1) {
		all = append(all, namedFlaw{m[1], strings.ReplaceAll(m[2], "|", `\|`)})
	}
	if len(all) < 5 {
		t.Fatalf("%s: found %d flaws, expected its list", source, len(all))
	}
	return all
}
