// Package internal_test has the import table: which package may import which.
package internal_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/launchgate/launchgate/"

// allowed lists, for each folder, which of our packages it may import. A folder
// that is not listed may import none of them, so a new one must be added here.
// The table is the architecture.
//
// The harness and the reference server never import each other; they
// communicate over the network. The tokenizer is neutral: the server answers
// with one, and the harness counts what any service answered with the file of
// its model. Load does not know faults, and neither knows verdicts: the two
// halves of a run share only the recording. Events are recorded as a phrase
// with its arguments, so every package that records sentences imports
// internal/words. The wordings in other languages are data (zh.json beside each
// package), which only readers of a recording load.
var allowed = map[string][]string{
	"scenarios":          {"internal/words"},
	"internal/words":     {},
	"internal/version":   {},
	"internal/durable":   {},
	"internal/flaws":     {},
	"internal/tokenizer": {"internal/flaws"},
	"internal/recording": {"internal/durable", "internal/words"},
	"deploy":             {"internal/durable", "scenarios", "internal/words", "deploy/gpu", "deploy/monitoring"},
	"deploy/gpu":         {"internal/words"},
	"deploy/monitoring":  {},
	"deploy/host":        {"scenarios", "internal/words", "deploy", "deploy/gpu"},
	"deploy/kubernetes":  {"internal/durable", "scenarios", "internal/words", "deploy"},
	"deploy/targets":     {"scenarios", "deploy", "deploy/host", "deploy/kubernetes"},
	"loadgen/client":     {"internal/recording", "internal/tokenizer", "internal/words", "loadgen/client/inferencepb"},
	"loadgen":            {"scenarios", "internal/recording", "internal/words", "loadgen/client", "loadgen/prompt", "loadgen/trace"},
	"loadgen/prompt":     {"scenarios", "internal/recording", "internal/words", "loadgen/client", "loadgen/trace"},
	"loadgen/canary":     {"scenarios", "internal/recording", "internal/words", "loadgen/client"},
	"loadgen/twins":      {"scenarios", "internal/recording", "loadgen/client"},
	"loadgen/durability": {"scenarios", "internal/recording", "internal/words", "loadgen/client"},
	"loadgen/worker":     {"scenarios", "internal/recording", "internal/words", "loadgen", "loadgen/client", "loadgen/prompt"},
	"loadgen/probe":      {"scenarios", "internal/recording", "loadgen/client"},
	"chaos":              {"scenarios", "internal/recording", "internal/words", "deploy"},
	"security":           {"scenarios", "internal/recording", "internal/words"},
	"internal/run":       {"scenarios", "internal/recording", "internal/tokenizer", "internal/words", "deploy", "deploy/gpu", "deploy/targets", "loadgen", "loadgen/canary", "loadgen/client", "loadgen/durability", "loadgen/probe", "loadgen/prompt", "loadgen/twins", "loadgen/worker", "chaos", "security"},
	"checklist":          {"scenarios", "internal/recording", "internal/words"},
	"checklist/release":  {"scenarios", "internal/words", "checklist"},
	"capacity":           {"scenarios", "internal/recording", "internal/words", "checklist"},
	"capacity/model":     {"scenarios", "internal/recording"},
	"capacity/measure":   {"scenarios", "internal/recording", "internal/run", "internal/version", "internal/words", "capacity", "checklist"},
	"reports":            {"internal/durable", "scenarios", "internal/recording", "internal/words", "checklist", "checklist/release", "capacity", "capacity/model"},
	"reports/ci":         {"scenarios", "internal/recording", "internal/words", "checklist", "reports"},
	"cmd/launchgate":     {"scenarios", "internal/interchange", "internal/recording", "internal/run", "internal/serve", "internal/version", "internal/words", "deploy", "deploy/host", "deploy/kubernetes", "deploy/targets", "loadgen", "loadgen/prompt", "loadgen/trace", "loadgen/worker", "chaos", "capacity", "capacity/measure", "capacity/model", "checklist", "checklist/release", "reports", "reports/ci", "security"},

	"internal/interchange": {"scenarios", "internal/recording", "internal/words", "checklist"},
	"internal/serve":       {"internal/durable", "checklist", "reports"},

	"deploy/kubernetes/image":  {"internal/durable"},
	"deploy/kubernetes/images": {"deploy/kubernetes/image"},
	"deploy/kubernetes/lab":    {"deploy/kubernetes/image"},

	"reference-server/batch":          {},
	"reference-server/tensor":         {},
	"reference-server/weights":        {"internal/tokenizer", "reference-server/tensor"},
	"reference-server/sample":         {},
	"reference-server/grammar":        {"internal/flaws"},
	"reference-server/device":         {},
	"reference-server/ledger":         {},
	"reference-server/models/default": {},
	"reference-server/backend/cpu":    {"reference-server/tensor"},
	"reference-server/backend/cuda":   {"reference-server/tensor"},
	"reference-server/model":          {"reference-server/batch", "reference-server/tensor", "reference-server/weights"},
	"reference-server/engine": {"reference-server/batch", "reference-server/model", "reference-server/tensor", "reference-server/backend/cpu",
		"reference-server/backend/cuda", "reference-server/weights", "internal/tokenizer", "reference-server/sample", "reference-server/grammar", "reference-server/device", "internal/flaws"},
	"reference-server/access":  {"reference-server/engine", "internal/flaws"},
	"reference-server/api":     {"reference-server/access", "internal/flaws", "reference-server/engine", "reference-server/sample", "reference-server/device"},
	"reference-server/rpc":     {"reference-server/access", "reference-server/engine", "reference-server/sample", "reference-server/device", "reference-server/rpc/inferencepb"},
	"reference-server/gateway": {"reference-server/ledger"},
	"cmd/reference-server":     {"internal/version", "reference-server/access", "reference-server/api", "reference-server/backend/cuda", "reference-server/device", "reference-server/engine", "reference-server/gateway", "reference-server/ledger", "reference-server/models/default", "reference-server/rpc", "reference-server/weights"},
}

func TestImportTable(t *testing.T) {
	for _, p := range packages(t) {
		folder := strings.TrimPrefix(p.ImportPath, module)
		may, listed := allowed[folder]
		if !listed && len(ours(p.Imports)) > 0 {
			t.Errorf("%s is not in the table and imports %v: say there what it may know", folder, ours(p.Imports))
		}
		for _, imp := range ours(p.Imports) {
			if listed && !slices.Contains(may, imp) {
				t.Errorf("%s imports %s; it may import %v", folder, imp, may)
			}
		}
	}
}

type listedPackage struct {
	ImportPath string
	Imports    []string
}

func ours(imports []string) []string {
	var of []string
	for _, i := range imports {
		if folder, ok := strings.CutPrefix(i, module); ok {
			of = append(of, folder)
		}
	}
	return of
}

func packages(t *testing.T) []listedPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listedPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listedPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("go list found %d packages; the table would prove nothing", len(all))
	}
	return all
}
