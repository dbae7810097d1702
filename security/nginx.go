package security

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

var nginx = Check{
	Name:    "nginx",
	Asks:    "whether an nginx configuration accepts old TLS, sets no limits on requests, reveals its version or lists folders",
	Control: "the files parse and contain a server",
	Flaw:    "a directive in force is unsafe, or a needed directive is missing in a server and in the blocks around it",
	Planted: "configuration written by the test",
	Needs:   "the nginx configuration (nginx)",
	worst:   "CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U/C:H/I:H/A:N",
	asked:   func(s scenarios.Scan) bool { return s.Nginx != "" },
	offline: true,
	run:     runNginx,
}

var gatewayConfig = Check{
	Name:    "gateway-config",
	Asks:    "whether a configuration of the bundled gateway removes a limit that protects clients from one another, or serves what it cannot write down",
	Control: "the file parses",
	Flaw:    "a limit is 0 or too high to have an effect, every address is exempt or may claim another, or the gateway serves while its audit log fails",
	Planted: "configuration written by the test",
	Needs:   "the gateway configuration (gateway)",
	worst:   "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H",
	asked:   func(s scenarios.Scan) bool { return s.Gateway != "" },
	offline: true,
	run:     runGatewayConfig,
}

// directive is a directive of nginx, with the contents of its block.
type directive struct {
	name string
	args []string
	line int
	in   []directive
}

// parseNginx parses the syntax of nginx's configuration: words, quotes, comments,
// blocks.
func parseNginx(src string) ([]directive, error) {
	type open struct {
		d  *directive
		in *[]directive
	}
	var top []directive
	stack := []open{{nil, &top}}
	var words []string
	word, quoted, line, began := "", false, 1, 1
	end := func() {
		if word != "" || quoted {
			if len(words) == 0 {
				began = line
			}
			words = append(words, word)
		}
		word, quoted = "", false
	}
	for i := 0; i < len(src); i++ {
		switch c := src[i]; {
		case c == '\n' || c == ' ' || c == '\t' || c == '\r':
			end()
			if c == '\n' {
				line++
			}
		case c == '#' && word == "":
			for i+1 < len(src) && src[i+1] != '\n' {
				i++
			}
		case (c == '"' || c == '\'') && word == "":
			quoted = true
			for i++; i < len(src) && src[i] != c; i++ {
				if src[i] == '\\' && i+1 < len(src) {
					i++
				}
				if src[i] == '\n' {
					line++
				}
				word += string(src[i])
			}
			if i >= len(src) {
				return nil, fmt.Errorf("line %d: a quote has no end", line)
			}
		case c == '$' && i+1 < len(src) && src[i+1] == '{': // a variable, and not a block
			for i < len(src) && src[i] != '}' {
				word += string(src[i])
				i++
			}
			word += "}"
		case c == ';' || c == '{':
			end()
			if len(words) == 0 {
				if c == ';' {
					continue
				}
				return nil, fmt.Errorf("line %d: found a block without a name", line)
			}
			into := stack[len(stack)-1].in
			*into = append(*into, directive{name: words[0], args: words[1:], line: began})
			if c == '{' {
				if len(stack) > 64 {
					return nil, fmt.Errorf("line %d: found more than 64 blocks in each other", line)
				}
				d := &(*into)[len(*into)-1]
				stack = append(stack, open{d, &d.in})
			}
			words = nil
		case c == '}':
			end()
			if len(stack) == 1 || len(words) > 0 {
				return nil, fmt.Errorf("line %d: found a } that ends nothing, or a directive without ;", line)
			}
			stack = stack[:len(stack)-1]
		default:
			word += string(c)
		}
	}
	if len(stack) > 1 || len(words) > 0 {
		return nil, fmt.Errorf("line %d: the file ends inside a block or a directive", line)
	}
	return top, nil
}

// servers are the server blocks, with the directives that they inherit.
func servers(in []directive, around []directive) (found []directive) {
	for _, d := range in {
		switch d.name {
		case "http":
			shared := slices.DeleteFunc(slices.Clone(d.in), func(i directive) bool { return len(i.in) > 0 }) // sibling blocks are not inherited
			found = append(found, servers(d.in, shared)...)
		case "server":
			found = append(found, directive{name: "server", line: d.line, in: append(slices.Clone(d.in), around...)})
		}
	}
	return found
}

