package scenarios

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxNodes is how many values a gate may have once its aliases are written
// out. A few lines of aliases of aliases would otherwise fill the memory.
const maxNodes = 100_000

// added are the lists of a gate that follow those of the files that it includes.
var added = []string{"scenarios", "objectives", "profiles"}

// decoder copies a YAML tree into a Gate by the yaml tags of its types. It goes
// on after a problem, so that a person fixes a gate once, and it remembers
// where every value stood, so that the checks can say so.
//
// A field without omitempty must be there; a key without a field must not.
type decoder struct {
	problems Problems
	places   map[string]place
	anchors  map[string]ast.Node
	nodes    int

	file   string // that is being read
	files  []string
	whole  bool // what is missing is missing; otherwise another file may have it
	given  *Given
	paths  map[string]string // the keys of given.Set by the paths that they mean
	used   map[string]bool   // variables and keys of given.Set
	matrix map[string][]Setting
}

// place is where a value stands. Verbatim: its text stands there letter for
// letter, so that an offset in the value is an offset in the line.
type place struct {
	file         string
	line, column int
	verbatim     bool
}

func newDecoder(root ast.Node) *decoder {
	d := decoderOf(nil)
	d.enter("", root)
	return d
}

// decoderOf decodes files with what completes them; nil: nothing does.
func decoderOf(given *Given) *decoder {
	d := &decoder{places: make(map[string]place), whole: true, given: given, paths: map[string]string{}, used: map[string]bool{}}
	if given != nil {
		for key := range given.Set {
			d.paths[key] = key
		}
	}
	return d
}

// enter begins a file.
func (d *decoder) enter(name string, root ast.Node) {
	d.file, d.anchors = name, make(map[string]ast.Node)
	if !slices.Contains(d.files, name) {
		d.files = append(d.files, name)
	}
	for _, node := range ast.Filter(ast.AnchorType, root) {
		anchor := node.(*ast.AnchorNode)
		d.anchors[anchor.Name.GetToken().Value] = anchor.Value
	}
}

func (d *decoder) decodeInto(root ast.Node, gate *Gate) {
	d.decode(root, reflect.ValueOf(gate).Elem(), "")
}

func (d *decoder) decodeBook(root ast.Node, book *PriceBook) {
	d.decode(root, reflect.ValueOf(book).Elem(), "")
}

// add notes a problem of the value at path, at its place or that of the
// nearest value around it.
func (d *decoder) add(path, format string, args ...any) {
	d.addAt(d.placeOf(path), path, format, args...)
}

func (d *decoder) addAt(at place, path, format string, args ...any) {
	d.problems = append(d.problems, Problem{File: cmp.Or(at.file, d.file), Line: at.line, Column: at.column, Path: path, Text: fmt.Sprintf(format, args...)})
}

// check adds what is wrong with the values that were read. A zero that was
// written is checked as it is; one that was left out is a default by then.
func (d *decoder) check(written, resolved Gate) {
	for _, p := range check(written) {
		if _, isWritten := d.places[p.Path]; isWritten {
			d.addUnlessKnown(p)
		}
	}
	for _, p := range check(resolved) {
		d.addUnlessKnown(p)
	}
}

// addUnlessKnown adds what a check found, unless it follows from a value that
// could not be read.
func (d *decoder) addUnlessKnown(p Problem) {
	for _, known := range d.problems {
		if within(known.Path, p.Path) || within(p.Path, known.Path) {
			return
		}
	}
	at := d.placeOf(p.Path)
	p.File, p.Line, p.Column = cmp.Or(at.file, d.file), at.line, at.column
	d.problems = append(d.problems, p)
}

// within is whether path is outer or lies inside it.
func within(path, outer string) bool {
	rest, inside := strings.CutPrefix(path, outer)
	return inside && (outer == "" || rest == "" || rest[0] == '.' || rest[0] == '[')
}

