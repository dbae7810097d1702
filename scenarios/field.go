package scenarios

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Field is a value that a gate puts into a request's JSON: any, as it is
// written, with ${max_tokens} and its like standing for what the request would
// have had there. A field that is null is left out of the request.
type Field struct{ json string }

// JSON is the value, null where the field is left out.
func (f Field) JSON() string {
	if f.json == "" {
		return "null"
	}
	return f.json
}

// MarshalJSON writes the value.
func (f Field) MarshalJSON() ([]byte, error) { return []byte(f.JSON()), nil }

// UnmarshalJSON reads any value.
func (f *Field) UnmarshalJSON(b []byte) error {
	f.json = string(b)
	return nil
}

// GobEncode writes the value for a worker.
func (f Field) GobEncode() ([]byte, error) { return []byte(f.JSON()), nil }

// GobDecode reads what GobEncode wrote.
func (f *Field) GobDecode(b []byte) error { return f.UnmarshalJSON(b) }

// Texts are fields as JSON.
func Texts(fields map[string]Field) map[string]string {
	if len(fields) == 0 {
		return nil
	}
	all := make(map[string]string, len(fields))
	for name, f := range fields {
		all[name] = f.JSON()
	}
	return all
}

// FieldOf is a field with a value made in Go.
func FieldOf(value any) (Field, error) {
	b, err := json.Marshal(value)
	return Field{string(b)}, err
}

// decodeField copies any YAML value as JSON.
func (d *decoder) decodeField(node ast.Node, to *Field, path string) {
	var b strings.Builder
	if d.json(&b, node, path, 0) {
		to.json = b.String()
	}
}

// json writes a value with blanks after commas and colons, so that it is YAML
// too. It is false where a problem was found.
func (d *decoder) json(b *strings.Builder, node ast.Node, path string, depth int) bool {
	if node = d.resolve(node, path); node == nil {
		return false
	}
	if d.nodes++; d.nodes > maxNodes || depth > maxNesting {
		d.add(path, "found more values than a request has, expected a field")
		return false
	}
	text := func(s string) {
		quoted, _ := json.Marshal(s) // a string can be
		b.Write(quoted)
	}
	switch n := node.(type) {
	case *ast.NullNode:
		b.WriteString("null")
	case *ast.BoolNode:
		b.WriteString(strconv.FormatBool(n.Value))
	case *ast.StringNode:
		text(n.Value)
	case *ast.LiteralNode:
		text(n.Value.Value)
	case *ast.IntegerNode:
		fmt.Fprint(b, n.Value)
	case *ast.FloatNode:
		if math.IsNaN(n.Value) || math.IsInf(n.Value, 0) {
			d.add(path, "found %s, expected a number that JSON has", describe(node))
			return false
		}
		b.WriteString(strconv.FormatFloat(n.Value, 'g', -1, 64))
	case *ast.SequenceNode:
		b.WriteByte('[')
		for i, item := range n.Values {
			if i > 0 {
				b.WriteString(", ")
			}
			if !d.json(b, item, path, depth+1) {
				return false
			}
		}
		b.WriteByte(']')
	case ast.MapNode:
		pairs, _ := d.pairs(node, path)
		b.WriteByte('{')
		for i, p := range pairs {
			if i > 0 {
				b.WriteString(", ")
			}
			text(p.key)
			b.WriteString(": ")
			if !d.json(b, p.value, path, depth+1) {
				return false
			}
		}
		b.WriteByte('}')
	default:
		d.add(path, "found %s, expected a value of JSON", describe(node))
		return false
	}
	return true
}

// merged are the fields of a class over those of its scenario.
func merged(base, over map[string]Field) map[string]Field {
	if len(base) == 0 {
		return over
	}
	all := make(map[string]Field, len(base)+len(over))
	for name, f := range base {
		all[name] = f
	}
	for name, f := range over {
		all[name] = f
	}
	return all
}