// first is the first directive of a name that has arguments; nil if there is none.
func (d directive) first(name string) *directive {
	for i := range d.in {
		if d.in[i].name == name && len(d.in[i].args) > 0 {
			return &d.in[i]
		}
	}
	return nil
}

// title names a server by its server_name, or by what it listens to.
func (d directive) title() string {
	for _, name := range []string{"server_name", "listen"} {
		if n := d.first(name); n != nil {
			return name + " " + strings.Join(n.args, " ")
		}
	}
	return "server"
}

// anywhere reports whether a directive is in a block or in a nested one.
func (d directive) anywhere(name string) bool {
	return slices.ContainsFunc(d.in, func(i directive) bool { return i.name == name || i.anywhere(name) })
}

func runNginx(_ context.Context, t *trial) end {
	files, err := filesOf(t.Scan.Nginx, ".conf")
	if err != nil {
		return unproven("the configuration cannot be read: %s", err)
	}
	n := 0
	for _, file := range files {
		src, err := readBounded(file)
		if err != nil {
			return unproven("the configuration cannot be read: %s", err)
		}
		top, err := parseNginx(string(src))
		if err != nil {
			return unproven("%s does not parse: %s", filepath.Base(file), err)
		}
		for _, s := range servers(top, nil) {
			n++
			t.server(filepath.Base(file), s)
		}
	}
	if n == 0 {
		return unproven("the configuration contains no server")
	}
	return t.ended("%s servers accept only TLS 1.2 and 1.3, limit requests and connections, and hide their version", number(int64(n)))
}