func (d *decoder) placeOf(path string) place {
	for {
		if at, known := d.places[path]; known {
			return at
		}
		if path == "" {
			return place{line: 1, column: 1}
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
}

func (d *decoder) decode(node ast.Node, to reflect.Value, path string) {
	node = d.resolve(node, path)
	if node == nil {
		return
	}
	at := placeOfNode(node)
	at.file = d.file
	if value, set := d.setNode(path); set {
		node, at = value, place{file: "--set"}
	}
	d.places[path] = at
	if value, changed := d.expanded(node, path); changed {
		if value == nil {
			return // it has been said why
		}
		node, at.verbatim = value, false
		d.places[path] = at
	}
	if d.nodes++; d.nodes > maxNodes {
		if d.nodes == maxNodes+1 {
			d.add(path, "found more than %d values, expected a gate; do its aliases repeat each other?", maxNodes)
		}
		return
	}
	if field, ok := to.Addr().Interface().(*Field); ok {
		d.decodeField(node, field, path)
		return
	}
	if reader, ok := to.Addr().Interface().(encoding.TextUnmarshaler); ok {
		d.decodeText(node, reader, path)
		return
	}
	switch to.Kind() {
	case reflect.Pointer:
		value := reflect.New(to.Type().Elem())
		if !to.IsNil() { // an included file has it too
			value = to
		}
		d.decode(node, value.Elem(), path)
		to.Set(value)
	case reflect.Struct:
		d.decodeStruct(node, to, path)
	case reflect.Slice:
		d.decodeSlice(node, to, path)
	case reflect.Map:
		d.decodeMap(node, to, path)
	default:
		d.decodeScalar(node, to, path)
	}
}

// resolve goes through anchors, tags and aliases to the value they stand for.
// It returns nil where there is none.
func (d *decoder) resolve(node ast.Node, path string) ast.Node {
	for range maxNesting {
		switch n := node.(type) {
		case *ast.AnchorNode:
			node = n.Value
		case *ast.TagNode:
			d.addAt(placeOfNode(n), path, "found the tag %s, expected a value without one", quoted(n.Start.Value))
			return nil
		case *ast.AliasNode:
			name := n.Value.GetToken().Value
			value, known := d.anchors[name]
			if !known {
				d.addAt(placeOfNode(n), path, "found the alias *%s, expected one of an anchor &%s that is in the gate", name, name)
				return nil
			}
			node = value
		default:
			return node
		}
	}
	d.add(path, "found an alias of itself, expected a value")
	return nil
}

func placeOfNode(node ast.Node) place {
	first := node.GetToken()
	switch n := node.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			first = n.Values[0].Key.GetToken()
		}
	case *ast.MappingValueNode:
		first = n.Key.GetToken()
	}
	at := place{line: first.Position.Line, column: first.Position.Column}
	at.verbatim = strings.TrimSpace(first.Origin) == first.Value
	if quotedText(first) && len(first.Origin) >= 2 && strings.Trim(strings.TrimSpace(first.Origin), `"'`) == first.Value {
		at.column++
		at.verbatim = true
	}
	return at
}

func quotedText(t *token.Token) bool {
	return t.Type == token.DoubleQuoteType || t.Type == token.SingleQuoteType
}

// decodeText hands the text of a scalar to a type that reads its own text.
func (d *decoder) decodeText(node ast.Node, to encoding.TextUnmarshaler, path string) {
	text, ok := scalarText(node)
	if _, isDevices := to.(*Devices); isDevices && !ok {
		text, ok = d.listText(node, path)
	}
	if !ok {
		d.add(path, "found %s, expected %s", describe(node), expectedText(to))
		return
	}
	err := to.UnmarshalText([]byte(text))
	if err == nil {
		return
	}
	at := d.placeOf(path)
	var objective *ObjectiveError
	if errors.As(err, &objective) {
		err = errors.New(objective.Text)
		if at.verbatim {
			at.column += objective.Column - 1
		}
	}
	d.addAt(at, path, "%v", err)
}

func expectedText(to encoding.TextUnmarshaler) string {
	switch to.(type) {
	case *Duration:
		return "a duration such as 30s"
	case *Rate:
		return "a rate such as 8/s"
	case *Size:
		return "a size such as 64KiB"
	case *Share:
		return "a share such as 20%"
	case *Dollars:
		return "dollars an hour such as $0.80"
	case *Lengths:
		return lengthsExample
	case *Devices:
		return devicesExample
	default:
		return "an objective such as p95(ttft) <= 2s"
	}
}

// listText is a list of scalars, written in one line.
func (d *decoder) listText(node ast.Node, path string) (string, bool) {
	list, ok := node.(*ast.SequenceNode)
	if !ok {
		return "", false
	}
	var all []string
	for _, value := range list.Values {
		text, ok := scalarText(d.resolve(value, path))
		if !ok {
			return "", false
		}
		all = append(all, text)
	}
	return "[" + strings.Join(all, ", ") + "]", true
}

// scalarText is a scalar as it was written, without its quotes.
func scalarText(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return strings.TrimRight(n.Value.Value, "\n"), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return node.GetToken().Value, true
	}
	return "", false
}

