package reports

import (
	"cmp"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"html"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template/parse"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

// shared has the wordings of phrases that several packages use: how sentences
// are combined.
const shared = "internal/words"

// Every constant of the type Phrase in the module has a wording in the table
// beside its package, every id in a page exists, and no wording is unused. The
// number and the types of a phrase's arguments match each wording.
func TestEveryPhraseIsTranslated(t *testing.T) {
	said := phrasesInSource(t)
	mine := said["reports"]
	for id, where := range idsInPages(t) {
		mine[id] = where
	}
	// Some ids are put together: a constant that ends in a dot is a family.
	families := map[words.Phrase]bool{}
	for id, where := range mine {
		switch _, known := phrases[id]; {
		case strings.HasSuffix(string(id), ".") && !strings.Contains(string(id), " "):
			families[id] = true
			delete(mine, id)
		case !known && id != "%s":
			t.Errorf("%s says %q, and no phrase of this package has that id", where, id)
		}
	}
	for id := range phrases {
		family, _, _ := strings.Cut(string(id), ".")
		if mine[id] == "" && !families[words.Phrase(family+".")] {
			t.Errorf("nothing says %q", id)
		}
		mine[id] = cmp.Or(mine[id], "reports/words.go")
	}
	tables := tables()
	all := words.Language{}
	used := map[string]map[words.Phrase]bool{}
	for folder, table := range tables {
		used[folder] = map[words.Phrase]bool{}
		for phrase, wording := range table {
			if other, twice := all[phrase]; twice && other != wording {
				t.Errorf("%s: %q is worded %q, and elsewhere %q", folder, phrase, wording, other)
			}
			all[phrase] = wording
		}
	}
	for folder, phrasesOf := range said {
		delete(phrasesOf, "%s") // verbatim text
		delete(phrasesOf, "")
		for phrase, where := range phrasesOf {
			table := cmp.Or(folderOf(tables, folder, phrase), folderOf(tables, shared, phrase))
			wording := tables[table][phrase]
			if table == "" {
				t.Errorf("%s: no wording in %s/zh.json for %q", where, folder, phrase)
				continue
			}
			used[table][phrase] = true
			english := string(cmp.Or(words.Phrase(phrases[phrase]), phrase))
			if want, got := verbs(english), verbs(wording); !maps.Equal(want, got) {
				t.Errorf("%q is filled with %v, and its Chinese %q with %v", english, want, wording, got)
			}
		}
	}
	for folder, table := range tables {
		elsewhere := otherSystems(t, folder)
		for phrase := range table {
			if !used[folder][phrase] && !strings.Contains(elsewhere, strconv.Quote(string(phrase))) {
				t.Errorf("%s/zh.json words %q, which nobody says", folder, phrase)
			}
		}
	}
}

// otherSystems is the source of a package that is not compiled here.
func otherSystems(t *testing.T, folder string) string {
	t.Helper()
	var source strings.Builder
	for _, names := range []string{"*_other.go", "*_windows.go"} {
		files, err := filepath.Glob(filepath.Join("..", folder, names))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			source.Write(read(t, ".", file))
		}
	}
	return source.String()
}

// folderOf is the folder, or shared if the folder's table does not word a
// phrase.
func folderOf(tables map[string]words.Language, folder string, phrase words.Phrase) string {
	if _, has := tables[folder][phrase]; has {
		return folder
	}
	return ""
}

// fmt requires a number in brackets directly before the letter.
var verb = regexp.MustCompile(`%[-+#0]*(?:\d+)?(?:\.\d+)?(?:\[(\d+)\])?([a-zA-Z])`)

// verbs are the types of a format's arguments, by position.
func verbs(format string) map[int]string {
	found := map[int]string{}
	next := 1
	for _, m := range verb.FindAllStringSubmatch(strings.ReplaceAll(format, "%%", ""), -1) {
		if m[1] != "" {
			fmt.Sscan(m[1], &next)
		}
		found[next] = m[2]
		next++
	}
	return found
}

