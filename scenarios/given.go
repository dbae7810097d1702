package scenarios

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Given is what a gate's file is completed with from outside.
type Given struct {
	// Against is a service that is tested in place of the gate's target: see Target.At.
	Against *Endpoint
	// Set has values by the name of a variable, ${NAME}, or by the path of a key, such as
	// scenarios.steady.stages.main.rate.
	Set map[string]string
	// Environment has the values of the other variables; nil: there are none.
	Environment func(name string) (string, bool)
}

// LoadGiven reads the gate in a file and completes it.
func LoadGiven(path string, given Given) (Gate, error) { return load(path, &given) }

// ReadGiven reads and completes a gate that is in no file, such as one from standard
// input; name stands for the file in errors. Files that it names lie in the working
// folder.
func ReadGiven(name string, in io.Reader, given Given) (Gate, error) {
	return read(name, in, ".", &given)
}

// ReadyGiven completes the ready gate of a name, if there is one.
func ReadyGiven(name string, given Given) (Gate, bool, error) {
	src, ok := ReadySource(name)
	if !ok {
		return Gate{}, false, nil
	}
	gate, err := parse("gates/"+name+".yaml", src, &given)
	return gate, true, err
}

// Combinations are the settings of each run of a gate with a matrix, in the order of
// the axes and of their values. A gate without one has no combination.
func (g Gate) Combinations() []map[string]string {
	if len(g.Matrix) == 0 {
		return nil
	}
	all := []map[string]string{{}}
	for _, axis := range slices.Sorted(maps.Keys(g.Matrix)) {
		var longer []map[string]string
		for _, has := range all {
			for _, value := range g.Matrix[axis] {
				with := maps.Clone(has)
				with[axis] = string(value)
				longer = append(longer, with)
			}
		}
		all = longer
	}
	return all
}

// fixed is the value that an axis of a matrix is given.
func (g *Given) fixed(axis string) (string, bool) {
	if g == nil {
		return "", false
	}
	value, is := g.Set[axis]
	return value, is
}

// Setting is one value of an axis of a matrix: a text or a number, as it is written.
type Setting string

// UnmarshalText takes any scalar as it is written.
func (s *Setting) UnmarshalText(b []byte) error {
	*s = Setting(b)
	return nil
}

// MarshalText writes it back.
func (s Setting) MarshalText() ([]byte, error) { return []byte(s), nil }

const (
	maxIncludes = 8   // within each other
	maxRuns     = 100 // of a matrix
)

var (
	// variableMark is $${, which stands for ${, or ${NAME} or ${NAME:-default}.
	variableMark = regexp.MustCompile(`\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}`)
	// secretVariable is the name of a variable that probably holds a secret.
	secretVariable = regexp.MustCompile(`(?i)(^|_)(api_?key|key|token|secret|password|passwd|credentials?)(_|$)`)
)

const neverKept = "the gate is kept in the run folder, and a key never is: name the variable that holds it in api_key_env, or as ${NAME} in headers or query of target.endpoint"

// readFile decodes a gate's file, after those that it includes.
func (d *decoder) readFile(name, dir string, src []byte, gate *Gate, within []string) {
	root, problem := parseYAML(src)
	if problem != nil {
		problem.File = name
		d.problems = append(d.problems, *problem)
		return
	}
	d.enter(name, root)
	found := len(d.problems)
	pairs, _ := d.pairs(root, "")
	d.problems = d.problems[:found] // they are found again below
	for _, p := range pairs {
		switch p.key {
		case "include":
			d.decode(p.value, reflect.ValueOf(&gate.Include).Elem(), "include")
		case "matrix":
			d.decode(p.value, reflect.ValueOf(&d.matrix).Elem(), "matrix")
		}
	}
	includes := gate.Include
	gate.Include = nil
	for i, include := range includes {
		d.include(fmt.Sprintf("include[%d]", i), name, dir, include, gate, within)
		d.enter(name, root)
	}
	d.whole = len(within) == 0 // keys that an included file lacks may be in the other one
	d.decodeInto(root, gate)
	gate.Include, gate.Matrix = nil, nil
}