func (t *trial) server(file string, s directive) {
	at := func(d *directive) string {
		if d == nil {
			return fmt.Sprintf("line %d: server, without it", s.line)
		}
		return fmt.Sprintf("line %d: %s %s", d.line, d.name, strings.Join(d.args, " "))
	}
	note := func(kind, vector string, title words.Sentence, d *directive, fix words.Sentence, cwe string) {
		t.file(file+" "+s.title(), kind, vector, title, at(d), fix, cwe)
	}
	const little, much = "CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U/C:L/I:N/A:N", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:L"
	hasTLS := false
	for _, d := range s.in {
		hasTLS = hasTLS || d.name == "listen" && slices.Contains(d.args, "ssl")
	}
	if !hasTLS {
		redirects := s.first("return") != nil
		if listen := s.first("listen"); listen != nil && !redirects && !strings.HasPrefix(listen.args[0], "127.") && !strings.HasPrefix(listen.args[0], "unix:") {
			note("clear", t.check.worst, say("a server listens without encryption"), listen, say("listen with ssl, and answer unencrypted requests only with a redirect"), "CWE-319")
		}
	}
	if p := s.first("ssl_protocols"); p != nil {
		for _, old := range []string{"SSLv2", "SSLv3", "TLSv1", "TLSv1.1"} {
			if slices.Contains(p.args, old) {
				note("protocols", t.check.worst, say("old versions of TLS are accepted"), p, say("ssl_protocols TLSv1.2 TLSv1.3"), "CWE-326")
				break
			}
		}
	}
	if c := s.first("ssl_ciphers"); c != nil && len(c.args) > 0 {
		for _, weak := range []string{"RC4", "3DES", "NULL", "EXPORT", "MD5", "aNULL"} {
			for part := range strings.SplitSeq(c.args[0], ":") {
				if strings.Contains(part, weak) && !strings.HasPrefix(part, "!") && !strings.HasPrefix(part, "-") {
					note("ciphers", t.check.worst, say("broken TLS cipher suites are accepted"), c, say("list only cipher suites with ECDHE and GCM or ChaCha20"), "CWE-327")
				}
			}
		}
	}
	if d := s.first("server_tokens"); d == nil || d.args[0] != "off" {
		note("tokens", little, say("nginx reveals its version"), d, say("server_tokens off"), "CWE-200")
	}
	if d := s.first("autoindex"); d != nil && d.args[0] == "on" {
		note("autoindex", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:L/I:N/A:N", say("nginx lists the contents of folders"), d, say("autoindex off"), "CWE-548")
	}
	if s.anywhere("proxy_pass") || s.anywhere("grpc_pass") {
		if !s.anywhere("limit_req") {
			note("limit_req", much, say("the rate of requests from one address is not limited"), nil, say("set limit_req_zone by address, and use limit_req where requests are forwarded"), "CWE-770")
		}
		if !s.anywhere("limit_conn") {
			note("limit_conn", much, say("the connections of one address are not limited"), nil, say("set limit_conn_zone by address, and use limit_conn"), "CWE-770")
		}
	}
	if d := s.first("client_max_body_size"); d != nil && (d.args[0] == "0" || strings.HasSuffix(strings.ToLower(d.args[0]), "g")) {
		note("body", much, say("the size of a request body is not limited"), d, say("set client_max_body_size to a few megabytes"), "CWE-770")
	}
	for _, name := range []string{"client_header_timeout", "client_body_timeout"} {
		if d := s.first(name); d != nil && (strings.HasSuffix(d.args[0], "m") || strings.HasSuffix(d.args[0], "h") || len(d.args[0]) > 3) {
			note(name, much, say("the server waits very long for a slow client"), d, say("set the timeout to 10 to 30 s"), "CWE-400")
		}
	}
	if hasTLS && !slices.ContainsFunc(s.in, func(d directive) bool {
		return d.name == "add_header" && len(d.args) > 0 && strings.EqualFold(d.args[0], "Strict-Transport-Security")
	}) && !s.anywhere("include") {
		note("hsts", little, say("answers do not tell browsers to use only TLS (HSTS)"), nil, say("add_header Strict-Transport-Security with always"), "CWE-319")
	}
}

func runGatewayConfig(_ context.Context, t *trial) end {
	src, err := readBounded(t.Scan.Gateway)
	if err != nil {
		return unproven("the configuration cannot be read: %s", err)
	}
	var c map[string]any
	if err := yaml.Unmarshal(src, &c); err != nil {
		return unproven("%s does not parse: %s", filepath.Base(t.Scan.Gateway), err)
	}
	file := filepath.Base(t.Scan.Gateway)
	value := func(m map[string]any, path ...string) any {
		var v any = m
		for _, name := range path {
			inner, ok := v.(map[string]any)
			if !ok {
				return nil
			}
			v = inner[name]
		}
		return v
	}
	unbounded := func(m map[string]any, most float64, path ...string) bool {
		v := value(m, path...)
		if v == nil {
			return false // the default limits it
		}
		var n float64
		if _, err := fmt.Sscan(fmt.Sprint(v), &n); err != nil {
			return false
		}
		return n <= 0 || n > most
	}
	const much = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:L"
	for _, limit := range []struct {
		path []string
		most float64
	}{{[]string{"network", "rate"}, 5000}, {[]string{"network", "burst"}, 20_000}, {[]string{"key", "rate"}, 20_000}, {[]string{"key", "burst"}, 100_000}, {[]string{"tenant", "concurrency"}, 20_000}, {[]string{"connections", "address"}, 10_000}, {[]string{"connections", "tenant"}, 50_000}} {
		if unbounded(c, limit.most, limit.path...) {
			t.file(file, strings.Join(limit.path, "."), much, say("a limit has no effect: %s", strings.Join(limit.path, ".")), fmt.Sprintf("%s: %v", strings.Join(limit.path, "."), value(c, limit.path...)),
				say("remove it to use the default, or set it to what your clients need"), "CWE-770")
		}
	}
	if networks, ok := c["networks"].([]any); ok {
		for _, n := range networks {
			m, _ := n.(map[string]any)
			cidr := fmt.Sprint(m["cidr"])
			if strings.HasSuffix(cidr, "/0") {
				t.file(file, "networks", t.check.worst, say("every address is exempt from the limits"), fmt.Sprint(n), say("list only the networks that need it"), "CWE-770")
			}
		}
	}
	if proxies, ok := c["proxies"].([]any); ok {
		for _, d := range proxies {
			if strings.HasSuffix(fmt.Sprint(d), "/0") {
				t.file(file, "proxies", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:L/A:L", say("every client may claim the address that a request comes from"), fmt.Sprint(d), say("list the proxies by address"), "CWE-348")
			}
		}
	}
	if value(c, "audit", "unwritable") == "serve" {
		t.file(file, "audit", "CVSS:3.1/AV:N/AC:H/PR:L/UI:N/S:U/C:N/I:L/A:N", say("requests are served while the audit log cannot be written"), "audit.unwritable: serve", say("set audit.unwritable to refuse"), "CWE-778")
	}
	return t.ended("the configuration removes no limit")
}