// describe says what kind of value was found.
func describe(node ast.Node) string {
	switch n := node.(type) {
	case *ast.NullNode:
		return "no value"
	case *ast.BoolNode:
		return fmt.Sprintf("the truth value %v", n.Value)
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "the number " + node.GetToken().Value
	case *ast.StringNode:
		return "the text " + quoted(n.Value)
	case *ast.LiteralNode:
		return "the text " + quoted(n.Value.Value)
	case *ast.SequenceNode:
		return "a list"
	case ast.MapNode:
		return "a mapping"
	}
	return node.Type().String()
}

func (d *decoder) decodeStruct(node ast.Node, to reflect.Value, path string) {
	pairs, ok := d.pairs(node, path)
	if !ok {
		d.add(path, "found %s, expected a mapping of %s", describe(node), strings.Join(keysOf(to.Type()), ", "))
		return
	}
	keys := keysOf(to.Type())
	pairs = d.withSet(pairs, path, keys)
	seen := make(map[string]bool)
	for _, pair := range pairs {
		index := slices.Index(keys, pair.key)
		if index < 0 {
			d.addAt(pair.at, join(path, pair.key), "unknown key %s; %s", quoted(pair.key), oneOf(pair.key, keys))
			continue
		}
		seen[pair.key] = true
		pair.at.file = cmp.Or(pair.at.file, d.file)
		d.places[join(path, pair.key)] = pair.at // of an empty value, where the key is
		d.decode(pair.value, to.Field(index), join(path, pair.key))
	}
	for i, key := range keys {
		if _, had := d.places[join(path, key)]; had {
			continue
		}
		if !seen[key] && required(to.Type().Field(i)) && (d.whole || strings.Contains(path, "[")) {
			d.addAt(d.placeOf(path), join(path, key), "missing key %s", quoted(key))
		}
	}
}

// pair is one key of a mapping and its value.
type pair struct {
	key   string
	at    place
	value ast.Node
}

// pairs are the keys of a mapping, those of merged mappings (<<) last and only
// where the mapping has none of its own. It is false for what is no mapping.
func (d *decoder) pairs(node ast.Node, path string) ([]pair, bool) {
	mapping, ok := node.(ast.MapNode)
	if !ok {
		return nil, false
	}
	var own, merged []pair
	has := func(list []pair, key string) bool {
		return slices.ContainsFunc(list, func(p pair) bool { return p.key == key })
	}
	for items := mapping.MapRange(); items.Next(); {
		if items.Key().IsMergeKey() {
			merged = append(merged, d.mergedPairs(items.Value(), path)...)
			continue
		}
		p := pair{key: keyText(items.Key()), at: placeOfNode(items.Key()), value: items.Value()}
		if has(own, p.key) {
			d.addAt(p.at, join(path, p.key), "found the key %s a second time, expected it once", quoted(p.key))
			continue
		}
		own = append(own, p)
	}
	for _, p := range merged {
		if !has(own, p.key) {
			own = append(own, p)
		}
	}
	return own, true
}

func (d *decoder) mergedPairs(node ast.Node, path string) []pair {
	if node = d.resolve(node, path); node == nil {
		return nil
	}
	mapping, ok := node.(ast.MapNode)
	if !ok {
		d.addAt(placeOfNode(node), path, "found %s to merge with <<, expected a mapping", describe(node))
		return nil
	}
	var pairs []pair
	for items := mapping.MapRange(); items.Next(); {
		pairs = append(pairs, pair{key: keyText(items.Key()), at: placeOfNode(items.Key()), value: items.Value()})
	}
	return pairs
}

func keyText(key ast.MapKeyNode) string {
	if text, ok := key.(*ast.StringNode); ok {
		return text.Value
	}
	return key.GetToken().Value
}

// keysOf are the keys of a struct, in the order of its fields.
func keysOf(t reflect.Type) []string {
	keys := make([]string, t.NumField())
	for i := range keys {
		keys[i], _, _ = strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
	}
	return keys
}