// phrasesInSource finds every constant of the type Phrase, by the folders of
// the packages that use them, and checks the arguments of each.
func phrasesInSource(t *testing.T) map[string]map[words.Phrase]string {
	t.Helper()
	said := map[string]map[words.Phrase]string{}
	total := 0
	for _, p := range checkedPackages(t) {
		of := map[words.Phrase]string{}
		said[p.folder] = of
		for _, file := range p.files {
			ast.Inspect(file, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					p.checkCall(t, call)
				}
				e, ok := n.(ast.Expr)
				if !ok {
					return true
				}
				if v := p.info.Types[e]; v.Value != nil && v.Value.Kind() == constant.String && isPhrase(v.Type) && !p.keys[e] {
					of[words.Phrase(constant.StringVal(v.Value))] = p.where(e)
				}
				return true
			})
		}
		total += len(of)
	}
	if total < 100 {
		t.Fatalf("%d phrases were found in the source; the test would prove nothing", total)
	}
	return said
}

func isPhrase(t types.Type) bool {
	named, ok := t.(*types.Named)
	return ok && named.Obj().Name() == "Phrase" && strings.HasSuffix(named.Obj().Pkg().Path(), "internal/words")
}

// checkedPackage is the source of a package with its types.
type checkedPackage struct {
	folder string
	files  []*ast.File
	fset   *token.FileSet
	info   *types.Info
	keys   map[ast.Expr]bool // of the languages' own maps
}

func (p checkedPackage) where(n ast.Node) string {
	at := p.fset.Position(n.Pos())
	return fmt.Sprintf("%s/%s:%d", p.folder, filepath.Base(at.Filename), at.Line)
}

// checkCall checks a call whose last parameters are a phrase and its arguments.
func (p checkedPackage) checkCall(t *testing.T, call *ast.CallExpr) {
	if conversion := p.info.Types[call.Fun]; conversion.IsType() {
		if isPhrase(conversion.Type) && p.info.Types[call].Value == nil && p.folder != "reports" {
			t.Errorf("%s: a phrase that is put together cannot be translated; write it out", p.where(call))
		}
		return
	}
	if f, ok := call.Fun.(*ast.SelectorExpr); ok && p.folder == "reports" {
		if by, ok := f.X.(*ast.Ident); ok && by.Name == "fmt" {
			for _, arg := range call.Args {
				if named, ok := p.info.Types[arg].Type.(*types.Named); ok && named.Obj().Name() == "Sentence" {
					t.Errorf("%s: fmt writes a sentence in English; word it in the reader's language first", p.where(arg))
				}
			}
		}
	}
	if f, ok := call.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Verbatim" {
		inner, made := call.Args[0].(*ast.CallExpr)
		if made {
			by, ok := inner.Fun.(*ast.SelectorExpr)
			made = ok && strings.HasPrefix(by.Sel.Name, "Sprint")
		}
		if made || p.info.Types[call.Args[0]].Value != nil && p.folder != "reports" {
			t.Errorf("%s: what is ours to say is no quotation and can be translated; use words.Say", p.where(call))
		}
	}
	signature, ok := p.info.Types[call.Fun].Type.(*types.Signature)
	if !ok || !signature.Variadic() || signature.Params().Len() < 2 || call.Ellipsis.IsValid() {
		return
	}
	last := signature.Params().Len() - 2
	if !isPhrase(signature.Params().At(last).Type()) || p.info.Types[call.Args[last]].Value == nil {
		return
	}
	phrase := constant.StringVal(p.info.Types[call.Args[last]].Value)
	english := string(cmp.Or(words.Phrase(phrases[words.Phrase(phrase)]), words.Phrase(phrase)))
	want, args := verbs(english), call.Args[last+1:]
	if len(want) != len(args) {
		t.Errorf("%s: %q is filled with %d things, and wants %d", p.where(call), english, len(args), len(want))
		return
	}
	if len(args) == 0 && strings.Contains(english, "%%") {
		t.Errorf("%s: %q has nothing to fill it, so its %%%% stays as it is; write %%", p.where(call), english)
	}
	for i, arg := range args {
		got := p.info.Types[arg].Type
		if v := p.info.Types[arg].Value; v != nil && strings.Contains(v.String(), " ") {
			t.Errorf("%s: %s fills a phrase and cannot be translated; say it", p.where(arg), v)
		}
		basic, _ := got.Underlying().(*types.Basic)
		is := func(kind types.BasicInfo) bool { return basic != nil && basic.Info()&kind != 0 }
		saysItself := types.NewMethodSet(got).Lookup(nil, "String") != nil || types.NewMethodSet(got).Lookup(nil, "Error") != nil
		fits := map[string]bool{"d": is(types.IsInteger), "s": is(types.IsString) || saysItself, "q": is(types.IsString), "v": saysItself, "f": is(types.IsFloat), "g": is(types.IsFloat)}
		if !fits[want[i+1]] {
			t.Errorf("%s: %q wants a %%%s at %d, and is given a %s", p.where(call), english, want[i+1], i+1, got)
		}
	}
}

