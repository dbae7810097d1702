package scenarios

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	// maxSource is far above any gate written by hand. What is larger is a
	// mistake, and the parser would take minutes over it.
	maxSource = 1 << 20
	// maxNesting keeps brackets within brackets from exhausting the stack: the
	// YAML parser is recursive, and a gate is six levels deep.
	maxNesting = 64
	maxIndent  = 256
)

// Load reads the gate in a file.
func Load(path string) (Gate, error) { return load(path, nil) }

func load(path string, given *Given) (Gate, error) {
	file, err := os.Open(path)
	if err != nil {
		return Gate{}, fmt.Errorf("read the gate: %w", err)
	}
	defer file.Close()
	return read(path, file, filepath.Dir(path), given)
}

// read reads a gate whose files lie in dir.
func read(name string, in io.Reader, dir string, given *Given) (Gate, error) {
	src, err := io.ReadAll(io.LimitReader(in, maxSource+1))
	if err != nil {
		return Gate{}, fmt.Errorf("read the gate: %w", err)
	}
	gate, err := parseIn(name, dir, src, given)
	if err != nil {
		return Gate{}, err
	}
	if gate, err = gate.pricedBeside(dir); err != nil {
		return Gate{}, err
	}
	return gate.relativeTo(dir)
}

// At is a target at another address. Of an endpoint the address alone is another,
// and what is asked for there, with which key and how, stays; a service that
// launchgate would deploy is left out.
func (t Target) At(e Endpoint) Target {
	if t.Endpoint == nil {
		return Target{Endpoint: &e}
	}
	moved := *t.Endpoint
	moved.URL = e.URL
	return Target{Endpoint: &moved}
}

// relativeTo has the files that a gate names lie beside it, and makes their
// names whole, so that the gate means the same from anywhere.
func (g Gate) relativeTo(dir string) (Gate, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Gate{}, err
	}
	whole := func(path string) string {
		if path == "" || filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(dir, path)
	}
	if l := g.Target.Local; l != nil {
		model := whole
		if l.Dummy() { // what is no file is the name of a shape
			model = func(path string) string {
				if _, err := os.Stat(whole(path)); err != nil {
					return path
				}
				return whole(path)
			}
		}
		l.Gateway.Config, l.Model = whole(l.Gateway.Config), model(l.Model)
		for name, m := range l.Models {
			m.Path = model(m.Path)
			l.Models[name] = m
		}
	}
	if e := g.Target.Endpoint; e != nil {
		e.CAFile, e.CertFile, e.KeyFile = whole(e.CAFile), whole(e.CertFile), whole(e.KeyFile)
		e.Tokenizer = whole(e.Tokenizer)
	}
	if k := g.Target.Kubernetes; k != nil {
		k.CAFile, k.Tokenizer = whole(k.CAFile), whole(k.Tokenizer)
		if k.OwnOverlay() {
			k.Overlay = whole(k.Overlay)
		}
	}
	if g.Scan != nil {
		g.Scan.relativeTo(whole)
	}
	for i := range g.Scenarios {
		s := &g.Scenarios[i]
		s.Workload.Dataset = whole(s.Workload.Dataset)
		for i := range s.Classes {
			s.Classes[i].Workload.Dataset = whole(s.Classes[i].Workload.Dataset)
		}
		for _, stage := range s.Stages {
			if stage.Trace != nil {
				stage.Trace.File = whole(stage.Trace.File)
			}
		}
	}
	return g, nil
}

// Parse reads a gate, fills in what it leaves out (see Resolved) and checks it.
// The error is a Problems with everything that is wrong, each with its place;
// name stands for the file in it.
func Parse(name string, src []byte) (Gate, error) { return parse(name, src, nil) }

func parse(name string, src []byte, given *Given) (Gate, error) {
	return parseIn(name, "", src, given)
}

