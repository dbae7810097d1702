package security

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// public are paths that need no key on purpose.
var public = []string{"health", "healthz", "ready", "readyz", "live", "livez", "ping", "version", "metrics", "openapi", "docs", "redoc", "favicon"}

const maxDescribed = 20

// described are routes in the service's own OpenAPI that can be tested: those that only
// read, need no parameter, answer a request with a key in JSON, and refuse one without.
func (s *session) described(ctx context.Context, t *trial) []route {
	if s.target.Key == "" {
		return nil
	}
	doc := t.openAPI(ctx, s.target.Key)
	if doc == nil {
		return nil
	}
	var found []route
	for _, path := range doc.Paths.InMatchingOrder() {
		op := doc.Paths.Find(path).Get
		name := strings.Trim(path[strings.LastIndexByte(path, '/')+1:], "/")
		if op == nil || strings.Contains(path, "{") || slices.Contains(public, strings.TrimSuffix(name, ".json")) || len(found) == maxDescribed {
			continue
		}
		needs := slices.ContainsFunc(op.Parameters, func(p *openapi3.ParameterRef) bool { return p.Value != nil && p.Value.Required })
		if needs {
			continue
		}
		r := request{method: "GET", path: path, key: s.target.Key}
		with := t.ask(ctx, r)
		r.key = ""
		if keys := members(with); with.ok() && keys != nil && t.ask(ctx, r).refused() {
			found = append(found, route{"GET", path, "", func(a answer) bool { return a.ok() && slices.Equal(members(a), keys) }, false})
		}
	}
	return found
}

// openAPI is the service's own description of its API; nil if it has none.
func (t *trial) openAPI(ctx context.Context, key string) *openapi3.T {
	for _, path := range []string{"/openapi.json", "/v1/openapi.json", "/swagger.json"} {
		a := t.ask(ctx, request{method: "GET", path: path, key: key})
		if !a.ok() {
			continue
		}
		loader := openapi3.NewLoader()
		loader.IsExternalRefsAllowed = false // a hostile target must not make the scan fetch other addresses
		if doc, err := loader.LoadFromData(a.body); err == nil && doc.Paths != nil {
			return doc
		}
	}
	return nil
}

// members are the names of a JSON object's members, or the type of another JSON value;
// nil if it is not JSON.
func members(a answer) []string {
	var object map[string]json.RawMessage
	if json.Unmarshal(a.body, &object) == nil {
		names := []string{}
		for name := range object {
			names = append(names, name)
		}
		slices.Sort(names)
		return names
	}
	if json.Valid(a.body) {
		return []string{"not an object"}
	}
	return nil
}