// listedPackage is a package in the output of go list.
type listedPackage struct {
	ImportPath, Export, Dir string
	GoFiles, Imports        []string
}

func listed(t *testing.T, args ...string) map[string]listedPackage {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-json=ImportPath,Export,Dir,GoFiles,Imports"}, args...)...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %s", exit.Stderr)
		}
		t.Fatal(err)
	}
	found := map[string]listedPackage{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listedPackage
		if err := dec.Decode(&p); err == io.EOF {
			return found
		} else if err != nil {
			t.Fatal(err)
		}
		found[p.ImportPath] = p
	}
}

// checkedPackages are the packages of the module that use phrases, with types.
// The types of their imports come from the compiler's export data.
func checkedPackages(t *testing.T) (checked []checkedPackage) {
	t.Helper()
	const module = "github.com/launchgate/launchgate/"
	var speakers []string
	args := []string{"-export", "-deps"}
	for path, p := range listed(t, "../...") {
		if folder, ours := strings.CutPrefix(path, module); ours && (folder == shared || slices.Contains(p.Imports, module+shared)) {
			speakers, args = append(speakers, folder), append(args, path)
		}
	}
	exports := listed(t, args...)
	fset := token.NewFileSet()
	imports := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path].Export) })
	for _, folder := range speakers {
		from := exports[module+folder]
		p := checkedPackage{folder: folder, fset: fset, keys: map[ast.Expr]bool{}, info: &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}}
		for _, name := range from.GoFiles {
			file, err := parser.ParseFile(fset, filepath.Join(from.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			p.files = append(p.files, file)
		}
		if _, err := (&types.Config{Importer: imports}).Check(from.ImportPath, fset, p.files, p.info); err != nil {
			t.Fatal(err)
		}
		for e, v := range p.info.Types {
			if l, ok := e.(*ast.CompositeLit); ok && strings.HasSuffix(v.Type.String(), "internal/words.Language") {
				for _, entry := range l.Elts {
					p.keys[entry.(*ast.KeyValueExpr).Key] = true
				}
			}
		}
		checked = append(checked, p)
	}
	return checked
}

// eachPage parses every template.
func eachPage(t *testing.T, do func(page string, tree *parse.Tree)) {
	t.Helper()
	pages, err := filepath.Glob("page/*.tmpl")
	parts, _ := filepath.Glob("page/sections/*.tmpl")
	pages = append(pages, parts...)
	if err != nil || len(pages) == 0 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, page := range pages {
		trees := map[string]*parse.Tree{}
		tree := parse.New(page)
		tree.Mode = parse.SkipFuncCheck
		if _, err := tree.Parse(string(read(t, ".", page)), "", "", trees); err != nil {
			t.Fatal(err)
		}
		for _, name := range sortedKeys(trees) {
			do(page, trees[name])
		}
	}
}

// idsInPages are the ids of phrases in the templates.
func idsInPages(t *testing.T) map[words.Phrase]string {
	t.Helper()
	ids := map[words.Phrase]string{}
	eachPage(t, func(page string, tree *parse.Tree) {
		eachNode(tree.Root, func(n parse.Node) {
			c, ok := n.(*parse.CommandNode)
			if !ok {
				return
			}
			if id, ok := c.Args[0].(*parse.IdentifierNode); !ok || id.Ident != "say" {
				return
			}
			id := c.Args[1]
			if put, ok := id.(*parse.PipeNode); ok { // (print "panel." .ID)
				id = put.Cmds[0].Args[1]
			}
			if s, ok := id.(*parse.StringNode); ok {
				ids[words.Phrase(s.Text)] = "reports/" + page
			}
		})
	})
	return ids
}

