package security

import (
	"context"
	"crypto/tls"
	"net"
	"net/url"
	"strings"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

var openDoors = Check{
	Name:    "open-doors",
	Asks:    "whether strangers reach endpoints for operators: metrics, profiles, documentation, files, routes that load, reset or change the model (vLLM, SGLang, llama.cpp, Ollama, TGI, Triton), and inference routes outside /v1 without a key (/invocations)",
	Control: "a random path gets the answer of a path that does not exist",
	Flaw:    "without a key, the endpoint twice answers with its typical content (a 200 alone does not count), and a random path does not. A route that changes the service is never called: it counts if it answers another method with 405 and Allow, or if the service's OpenAPI document lists it and it does not ask for a key",
	Planted: "test service: metrics-on-gateway, pprof, vllm-admin, invocations; reference server: metrics-on-gateway, pprof",
	Cap:     Cap{Requests: 600, Seconds: 40, Bytes: 32 << 20},
	worst:   "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:H/A:H",
	run:     runOpenDoors,
}

const (
	tellsLittle = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:L/I:N/A:N"
	tellsMuch   = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N"
	changesIt   = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:H/A:H"
	usesIt      = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:L/A:H"
)

// operatorEndpoint is an endpoint that only operators should reach.
type operatorEndpoint struct {
	method, path string
	holds        []string // all of these are in its answer; none: the route is only recognized by its 405
	vector       string
	whose        string
}

var operatorEndpoints = []operatorEndpoint{
	{"GET", "/metrics", []string{"# TYPE "}, tellsLittle, "Prometheus metrics"},
	{"GET", "/debug/pprof/", []string{"profiles", "goroutine"}, tellsMuch, "Go profiles"},
	{"GET", "/debug/vars", []string{"memstats", "cmdline"}, tellsMuch, "Go variables"},
	{"GET", "/.git/HEAD", []string{"ref: refs/"}, tellsMuch, "a Git repository"},
	{"GET", "/.env", []string{"="}, tellsMuch, "an environment file"},
	{"GET", "/server-status", []string{"Apache Server Status"}, tellsLittle, "Apache"},
	{"GET", "/nginx_status", []string{"Active connections:"}, tellsLittle, "nginx"},
	{"GET", "/stub_status", []string{"Active connections:"}, tellsLittle, "nginx"},
	{"GET", "/actuator/env", []string{"propertySources"}, tellsMuch, "Spring"},
	{"GET", "/docs", []string{"swagger-ui"}, tellsLittle, "the documentation of the API"},
	{"GET", "/redoc", []string{"redoc"}, tellsLittle, "the documentation of the API"},
	{"GET", "/openapi.json", []string{`"openapi"`, `"paths"`}, tellsLittle, "the description of the API"},
	{"GET", "/status", []string{`"replicas"`}, tellsLittle, "the gateway's status"},
	{"GET", "/server_info", []string{"{", "model"}, tellsMuch, "the arguments of vLLM or SGLang"},
	{"GET", "/get_server_args", []string{"{", "model_path"}, tellsMuch, "the arguments of SGLang"},
	{"GET", "/get_server_info", []string{"{", "model_path"}, tellsMuch, "the arguments of SGLang"},
	{"GET", "/get_model_info", []string{"model_path"}, tellsLittle, "the model of SGLang"},
	{"GET", "/is_sleeping", []string{"is_sleeping"}, tellsLittle, "vLLM"},
	{"GET", "/props", []string{"default_generation_settings"}, tellsLittle, "llama.cpp"},
	{"GET", "/slots", []string{`"id_task"`}, tellsMuch, "the slots of llama.cpp, with what others ask"},
	{"GET", "/api/tags", []string{`"models"`, `"digest"`}, tellsLittle, "Ollama"},
	{"GET", "/api/ps", []string{`"models"`, `"size_vram"`}, tellsLittle, "Ollama"},
	{"GET", "/v2/models/stats", []string{"model_stats"}, tellsLittle, "Triton"},
	{"GET", "/dashboard", []string{"Ray Dashboard"}, changesIt, "the dashboard of Ray"},

	{"POST", "/sleep", nil, changesIt, "vLLM"},
	{"POST", "/wake_up", nil, changesIt, "vLLM"},
	{"POST", "/collective_rpc", nil, changesIt, "vLLM"},
	{"POST", "/reset_prefix_cache", nil, usesIt, "vLLM"},
	{"POST", "/reset_mm_cache", nil, usesIt, "vLLM"},
	{"POST", "/pause", nil, changesIt, "vLLM"},
	{"POST", "/scale_elastic_ep", nil, changesIt, "vLLM"},
	{"POST", "/start_profile", nil, usesIt, "vLLM and SGLang"},
	{"POST", "/stop_profile", nil, usesIt, "vLLM and SGLang"},
	{"POST", "/v1/load_lora_adapter", nil, changesIt, "vLLM"},
	{"POST", "/v1/unload_lora_adapter", nil, changesIt, "vLLM"},
	{"POST", "/load_lora_adapter", nil, changesIt, "SGLang"},
	{"POST", "/flush_cache", nil, usesIt, "SGLang"},
	{"POST", "/update_weights_from_disk", nil, changesIt, "SGLang"},
	{"POST", "/update_weights_from_tensor", nil, changesIt, "SGLang"},
	{"POST", "/update_weights_from_distributed", nil, changesIt, "SGLang"},
	{"POST", "/init_weights_update_group", nil, changesIt, "SGLang"},
	{"POST", "/release_memory_occupation", nil, changesIt, "SGLang"},
	{"POST", "/resume_memory_occupation", nil, changesIt, "SGLang"},
	{"POST", "/abort_request", nil, usesIt, "SGLang"},
	{"POST", "/set_internal_state", nil, changesIt, "SGLang"},
	{"POST", "/lora-adapters", nil, changesIt, "llama.cpp"},
	{"POST", "/models/load", nil, changesIt, "llama.cpp"},
	{"POST", "/models/unload", nil, changesIt, "llama.cpp"},
	{"POST", "/api/pull", nil, changesIt, "Ollama"},
	{"POST", "/api/create", nil, changesIt, "Ollama"},
	{"DELETE", "/api/delete", nil, changesIt, "Ollama"},
	{"POST", "/v2/repository/index", nil, changesIt, "Triton"},
}

// inferring are routes outside OpenAI's API that run inference.
var inferring = []struct{ path, whose string }{
	{"/invocations", "SageMaker's route of vLLM and SGLang"}, {"/generate", "TGI and SGLang"}, {"/completion", "llama.cpp"}, {"/completions", "llama.cpp"},
	{"/chat/completions", "llama.cpp and LiteLLM"}, {"/infill", "llama.cpp"}, {"/api/generate", "Ollama"}, {"/api/chat", "Ollama"}, {"/v1/messages", "Anthropic's API"},
	{"/tokenize", "vLLM and llama.cpp"}, {"/detokenize", "vLLM and llama.cpp"}, {"/v1/embeddings", "OpenAI's API"}, {"/score", "vLLM"}, {"/rerank", "vLLM"}, {"/inference/v1/generate", "vLLM"},
}

// countsForAll is the vector of a tokenizer that is open to strangers: it costs a little
// work, and tells nothing that a key protects.
const countsForAll = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:L"

func isTokenizer(path string) bool { return path == "/tokenize" || path == "/detokenize" }

var endpointTags = []string{"OWASP API8:2023", "OWASP API5:2023", "OWASP API9:2023", "CWE-306"}

func runOpenDoors(ctx context.Context, t *trial) end {
	never := request{method: "GET", path: "/" + t.random.letters(16)}
	absent := t.ask(ctx, never)
	if absent.err != nil {
		return unproven("a random path got no answer: %s", absent.err)
	}
	looked := t.lookAround(ctx, absent, "")
	described := t.paths(ctx)
	for _, r := range inferring {
		t.tryInferring(ctx, r.path, r.whose)
	}
	for _, d := range operatorEndpoints {
		if d.holds == nil && described[d.path] {
			t.foundDescribed(ctx, d)
		}
	}
	beside := 0
	for _, where := range t.Scan.Addresses {
		other, ok := t.beside(where)
		if !ok {
			continue
		}
		absent := other.ask(ctx, never)
		if absent.err != nil {
			return unproven("the additional address %s cannot be reached: %s", where, absent.err)
		}
		beside++
		other.lookAround(ctx, absent, strings.TrimSuffix(where, "/"))
		t.findings = append(t.findings, other.findings...)
		t.requests.Add(other.requests.Load())
		t.bytes.Add(other.bytes.Load())
	}
	return t.ended("%s operator endpoints are closed to requests without a key, at the target and at %s other addresses", number(int64(looked+len(inferring))), number(int64(beside)))
}

// beside is the same check at another address.
func (t *trial) beside(where string) (*trial, bool) {
	u, err := url.Parse(where)
	if err != nil || u.Host == "" {
		return nil, false
	}
	s := t.optionsOnly()
	s.host, s.secure = u.Host, u.Scheme == "https"
	port := u.Port()
	if port == "" {
		port = map[bool]string{false: "80", true: "443"}[s.secure]
	}
	s.address = net.JoinHostPort(u.Hostname(), port)
	s.tlsConfig = &tls.Config{ServerName: u.Hostname(), RootCAs: t.tlsConfig.RootCAs}
	s.sources = sourcesFor(u.Hostname())
	return newTrial(s, t.check), true
}

// lookAround tries each operator endpoint. at is the address for findings, empty for
// the target's own.
func (t *trial) lookAround(ctx context.Context, absent answer, at string) (looked int) {
	for _, d := range operatorEndpoints {
		if ctx.Err() != nil {
			break
		}
		looked++
		if d.holds != nil {
			r := request{method: d.method, path: d.path}
			if a := t.ask(ctx, r); d.shownBy(a) && !d.shownBy(absent) {
				if again := t.ask(ctx, r); d.shownBy(again) {
					t.foundEndpoint(d, at, exchange(r, again), say("without a key, the endpoint twice returned the typical content of such an endpoint; a random path does not return it"))
				}
			}
			continue
		}
		r := request{method: "GET", path: d.path}
		if d.method == "GET" {
			continue
		}
		names := func(a answer) bool {
			return a.err == nil && a.status == 405 && strings.Contains(a.header.Get("Allow"), d.method)
		}
		if a := t.ask(ctx, r); names(a) && !names(absent) && names(t.ask(ctx, request{method: "GET", path: d.path})) {
			t.foundEndpoint(d, at, exchange(r, a), say("twice, a request without a key and with another method got 405 and the method that the route accepts; the route itself was not called"))
		}
	}
	return looked
}

func (d operatorEndpoint) shownBy(a answer) bool {
	if !a.ok() {
		return false
	}
	text := string(a.body)
	if d.path == "/.env" && strings.Contains(strings.ToLower(text), "<html") {
		return false
	}
	for _, part := range d.holds {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}

func (t *trial) foundEndpoint(d operatorEndpoint, at string, e recording.Exchange, how words.Sentence) {
	title := say("an operator endpoint is open to strangers: %s", d.whose)
	if d.holds == nil {
		title = say("a route that changes the service is open to strangers: %s", d.whose)
	}
	t.found(flaw{title: title, kind: "endpoint", where: d.method + " " + at + d.path, vector: d.vector, tags: endpointTags, evidence: []recording.Exchange{e},
		verified: how, fix: say("serve it on a port that only operators reach, or require an operator key, and let the entry point forward only the routes that users need")})
}

// foundDescribed tests a route in the service's own description that changes something,
// and reports it if no key seems to be needed. It never executes the route.
func (t *trial) foundDescribed(ctx context.Context, d operatorEndpoint) {
	for _, f := range t.findings {
		if f.Where == d.method+" "+d.path {
			return
		}
	}
	a := t.once(ctx, request{method: "GET", path: d.path})
	if a.err != nil || a.refused() || a.status == 404 {
		return
	}
	t.foundEndpoint(d, "", exchange(request{method: "GET", path: d.path}, a), say("the service's OpenAPI document lists the route, and a request without a key was not refused for that reason; the route itself was not called"))
}

// paths are the paths in the OpenAPI that the service shows without a key.
func (t *trial) paths(ctx context.Context) map[string]bool {
	doc := t.openAPI(ctx, "")
	found := map[string]bool{}
	if doc == nil {
		return found
	}
	for _, path := range doc.Paths.InMatchingOrder() {
		found[path] = true
	}
	return found
}

// tryInferring requests inference without a key from a route outside the API.
func (t *trial) tryInferring(ctx context.Context, path, whose string) {
	if t.target.Key == "" {
		return // the check authentication covers a service without keys
	}
	bodies := []string{
		t.message("Say hi.", `"max_tokens":2`),
		`{"prompt":"Say hi.","n_predict":2,"max_tokens":2}`,
		`{"inputs":"Say hi.","text":"Say hi.","parameters":{"max_new_tokens":2},"sampling_params":{"max_new_tokens":2}}`,
		`{"model":` + quoted(t.model) + `,"prompt":"hi","input":"hi","content":"hi","tokens":[1,2,3]}`,
	}
	for _, body := range bodies {
		r := request{method: "POST", path: path, body: body}
		a := t.ask(ctx, r)
		if a.err != nil || a.refused() || a.status == 404 || a.status == 405 {
			if a.err == nil {
				return
			}
			continue
		}
		if !infers(a) {
			continue
		}
		if again := t.ask(ctx, r); infers(again) {
			vector := usesIt
			if isTokenizer(path) {
				vector = countsForAll
			}
			t.found(flaw{
				title: say("a route outside the API works without a key: %s", whose), kind: "infers", where: "POST " + path, vector: vector,
				tags: endpointTags, evidence: []recording.Exchange{exchange(r, again)},
				verified: say("without a key, the route twice returned the output of a model or a tokenizer"),
				fix:      say("require the key on every route except health checks, and let the entry point forward only the routes that users need"),
			})
		}
		return
	}
}

// infers reports whether an answer is the output of a model or tokenizer.
func infers(a answer) bool {
	if !a.ok() || members(a) == nil {
		return false
	}
	for _, m := range members(a) {
		switch m {
		case "choices", "content", "generated_text", "text", "response", "tokens", "prompt", "embedding", "embeddings", "message", "data", "completion":
			return true
		}
	}
	return false
}
