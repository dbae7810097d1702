package words_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/internal/words"
)

// writers are the source folders whose sentences are recorded, or shown while a
// gate is played.
var writers = []string{
	"chaos/*.go", "deploy/*.go", "internal/run/*.go", "internal/recording/*.go",
	"loadgen/*.go", "loadgen/client/*.go", "loadgen/worker/*.go", "loadgen/durability/*.go", "loadgen/prompt/vocabulary.go",
	"cmd/launchgate/main.go",
}

// notShown are texts of the writers that no person reads.
var notShown = map[string]string{
	"%s (Reference: %s. You may begin the answer with it.)": "what a model is asked",
	"<!doctype html":          "how a page begins",
	"Bearer %s":               "a header",
	"POST %s%s":               "what was asked",
	"HEAD / HTTP/1.0\r\n\r\n": "what a server is asked",
	"MemTotal: %s kB":         "a line of the kernel's",
	"model name":              "a line of the kernel's",
	"Tell me a story.":        "a prompt",
	"Tell me a story about a dog that has %s friends.": "a prompt",
	"the %s":     "words whose tokens are counted",
	"plan of %s": "the name of an attack",
	"[gaps between chunks, in nanoseconds, by scenario/stage/class]": "of a file",
	"%s on %s":                            "of launchgate recover",
	"of the deployment itself":            "stands for the name of a variable",
	"security scan":                       "what a seed is for",
	"http: server closed idle connection": "an error of net/http",
	"%s GiB":                              "a number with its unit",
}

// ofCatalogue names what describes the kinds of faults, for launchgate list.
var ofCatalogue = []string{"Does", "Needs", "Seen", "Simulates", "Example", "needsLink", "needsNetwork", "strikesNode"}

// Every sentence of the writers is a phrase with a wording in a table beside a
// package, so that it can be recorded with its code. A text in their source
// that is not a sentence must be listed above. So every text is checked, and
// none is forgotten.
func TestEverySentenceIsAPhrase(t *testing.T) {
	said := map[string]string{}
	for _, pattern := range writers {
		files, err := filepath.Glob(filepath.Join("..", "..", pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				maps.Copy(said, textsOf(t, file))
			}
		}
	}
	worded := wordings(t)
	for _, text := range slices.Sorted(maps.Keys(said)) {
		if !worded[text] && notShown[text] == "" {
			t.Errorf("%s: %q is no phrase (words.Say, words.Errorf) with a wording in zh.json", said[text], text)
		}
	}
	for text, why := range notShown {
		if said[text] == "" {
			t.Errorf("%q is not in the source any more (%s)", text, why)
		}
	}
}

// wordings are the forms of the phrases that the packages have wordings for.
func wordings(t *testing.T) map[string]bool {
	t.Helper()
	forms := map[string]bool{}
	for _, pattern := range []string{"../../*/zh.json", "../../*/*/zh.json"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var table words.Language
			if err := json.Unmarshal(b, &table); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			for phrase := range table {
				forms[form(string(phrase))] = true
			}
		}
	}
	return forms
}

var verb = regexp.MustCompile(`%(\[\d+\])?[-+#0]*\d*(\.\d+)?[a-zA-Z]`)

// form is a format with every verb as %s, as Recorded has it.
func form(format string) string {
	whole := strings.Split(format, "%%")
	for i := range whole {
		whole[i] = verb.ReplaceAllString(whole[i], "%s")
	}
	return strings.Trim(strings.Join(whole, "%%"), ";, ")
}

// textsOf are the texts of several words in a file, with what is put together
// by + in one piece.
func textsOf(t *testing.T, file string) map[string]string {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, file, src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	var visit func(ast.Node) bool
	var pieces func(e ast.Expr) string
	pieces = func(e ast.Expr) string {
		switch e := e.(type) {
		case *ast.BasicLit:
			if text, err := strconv.Unquote(e.Value); err == nil && e.Kind == token.STRING {
				return text
			}
			return "%s"
		case *ast.BinaryExpr:
			if e.Op == token.ADD {
				return pieces(e.X) + pieces(e.Y)
			}
		}
		ast.Inspect(e, visit)
		return "%s"
	}
	visit = func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.Field:
			if n.Tag != nil {
				ast.Inspect(n.Type, visit)
				return false
			}
		case *ast.ValueSpec:
			if slices.Contains(ofCatalogue, n.Names[0].Name) {
				return false
			}
		case *ast.KeyValueExpr:
			if key, ok := n.Key.(*ast.Ident); ok && slices.Contains(ofCatalogue, key.Name) {
				return false
			}
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "MustCompile" {
				return false // a pattern is no sentence
			}
		case *ast.BasicLit, *ast.BinaryExpr:
			if b, ok := n.(*ast.BinaryExpr); ok && b.Op != token.ADD {
				return true
			}
			text := form(pieces(n.(ast.Expr)))
			if strings.Contains(strings.TrimSpace(text), " ") && severalWords.MatchString(strings.ReplaceAll(text, "%s", "")) {
				texts[text] = strings.TrimPrefix(file, "../../") + ":" + strconv.Itoa(fset.Position(n.Pos()).Line)
			}
			return false
		}
		return true
	}
	ast.Inspect(parsed, visit)
	return texts
}

var severalWords = regexp.MustCompile(`[A-Za-z]{2}`)