// Text of others is never translated, even if it contains our words. Our
// sentence around it is, also after it was recorded.
func TestWhatOthersWroteStaysAsItIs(t *testing.T) {
	const theirs = "rate limit reached for gpt-4o: limited, failed"
	var limited, broken, old recording.Request
	limited.Fail(recording.ErrorLimited, words.Say("%s: %s", "429 Too Many Requests", theirs))
	broken.Fail(recording.ErrorInBand, words.Say("the stream sent an error: %s", theirs))
	old.Error, old.ErrorText = recording.ErrorInBand, "the stream sent an error: "+theirs
	for _, tt := range []struct {
		row     recording.Request
		chinese string
	}{
		{limited, "429 Too Many Requests：" + theirs},
		{broken, "流中返回了错误：" + theirs},
		{old, "the stream sent an error: " + theirs}, // from before there were codes
	} {
		if got := Chinese.Word(tt.row.Why()); got != tt.chinese {
			t.Errorf("%q is told as %q, want %q", tt.row.ErrorText, got, tt.chinese)
		}
	}
	if got := Chinese.Word(words.Of(words.Errorf("the journal of faults: %s", errors.New(theirs)))); got != "故障日志："+theirs {
		t.Errorf("an error of others is told as %q", got)
	}
}

// All text of a page comes from phrases by their ids. The rest of its template
// is the same in every language.
func TestPagesHoldNoText(t *testing.T) {
	eachPage(t, func(page string, tree *parse.Tree) {
		var text strings.Builder
		eachNode(tree.Root, func(n parse.Node) {
			if n, ok := n.(*parse.TextNode); ok {
				text.Write(n.Text)
			}
		})
		for _, word := range latinWord.FindAllString(visible(text.String()), -1) {
			if !slices.Contains(terms, word) {
				t.Errorf("%s holds %q, which no language can word", page, word)
			}
		}
	})
}

// eachNode visits a node of a template and all below it.
func eachNode(n parse.Node, visit func(parse.Node)) {
	visit(n)
	branch := func(b parse.BranchNode) {
		eachNode(b.Pipe, visit)
		eachNode(b.List, visit)
		if b.ElseList != nil {
			eachNode(b.ElseList, visit)
		}
	}
	switch n := n.(type) {
	case *parse.ListNode:
		for _, child := range n.Nodes {
			eachNode(child, visit)
		}
	case *parse.ActionNode:
		eachNode(n.Pipe, visit)
	case *parse.TemplateNode:
		if n.Pipe != nil {
			eachNode(n.Pipe, visit)
		}
	case *parse.IfNode:
		branch(n.BranchNode)
	case *parse.RangeNode:
		branch(n.BranchNode)
	case *parse.WithNode:
		branch(n.BranchNode)
	case *parse.PipeNode:
		for _, c := range n.Cmds {
			eachNode(c, visit)
		}
	case *parse.CommandNode:
		for _, arg := range n.Args {
			eachNode(arg, visit)
		}
	}
}

// terms are the words in Latin letters that a Chinese page may have, besides
// those of the gate and the recording.
var terms = strings.Fields(`launchgate report lang zh run gate yaml seed token tokens tok ms MiB GiB UTC TTFT TPOT ICL RTO RPO KV CPU GC HTTP xx
	DONE SHA Go Esc runs html capacity compare SIGKILL target local`)

var latinWord = regexp.MustCompile(`[A-Za-z][A-Za-z]+`)