// parseIn reads a gate whose files lie in dir; empty: it can include none.
func parseIn(name, dir string, src []byte, given *Given) (Gate, error) {
	var gate Gate
	d := decoderOf(given)
	d.readFile(name, dir, src, &gate, nil)
	d.file = name
	if given != nil && given.Against != nil {
		gate.Target = gate.Target.At(*given.Against)
	}
	d.checkGiven(name)
	if len(d.places) > 0 { // it could be read
		written := gate
		gate = gate.Resolved()
		d.check(written, gate)
	}
	d.problems.inFileOrder(d.files)
	if err := d.problems.asError(); err != nil {
		return Gate{}, err
	}
	for axis, values := range d.matrix {
		if _, set := given.fixed(axis); !set {
			if gate.Matrix == nil {
				gate.Matrix = map[string][]Setting{}
			}
			gate.Matrix[axis] = values
		}
	}
	return gate, nil
}

// parseYAML makes the syntax tree of the one YAML document in src.
func parseYAML(src []byte) (ast.Node, *Problem) {
	src = bytes.TrimPrefix(src, []byte("\xef\xbb\xbf")) // a byte order mark
	if problem := unreadable(src); problem != nil {
		return nil, problem
	}
	tokens := lexer.Tokenize(string(src))
	if problem := tooDeep(tokens); problem != nil {
		return nil, problem
	}
	// Doubled keys are found by the decoder, with the other problems.
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntaxProblem(err)
	}
	var root ast.Node
	for _, document := range file.Docs {
		if document.Body == nil {
			continue
		}
		if root != nil {
			at := document.Body.GetToken().Position
			return nil, &Problem{Line: at.Line, Column: at.Column, Text: "found a second YAML document, expected one gate in a file"}
		}
		root = document.Body
	}
	if root == nil {
		return nil, &Problem{Line: 1, Column: 1, Text: "found nothing but comments or blanks, expected a gate; launchgate init writes one to start from"}
	}
	return root, nil
}

// unreadable finds what is no text of a gate at all.
func unreadable(src []byte) *Problem {
	if len(src) > maxSource {
		return &Problem{Text: fmt.Sprintf("found more than %d bytes, expected a gate of at most %d KiB", maxSource, maxSource>>10)}
	}
	line, column := 1, 1
	for rest := src; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		if r == utf8.RuneError && size == 1 {
			return &Problem{Line: line, Column: column, Text: fmt.Sprintf("found the byte 0x%02x, expected a text file in UTF-8", rest[0])}
		}
		if r < ' ' && r != '\n' && r != '\t' && r != '\r' {
			return &Problem{Line: line, Column: column, Text: fmt.Sprintf("found the control character 0x%02x, expected a text file", rest[0])}
		}
		column++
		if r == '\n' {
			line, column = line+1, 1
		}
		rest = rest[size:]
	}
	return nil
}

// tooDeep finds nesting that no gate has, before the recursive parser does.
func tooDeep(tokens token.Tokens) *Problem {
	brackets, run := 0, 0 // open brackets; marks one after the other, as in - - - x
	for _, t := range tokens {
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			brackets++
		case token.SequenceEndType, token.MappingEndType:
			brackets--
		}
		switch t.Type {
		case token.SequenceEntryType, token.MappingKeyType, token.AnchorType, token.TagType:
			run++
		default:
			run = 0
		}
		if brackets > maxNesting || run > maxNesting || t.Position.IndentNum > maxIndent {
			return &Problem{Line: t.Position.Line, Column: t.Position.Column,
				Text: fmt.Sprintf("found values nested more than %d deep, expected a gate", maxNesting)}
		}
	}
	return nil
}

func syntaxProblem(err error) *Problem {
	var syntax *yaml.SyntaxError
	if !errors.As(err, &syntax) || syntax.Token == nil {
		return &Problem{Text: "not YAML: " + err.Error()}
	}
	at := syntax.Token.Position
	return &Problem{Line: at.Line, Column: at.Column, Text: "not YAML: " + syntax.Message}
}