// FieldsOf are the fields that a request to an API has by itself: the names
// that ${…} may stand for.
func FieldsOf(api string) []string {
	switch api {
	case APIChat:
		return []string{"model", "messages", "max_tokens", "temperature", "ignore_eos", "stream", "stream_options"}
	case APICompletions:
		return []string{"model", "prompt", "max_tokens", "temperature", "ignore_eos", "stream", "stream_options"}
	case APIResponses:
		return []string{"model", "input", "max_tokens", "max_output_tokens", "temperature", "ignore_eos", "stream", "store"}
	}
	return nil
}

var placeholder = regexp.MustCompile(`"\$\{([^"}]*)\}"`)

// fields checks the fields that are put into requests to an API. Without an API the
// names of all APIs are accepted.
func (c *checker) fields(path string, fields map[string]Field, api string) {
	known := FieldsOf(api)
	if api == "" {
		known = slices.Concat(FieldsOf(APIChat), FieldsOf(APICompletions), FieldsOf(APIResponses))
	}
	if api == APIGRPC && len(fields) > 0 {
		c.add(path, "found fields beside api: grpc, whose requests have none but their own; leave them out")
		return
	}
	for name, f := range fields {
		at := path + "." + name
		switch {
		case name == "" || len(name) > maxName:
			c.add(at, "found %s, expected the name of a field", quoted(name))
		case name == "stream":
			c.add(at, "found stream among the fields, expected it beside them: the client has to know whether the answer is a stream")
		}
		for _, found := range placeholder.FindAllStringSubmatch(f.JSON(), -1) {
			if !slices.Contains(known, found[1]) {
				c.add(at, "found ${%s}; %s", found[1], oneOf(found[1], known))
			}
		}
		c.length(at, f.JSON(), maxPrompt)
	}
}

var reference = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// Variables are the environment variables that a value names, as ${NAME}.
func Variables(value string) (names []string) {
	for _, found := range reference.FindAllStringSubmatch(value, -1) {
		names = append(names, found[1])
	}
	return names
}

// Expanded is a value with what the environment holds in place of ${NAME}.
func Expanded(value string, lookup func(name string) (string, error)) (string, error) {
	var failed error
	filled := reference.ReplaceAllStringFunc(value, func(ref string) string {
		v, err := lookup(ref[2 : len(ref)-1])
		if err != nil && failed == nil {
			failed = err
		}
		return v
	})
	return filled, failed
}

// secretNames are what headers and parameters with a secret are called.
var secretNames = []string{"authorization", "api-key", "x-api-key", "x-goog-api-key", "ocp-apim-subscription-key", "cookie", "proxy-authorization",
	"key", "api_key", "apikey", "token", "access_token", "sig", "signature", "secret", "password", "subscription-key"}

// holdsSecret reports whether a header or parameter has a secret in it that is
// written out.
func holdsSecret(name, value string) bool {
	return slices.Contains(secretNames, strings.ToLower(name)) && len(Variables(value)) == 0
}

// values checks headers or parameters of a URL, whose secrets are named and not
// written.
func (c *checker) values(path, what string, values map[string]string, validName func(string) bool, expected string) {
	for name, value := range values {
		at := path + "." + name
		rest := reference.ReplaceAllString(value, "")
		switch {
		case !validName(name):
			c.add(at, "found the %s %s, expected %s", what, quoted(name), expected)
		case strings.Contains(rest, "${"):
			c.add(at, "found ${ without the name of an environment variable and a }, expected it as in ${AZURE_KEY}")
		case holdsSecret(name, value):
			c.add(at, "found a %s that holds a secret, expected none: gates are kept in run folders; name the environment variable that holds it, as in ${AZURE_KEY}, or in api_key_env what goes into Authorization: Bearer", what)
		case strings.ContainsAny(value, "\r\n\x00"):
			c.add(at, "found a line break in the value of a %s, expected one line", what)
		}
		c.length(at, value, maxText)
	}
}