// A Chinese report has no English text: every word in Latin letters is a term,
// or comes from the gate or the recording.
func TestNothingIsLeftInEnglish(t *testing.T) {
	for _, name := range runs {
		j := inCodes(t, judged(t, name))
		r := j.report(t)
		r.Language = Chinese
		var theirs strings.Builder
		for _, file := range []string{"gate.yaml", "environment.json"} {
			theirs.Write(read(t, filepath.Join("..", "checklist", "testdata", "runs", name), file))
		}
		for _, i := range j.rec.Injections {
			fmt.Fprintln(&theirs, i.ID, i.Kind, i.Target, filledIn(i.Text))
		}
		for _, o := range j.rec.Observations {
			fmt.Fprintln(&theirs, o.Subject, filledIn(o.Text))
			if o.Name == recording.ObsInterrupted { // these runs have their own text for it
				fmt.Fprintln(&theirs, o.Text)
			}
		}
		for request, err := range j.rec.Requests {
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(&theirs, request.ErrorText, request.Replica, request.FinishReason)
		}
		for form, text := range map[string]string{
			"HTML": visible(write(t, HTML, r)), "Markdown": write(t, Markdown, r), "terminal": write(t, terminal, r), "JUnit": junitTexts(t, write(t, JUnit, r)),
		} {
			leftInEnglish(t, form+" of "+name, text, theirs.String())
		}
	}
	c, d := aCapacity(), aComparison()
	c.Language, d.Language = Chinese, Chinese
	c.Why, d.How, d.Why = words.Say("the search was stopped"), words.Sentence{}, words.Say("no metric changed by a relevant amount")
	for i := range c.Points {
		c.Points[i].Why = words.Say("1 objective, proven")
	}
	theirs, err := json.Marshal([]any{c, d})
	if err != nil {
		t.Fatal(err)
	}
	for name, form := range map[string]func(io.Writer) error{
		"capacity":           func(w io.Writer) error { return CapacityHTML(w, c) },
		"comparison":         func(w io.Writer) error { return CompareHTML(w, d) },
		"terminal: capacity": func(w io.Writer) error { return CapacityTerminal(w, c, "runs") },
		"terminal: compare":  func(w io.Writer) error { return CompareTerminal(w, d, "runs") },
	} {
		var b strings.Builder
		if err := form(&b); err != nil {
			t.Fatal(err)
		}
		text := b.String()
		if strings.HasPrefix(text, "<!") {
			text = visible(text)
		}
		leftInEnglish(t, name, text, string(theirs))
	}
}

// filledIn are the names and texts of others in the arguments of our sentence.
func filledIn(s words.Sentence) (theirs []any) {
	if s.Phrase == "%s" {
		return nil
	}
	for _, a := range s.Args {
		if part, ok := a.(words.Sentence); ok {
			theirs = append(theirs, filledIn(part)...)
		} else {
			theirs = append(theirs, a)
		}
	}
	return theirs
}

func leftInEnglish(t *testing.T, where, text, theirs string) {
	t.Helper()
	if !strings.Contains(text, "。") {
		t.Errorf("%s says nothing in Chinese", where)
	}
	written := map[string]bool{}
	for _, word := range slices.Concat(terms, latinWord.FindAllString(theirs, -1)) {
		written[word] = true
	}
	for _, line := range strings.Split(text, "\n") {
		for _, word := range latinWord.FindAllString(line, -1) {
			if !written[word] {
				t.Errorf("%s: %q is left in English in %q", where, word, line)
			}
		}
	}
}

var (
	betweenTags = regexp.MustCompile(`>([^<]+)<`)
	spoken      = regexp.MustCompile(` (?:aria-label|title|data-copied)="([^"]*)"`)
)

// visible is the text of a page, seen or read aloud, with a line for each
// piece.
func visible(page string) string {
	page = regexp.MustCompile(`(?s)<(style|script).*?</(style|script)>`).ReplaceAllString(page, "")
	var text strings.Builder
	for _, pattern := range []*regexp.Regexp{betweenTags, spoken} {
		for _, m := range pattern.FindAllStringSubmatch(page, -1) {
			fmt.Fprintln(&text, html.UnescapeString(strings.TrimSpace(m[1])))
		}
	}
	return text.String()
}

// junitTexts are the texts of JUnit for people. Its names are the same in every
// language, because CI systems keep the history of a test by its name.
func junitTexts(t *testing.T, src string) string {
	t.Helper()
	var suites junitSuites
	if err := xml.Unmarshal([]byte(src), &suites); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, s := range suites.Suites {
		for _, c := range s.Cases {
			for _, problem := range []*junitProblem{c.Failure, c.Error, c.Skipped} {
				if problem != nil {
					fmt.Fprintln(&text, problem.Message, problem.Text)
				}
			}
			fmt.Fprintln(&text, c.Output)
		}
	}
	return text.String()
}

// An unknown language is an error that lists the known ones.
func TestUnknownLanguage(t *testing.T) {
	var l Language
	err := l.UnmarshalText([]byte("fr"))
	if err == nil || !strings.Contains(err.Error(), `"fr"`) || !strings.Contains(err.Error(), "en (") || !strings.Contains(err.Error(), "zh (") {
		t.Errorf("%v", err)
	}
	if b, err := l.MarshalText(); err != nil || string(b) != "en" {
		t.Errorf("without a language it is %q, %v; want English", b, err)
	}
}