func required(field reflect.StructField) bool {
	return !strings.HasSuffix(field.Tag.Get("yaml"), ",omitempty")
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// withSet adds the keys that --set gives and the gate does not have; known are those
// that there can be, nil: any.
func (d *decoder) withSet(pairs []pair, path string, known []string) []pair {
	if !d.whole {
		return pairs // the file that includes this one may have them
	}
	for _, key := range d.setBelow(path) {
		if (known == nil || slices.Contains(known, key)) && !slices.ContainsFunc(pairs, func(p pair) bool { return p.key == key }) {
			pairs = append(pairs, pair{key: key, at: place{file: "--set"}, value: emptyMapping()})
		}
	}
	return pairs
}

// emptyMapping is where --set puts a key into what the gate does not have.
func emptyMapping() ast.Node {
	file, err := parser.ParseBytes([]byte("{}"), 0)
	if err != nil {
		panic(err) // it is YAML
	}
	return file.Docs[0].Body
}

func (d *decoder) decodeSlice(node ast.Node, to reflect.Value, path string) {
	if one, is := node.(*ast.StringNode); is && path == "include" {
		to.Set(reflect.ValueOf([]string{one.Value}))
		return
	}
	sequence, ok := node.(*ast.SequenceNode)
	if !ok {
		d.add(path, "found %s, expected a list (each item after a dash)", describe(node))
		return
	}
	list, had := reflect.MakeSlice(to.Type(), 0, 0), 0
	if slices.Contains(added, path) && !to.IsNil() {
		list, had = to, to.Len()
	}
	for i, item := range sequence.Values {
		i += had
		d.alias(path, nameOf(item), i)
		if d.nodes > maxNodes {
			return
		}
		value := reflect.New(to.Type().Elem()).Elem()
		d.decode(item, value, fmt.Sprintf("%s[%d]", path, i))
		list = reflect.Append(list, value)
	}
	to.Set(list)
}

func (d *decoder) decodeMap(node ast.Node, to reflect.Value, path string) {
	pairs, ok := d.pairs(node, path)
	if !ok {
		d.add(path, "found %s, expected a mapping", describe(node))
		return
	}
	if to.IsNil() {
		to.Set(reflect.MakeMap(to.Type()))
	}
	pairs = d.withSet(pairs, path, nil)
	for _, pair := range pairs {
		value := reflect.New(to.Type().Elem()).Elem()
		d.decode(pair.value, value, join(path, pair.key))
		to.SetMapIndex(reflect.ValueOf(pair.key), value)
	}
}

func (d *decoder) decodeScalar(node ast.Node, to reflect.Value, path string) {
	switch to.Kind() {
	case reflect.String:
		switch n := node.(type) {
		case *ast.StringNode:
			to.SetString(n.Value)
		case *ast.LiteralNode:
			to.SetString(n.Value.Value)
		case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
			d.add(path, "found %s, expected a text; write it in quotes", describe(node))
		default:
			d.add(path, "found %s, expected a text", describe(node))
		}
	case reflect.Bool:
		if n, ok := node.(*ast.BoolNode); ok {
			to.SetBool(n.Value)
			return
		}
		d.add(path, "found %s, expected true or false", describe(node))
	case reflect.Float64:
		if f, ok := number(node); ok {
			to.SetFloat(f)
			return
		}
		d.add(path, "found %s, expected a number", describe(node))
	default:
		d.decodeInteger(node, to, path)
	}
}

func number(node ast.Node) (float64, bool) {
	switch n := node.(type) {
	case *ast.FloatNode:
		return n.Value, true
	case *ast.IntegerNode:
		switch v := n.Value.(type) {
		case int64:
			return float64(v), true
		case uint64:
			return float64(v), true
		}
	}
	return 0, false
}

func (d *decoder) decodeInteger(node ast.Node, to reflect.Value, path string) {
	var negative int64
	var positive uint64
	integer, ok := node.(*ast.IntegerNode)
	if ok {
		switch v := integer.Value.(type) {
		case uint64:
			positive = v
		case int64:
			negative = min(v, 0)
			positive = uint64(max(v, 0))
		}
	}
	unsigned := to.Kind() == reflect.Uint64
	switch text, isText := node.(*ast.StringNode); {
	case isText && !quotedText(text.Token) && strings.Trim(text.Value, "0123456789") == "":
		d.add(path, "found %s, expected a smaller number", text.Value)
	case !ok:
		d.add(path, "found %s, expected a whole number", describe(node))
	case unsigned && negative < 0:
		d.add(path, "found %d, expected a whole number from 0", negative)
	case unsigned:
		to.SetUint(positive)
	case positive > math.MaxInt64 || to.OverflowInt(int64(positive)+negative):
		d.add(path, "found %s, expected a smaller number", integer.GetToken().Value)
	default:
		to.SetInt(int64(positive) + negative)
	}
}