func (d *decoder) include(path, from, dir, file string, gate *Gate, within []string) {
	if dir == "" {
		d.add(path, "found an include in a gate that is in no file, expected none")
		return
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(dir, file)
	}
	within = append(slices.Clone(within), filepath.Clean(from))
	switch {
	case slices.Contains(within, filepath.Clean(file)):
		d.add(path, "found an include of %s, which includes this file, expected another file", file)
		return
	case len(within) > maxIncludes:
		d.add(path, "found more than %d includes within each other, expected fewer", maxIncludes)
		return
	}
	in, err := os.Open(file)
	if err != nil {
		d.add(path, "found an include that cannot be read: %v", errors.Unwrap(err))
		return
	}
	defer in.Close()
	src, err := io.ReadAll(io.LimitReader(in, maxSource+1))
	if err != nil {
		d.add(path, "found an include that cannot be read: %v", err)
		return
	}
	d.readFile(file, filepath.Dir(file), src, gate, within)
	if moved, err := gate.relativeTo(filepath.Dir(file)); err == nil {
		*gate = moved
	}
	if c := gate.Cost; c != nil && c.Book != "" && !filepath.IsAbs(c.Book) {
		c.Book = filepath.Join(filepath.Dir(file), c.Book)
	}
}

// expanded is a value with its variables replaced. A value without quotes that is then a
// number or a truth value is one. It is nil where a variable has no value.
func (d *decoder) expanded(node ast.Node, path string) (ast.Node, bool) {
	if d.given == nil || keptVariables(path) {
		return node, false
	}
	text, is := scalarText(node)
	if _, quantity := node.(*ast.StringNode); !is || !strings.Contains(text, "${") {
		return node, false
	} else if _, literal := node.(*ast.LiteralNode); !quantity && !literal {
		return node, false
	}
	if strings.HasSuffix(path, "_env") && len(variableMark.FindStringSubmatch(text)) > 1 {
		d.add(path, "found a variable in place of the name of one, expected the name as it is, such as OPENAI_API_KEY: which key is used is not to depend on a variable")
		return nil, true
	}
	problems := len(d.problems)
	address, query := text, ""
	if path == "target.endpoint.url" { // its parameters are like those of query
		if at := strings.IndexByte(text, '?'); at >= 0 {
			address, query = text[:at], text[at:]
		}
	}
	replaced := variableMark.ReplaceAllStringFunc(address, func(found string) string {
		if found == "$${" {
			return "${"
		}
		parts := variableMark.FindStringSubmatch(found)
		return d.variable(path, parts[1], parts[3], parts[2] != "")
	}) + query
	if len(d.problems) > problems {
		return nil, true
	}
	if n, ok := node.(*ast.StringNode); ok && !quotedText(n.Token) {
		return scalarLike(replaced, n), true
	}
	n := &ast.StringNode{BaseNode: &ast.BaseNode{}, Token: node.GetToken(), Value: replaced}
	return n, true
}

// keptVariables reports whether ${NAME} has a meaning of its own at a path.
func keptVariables(path string) bool {
	return within(path, "target.endpoint.headers") || within(path, "target.endpoint.query")
}

// variable is the value of ${name}.
func (d *decoder) variable(path, name, otherwise string, hasDefault bool) string {
	d.used[name] = true
	if value, set := d.given.Set[name]; set {
		return value
	}
	if values := d.matrix[name]; len(values) > 0 {
		return string(values[0])
	}
	if secretVariable.MatchString(name) {
		d.add(path, "found ${%s}, which by its name holds a key or another secret, expected none here: %s", name, neverKept)
		return otherwise
	}
	if d.given.Environment != nil {
		if value, set := d.given.Environment(name); set && value != "" {
			return value
		}
	}
	if !hasDefault {
		d.add(path, "found ${%s}, which is not set, expected it in the environment, from --set %s=VALUE, or with a default as in ${%s:-8/s}; $${ stands for ${ itself", name, name, name)
	}
	return otherwise
}

