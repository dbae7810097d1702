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

// writers is the source of what is recorded, or told while a gate is played.
var writers = []string{
	"chaos/*.go", "deploy/*.go", "internal/run/*.go", "internal/recording/*.go",
	"loadgen/*.go", "loadgen/client/*.go", "loadgen/worker/*.go", "loadgen/durability/*.go", "loadgen/prompt/vocabulary.go",
	"cmd/launchgate/main.go",
}

// notTold are texts of the writers that no person is told.
var notTold = map[string]string{
	"<!doctype html":         "how a page begins",
	"Bearer %s":              "a header",
	"(Retry-After: %s)":      "a header, quoted",
	"MemTotal: %s kB":        "a line of the kernel's",
	"model name":             "a line of the kernel's",
	"network: {rate: ten}\n": "limits that mean nothing",
	"Tell me a story.":       "a prompt",
	"Tell me a story about a dog that has %s friends.": "a prompt",
	"the %s":     "words whose tokens are counted",
	"plan of %s": "the name of an attack",
	"[gaps between chunks, in nanoseconds, by scenario/stage/class]": "of a file",
	"%s on %s":                 "of launchgate recover",
	"%s pid %s":                "of launchgate recover",
	"of the deployment itself": "stands for the name of a variable",
	"security scan":            "what a seed is for",
}

// ofCatalogue names what describes the kinds of faults, for launchgate list.
var ofCatalogue = []string{"Does", "Needs", "Seen", "Simulates", "Example", "needsLink", "needsNetwork", "strikesNode"}

// Whatever the writers can say is in Recorded, beside what recordings of before
// tell. A text in their source that is no sentence has to be named above, so that
// none is forgotten: what is told is not marked, it is everything.
func TestEverythingRecordedIsTranslated(t *testing.T) {
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
	list, err := os.ReadFile("../../checklist/release.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile(`\bname: ([A-Z][^,\n]*)`).FindAllSubmatch(list, -1) {
		said[string(name[1])] = "checklist/release.yaml"
	}
	worded := wordings(t)
	for _, text := range slices.Sorted(maps.Keys(said)) {
		if _, has := words.Recorded[words.Phrase(text)]; !has && !worded[text] && notTold[text] == "" {
			t.Errorf("%s: nothing in Chinese for %q", said[text], text)
		}
	}
	for phrase, chinese := range words.Recorded {
		if want, got := filling(string(phrase)), filling(chinese); !slices.Equal(want, got) {
			t.Errorf("%q is filled at %v, and its Chinese %q at %v", phrase, want, chinese, got)
		}
	}
	for text, why := range notTold {
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

// filling are the places at which a wording is filled.
func filling(wording string) (places []int) {
	next := 1
	for _, m := range regexp.MustCompile(`%(?:\[(\d+)\])?s`).FindAllStringSubmatch(strings.ReplaceAll(wording, "%%", ""), -1) {
		if m[1] != "" {
			next, _ = strconv.Atoi(m[1])
		}
		places = append(places, next)
		next++
	}
	slices.Sort(places)
	return places
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

// What launchgate wrote is known again, with all that it was made of, and says
// the same in English; what others wrote stays as it is.
func TestWhatWasWrittenIsKnownAgain(t *testing.T) {
	for _, tt := range []struct{ text, chinese string }{
		{"SIGKILL sent to pid 12 with 3 streams in flight", "已向进程 12 发送 SIGKILL，当时有 3 个在途流"},
		{"not within 2s: pid 12 is stopped, and its port answered after 3ms", "未能在 2s 内完成：进程 12 已被挂起，其端口却在 3ms 后应答"},
		{"unsupported: launchgate did not deploy this target, so it has no process of it to kill; use target.local, or break it by other means",
			"不支持：被测服务不是由 launchgate 部署的，因此没有可以终止的进程；请使用 target.local，或用其他手段制造故障"},
		{"  pod-kill replica-0: gone: the gateway routes to replica-0 again, now pid 7", "  pod-kill replica-0：已消除：网关已重新路由到 replica-0，现为进程 7"},
		{"the gateway routes to a again, now pid 7, and to b again, now pid 8", "网关已重新路由到 a，现为进程 7；还有 b 已重新接入，现为进程 8"},
		{"for 3s, and still: 91 % of the KV blocks of replica-2 are held, 0 % before, and 3 requests wait there", "已持续 3s，且仍然生效：replica-2 的 KV 块已占用 91%（此前 0%），有 3 个请求在排队"},
		{"observations.jsonl: line 3 was cut short and is left out. injections.jsonl is missing.", "observations.jsonl：第 3 行不完整，未计入。injections.jsonl 缺失。"},
		{"the stream sent an error: the model is not here: it answers later on Monday", "流中返回了错误：the model is not here: it answers later on Monday"},
		{"no replica is ready", "no replica is ready"},
		{"100 %s sure", "100 %s sure"},
		{"", ""},
	} {
		said := words.Told(tt.text)
		if got := said.String(); got != tt.text {
			t.Errorf("%q is told as %q", tt.text, got)
		}
		if got := said.In(words.Recorded); got != tt.chinese {
			t.Errorf("%q is told as %q, want %q", tt.text, got, tt.chinese)
		}
	}
}

// Every sentence is known again, whatever fills it, and none for another that
// says more.
func TestEveryFormIsReadAsItself(t *testing.T) {
	for phrase := range words.Recorded {
		if strings.Trim(strings.ReplaceAll(string(phrase), "%s", ""), ",;: andto") == "" {
			continue // how they are put together
		}
		args := make([]any, len(filling(string(phrase))))
		for i := range args {
			args[i] = "x" + strconv.Itoa(i)
		}
		said := words.Say(phrase, args...)
		read := words.Told(said.String())
		if read.String() != said.String() || read.In(words.Recorded) != said.In(words.Recorded) {
			t.Errorf("%q is read as %q, in Chinese %q, want %q", said, read.Phrase, read.In(words.Recorded), said.In(words.Recorded))
		}
	}
}