// scalarLike reads a text as a scalar of YAML that stands where another one does.
func scalarLike(text string, at *ast.StringNode) ast.Node {
	if file, err := parser.ParseBytes([]byte(text), 0); err == nil && len(file.Docs) == 1 && file.Docs[0].Body != nil {
		switch n := file.Docs[0].Body.(type) {
		case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
			n.GetToken().Position = at.Token.Position
			return n
		}
	}
	n := *at
	n.Value = text
	return &n
}

// setNode is the value that --set gives to a path.
func (d *decoder) setNode(path string) (ast.Node, bool) {
	if d.given == nil {
		return nil, false
	}
	key, is := d.paths[path]
	if !is {
		return nil, false
	}
	d.used[key] = true
	if keptVariables(path) {
		d.add(path, "found a value from --set, expected it in the gate: %s", neverKept)
		return nil, false
	}
	value := d.given.Set[key]
	file, err := parser.ParseBytes([]byte(value), 0)
	if err != nil || len(file.Docs) != 1 || file.Docs[0].Body == nil {
		d.add(path, "found %s from --set, expected a value", quoted(value))
		return nil, false
	}
	return file.Docs[0].Body, true
}

// alias has a path of --set that names an item of a list mean its place.
func (d *decoder) alias(path, name string, i int) {
	for _, from := range slices.Sorted(maps.Keys(d.paths)) {
		rest, is := strings.CutPrefix(from, path+"."+name)
		if is && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			d.paths[fmt.Sprintf("%s[%d]%s", path, i, rest)] = d.paths[from]
		}
	}
}

// nameOf is what an item of a list is called.
func nameOf(node ast.Node) string {
	mapping, ok := node.(ast.MapNode)
	if !ok {
		return ""
	}
	for items := mapping.MapRange(); items.Next(); {
		if keyText(items.Key()) == "name" {
			text, _ := scalarText(items.Value())
			return text
		}
	}
	return ""
}

// setBelow are the keys directly below a path that --set gives, or that lead to one.
func (d *decoder) setBelow(path string) (keys []string) {
	for _, to := range slices.Sorted(maps.Keys(d.paths)) {
		rest, below := to, true
		if path != "" {
			rest, below = strings.CutPrefix(to, path+".")
		}
		if !below {
			continue
		}
		key := rest
		if end := strings.IndexAny(rest, ".["); end >= 0 {
			key = rest[:end]
		}
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// checkGiven adds what is wrong with what was given.
func (d *decoder) checkGiven(name string) {
	if d.given == nil {
		return
	}
	runs := 1
	for _, axis := range slices.Sorted(maps.Keys(d.matrix)) {
		path := "matrix." + axis
		switch {
		case !variableName.MatchString(axis):
			d.add(path, "found %s, expected a name of letters, digits and _ for ${NAME}", quoted(axis))
		case len(d.matrix[axis]) == 0:
			d.add(path, "found no value, expected at least one")
		case !d.used[axis]:
			d.add(path, "found an axis that nothing in the gate uses, expected ${%s} where its values go", axis)
		}
		runs *= len(d.matrix[axis])
	}
	if runs > maxRuns {
		d.add("matrix", "found %d combinations, expected at most %d runs", runs, maxRuns)
	}
	for _, key := range slices.Sorted(maps.Keys(d.given.Set)) {
		problem := Problem{File: "--set " + key}
		switch {
		case secretVariable.MatchString(key[strings.LastIndexAny(key, ".")+1:]) && !strings.HasSuffix(key, "_env"):
			problem.Text = "found a value for a key or another secret, expected none: what is on the command line can be read by others, and " + neverKept
		case d.used[key]:
			continue
		default:
			known := slices.Sorted(maps.Keys(d.used))
			for path := range d.places {
				known = append(known, path)
			}
			problem.Text = fmt.Sprintf("%s has neither ${%s} nor a key of this path%s", name, key, DidYouMean(key, known))
		}
		d.problems = append(d.problems, problem)
	}
}
