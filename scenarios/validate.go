package scenarios

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The words a gate is written with.
const (
	APIChat         = "chat"
	APICompletions  = "completions"
	APIResponses    = "responses"
	APIGRPC         = "grpc"
	ArrivalsPoisson = "poisson"
	ArrivalsEven    = "constant"
	ArrivalsGamma   = "gamma"
	ShapeLinear     = "linear"
	ShapeSteps      = "steps"
	ShapeSpike      = "spike"
	ShapeSine       = "sine"
	ChunksAll       = "all"
	ChunksNone      = "none"
	VictimBusiest   = "busiest"
	VictimRandom    = "random"
	LoadAuto        = "auto"
	LoadDummy       = "dummy"
)

// Bounds of a gate. Past them a value is a slip of the finger, not a plan.
const (
	maxText         = 10_000  // bytes of a description or a file name
	maxPrompt       = 1 << 20 // bytes; the whole file holds no more
	maxReplicas     = 100     // processes on one machine
	maxPort         = 65535
	maxThreads      = 1024 // of one replica
	maxBatch        = 65_536
	maxSequence     = 100_000_000
	maxModels       = 100    // of one replica
	maxShorten      = 60     // times: at more, a window holds too few scrapes
	maxWarmup       = 10_000 // requests
	maxLabels       = 50
	maxLabel        = 1000 // bytes of one
	maxStopRequests = 1_000_000
	maxTokens       = 1_000_000 // of one answer
	maxStage        = Duration(7 * 24 * time.Hour)
	maxTimeout      = Duration(time.Hour) // of one request
	maxRequests     = 100_000_000         // of one scenario
	maxMinStreams   = 10_000              // on one replica
	maxUsers        = 100_000             // of one client
	maxTurns        = 1000
	maxSteps        = 1000
	maxClasses      = 100
	maxCombinations = 256
	maxPrefixes     = 1_000_000
	maxBurstiness   = 1000
	maxSpeed        = 1000
	minProbe        = Duration(5 * time.Millisecond)
	maxProbeOfFault = Duration(250 * time.Millisecond) // RTO is known to within one interval
	maxProbe        = Duration(time.Minute)
	maxConsecutive  = 100
	leastConfidence = 0.8
	mostConfidence  = 0.9999
)

// Validate checks a gate that was made or changed in Go. Parse has checked what
// it returns.
func Validate(g Gate) error { return check(g).asError() }

// check finds everything that a resolved gate cannot mean.
func check(g Gate) Problems {
	c := &checker{priced: g.Cost != nil, kept: g.Chunks, replicas: g.Target.replicas()}
	c.name("name", g.Name)
	c.length("description", g.Description, maxText)
	c.target(g.Target)
	if g.Target.Kubernetes != nil {
		c.kubernetes(g)
	}
	if g.Target.Local != nil {
		c.keys(g)
		c.models(g)
	}
	c.between("warmup.requests", g.Warmup.Requests, 1, maxWarmup)
	if g.Confidence != 0 && (g.Confidence < leastConfidence || g.Confidence > mostConfidence) {
		c.add("confidence", "found %v, expected a share from %v to %v, such as 95%%: how sure a promise has to be to pass", g.Confidence, Share(leastConfidence), Share(mostConfidence))
	}
	c.labels(g.Labels)
	c.stop(g)
	if len(g.Scenarios) == 0 && g.Scan == nil {
		c.add("scenarios", "found none, expected at least one scenario, or a scan")
	}
	c.scan(g)
	names := make(map[string]int)
	for i, s := range g.Scenarios {
		path := fmt.Sprintf("scenarios[%d]", i)
		c.unique(names, path+".name", s.Name, i)
		c.scenario(path, s)
		if l := g.Target.Local; l != nil && l.Gateway.Plain && s.Durability != nil && s.Durability.Usage {
			c.add(path+".durability.usage", "found it with a gateway that is plain and keeps no usage, expected false, or no plain in target.local.gateway")
		}
		if e := g.Target.Endpoint; e != nil && s.Durability != nil && strings.HasPrefix(e.URL, "grpc") {
			c.add(path+".durability", "found it for %s, expected a service with /v1/responses, at an address that begins with http", e.URL)
		}
	}
	c.profiles(g.Profiles)
	c.objectives(g)
	c.cost(g)
	c.chunks(g.Chunks)
	return c.problems
}

type checker struct {
	problems Problems
	priced   bool   // the gate says what a replica costs
	kept     string // which chunk times are
	// replicas are the names of those that the target will have; nil where the gate
	// does not tell.
	replicas []string
}

func (c *checker) add(path, format string, args ...any) {
	c.problems = append(c.problems, Problem{Path: path, Text: fmt.Sprintf(format, args...)})
}

func (c *checker) name(path, name string) {
	if !isName(name) {
		c.add(path, "found %s, expected a name of up to %d letters, digits, - and _, beginning with a letter or digit", quoted(name), maxName)
	}
}

// labels checks what the report shows as it is.
func (c *checker) labels(labels map[string]string) {
	c.between("labels", len(labels), 0, maxLabels)
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		path := "labels." + name
		c.name(path, name)
		c.length(path, labels[name], maxLabel)
		if secretVariable.MatchString(name) {
			c.add(path, "found a label that by its name is a key or another secret, expected none: labels stand in the report")
		}
	}
}

// unique checks the names of scenarios or stages, which objectives refer to.
func (c *checker) unique(seen map[string]int, path, name string, i int) {
	c.name(path, name)
	if first, doubled := seen[name]; doubled {
		c.add(path, "found %s a second time (first as number %d), expected another name", quoted(name), first+1)
		return
	}
	seen[name] = i
}

func (c *checker) between(path string, n, least, most int) {
	if n < least || n > most {
		c.add(path, "found %d, expected a number from %d to %d", n, least, most)
	}
}

func (c *checker) lasts(path string, d, least, most Duration) {
	switch {
	case d <= 0 && least <= 1:
		c.add(path, "found %v, expected a duration above 0, such as 30s", d)
	case d < least || d > most:
		c.add(path, "found %v, expected a duration from %v to %v", d, least, most)
	}
}

func (c *checker) word(path, found string, known ...string) {
	if !slices.Contains(known, found) {
		c.add(path, "found %s; %s", quoted(found), oneOf(found, known))
	}
}

func (c *checker) length(path, text string, most int) {
	if len(text) > most {
		c.add(path, "found %d bytes, expected at most %d", len(text), most)
	}
}

// CheckURL checks the address of a service that is not read from a gate.
func CheckURL(url string) error {
	c := &checker{}
	c.endpoint(Endpoint{URL: url})
	for i := range c.problems {
		c.problems[i].Path = ""
	}
	return c.problems.asError()
}

func (c *checker) target(t Target) {
	switch {
	case t.Local != nil && t.Endpoint != nil:
		c.add("target", "found both local and endpoint, expected one of them")
	case t.Kubernetes != nil && (t.Local != nil || t.Endpoint != nil):
		c.add("target", "found kubernetes beside another one, expected one of them")
	case t.Kubernetes != nil: // see kubernetes
	case t.Local != nil:
		c.local(*t.Local)
	case t.Endpoint != nil:
		c.endpoint(*t.Endpoint)
	default:
		c.add("target", "found neither, expected local (the bundled service), endpoint (one that is already there; --target URL names one too) or kubernetes (one on a cluster)")
	}
}

func (c *checker) local(l Local) {
	c.between("target.local.replicas", l.Replicas, 1, maxReplicas)
	c.between("target.local.nodes", l.Nodes, 0, l.Replicas)
	c.between("target.local.threads", l.Threads, 0, maxThreads)
	if l.KVCache != 0 {
		c.size("target.local.kv_cache", l.KVCache, 1<<20)
	}
	c.between("target.local.max_batch_size", l.MaxBatchSize, 0, maxBatch)
	c.between("target.local.max_sequence_length", l.MaxSequenceLength, 0, maxSequence)
	if f := l.GPUMemoryFraction; f > 1 {
		c.add("target.local.gpu_memory_fraction", "found %s, expected at most 100%%", f)
	}
	c.between("target.local.port", l.Port, 0, maxPort)
	c.length("target.local.model", l.Model, maxText)
	if l.LoadFormat != "" {
		c.word("target.local.load_format", l.LoadFormat, LoadAuto, LoadDummy)
	}
	if l.Dummy() && l.Model == "" && len(l.Models) == 0 {
		c.add("target.local.load_format", "found %s without a model, expected the shape of the random weights in model, such as llama-8b", LoadDummy)
	}
	if l.Model != "" && len(l.Models) > 0 {
		c.add("target.local.model", "found it beside models, expected one of them")
	}
	c.between("target.local.models", len(l.Models), 0, maxModels)
	for _, name := range slices.Sorted(maps.Keys(l.Models)) {
		path := "target.local.models." + name
		c.name(path, name)
		c.length(path+".path", l.Models[name].Path, maxText)
		c.word(path+".quantization", l.Models[name].Quantization, "none", "fp16", "int8")
	}
	c.lasts("target.local.ready_timeout", l.ReadyTimeout, 1, maxTimeout)
	if m := l.Monitoring; !m.Disabled {
		c.between("target.local.monitoring.shorten", m.Shorten, 1, maxShorten)
	} else if m.Shorten != 0 {
		c.add("target.local.monitoring.shorten", "found windows to shorten of monitoring that is disabled; leave one of them out")
	}
	c.length("target.local.gateway.config", l.Gateway.Config, maxText)
	if g := l.Gateway; g.Plain && (g.Config != "" || g.Unreplicated || len(g.Keys) > 0) {
		c.add("target.local.gateway.plain", "found a gateway that is plain and has config, keys or unreplicated; a plain one has neither keys and limits nor a ledger, so leave one of them out")
	}
}

// keys checks that somebody asks with each key, and that its class is one.
func (c *checker) keys(g Gate) {
	asks := map[string]bool{}
	for _, s := range g.Scenarios {
		for _, class := range s.Mix() {
			asks[class.Workload.APIKeyEnv] = true
		}
	}
	gateway := g.Target.Local.Gateway
	for _, variable := range slices.Sorted(maps.Keys(gateway.Keys)) {
		path := "target.local.gateway.keys." + variable
		if !asks[variable] {
			c.add(path, "no workload asks with this key, expected api_key_env: %s in one", variable)
		}
		if class := gateway.Keys[variable].Class; gateway.Config == "" {
			c.word(path+".class", class, "batch", "standard", "interactive")
		} else {
			c.name(path+".class", class)
		}
	}
}

// models checks that workloads ask for models that are served.
func (c *checker) models(g Gate) {
	served := g.Target.Local.Models
	if len(served) == 0 {
		return
	}
	asked := func(path, model string) {
		if _, has := served[model]; model != "" && !has {
			c.add(path+".model", "found %s; %s", quoted(model), oneOf(model, slices.Sorted(maps.Keys(served))))
		}
	}
	for i, s := range g.Scenarios {
		path := fmt.Sprintf("scenarios[%d]", i)
		for j, f := range s.Faults {
			if f.Kind == "bad-release" && f.Release != ReleaseBadConfig {
				c.add(fmt.Sprintf("%s.faults[%d].release", path, j), "found a bad version of a model beside target.local.models, expected one model: which of them it stands for is not known")
			}
		}
		asked(path+".workload", s.Workload.Model)
		for j, class := range s.Classes {
			asked(fmt.Sprintf("%s.classes[%d].workload", path, j), class.Workload.Model)
		}
	}
}

var (
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	apiPath      = regexp.MustCompile(`/(chat/completions|completions|responses)/*$`)
	headerName   = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
)

// endpoint never repeats what it finds where a key could have been pasted:
// errors end up in the logs of CI jobs.
// stop checks the conditions under which a run ends, and that the target is
// where it may be.
func (c *checker) stop(g Gate) {
	if g.Stop == nil {
		return
	}
	if g.Stop.Errors == 0 && len(g.Stop.Hosts) == 0 && !g.Stop.WhenFailed {
		c.add("stop", "found neither errors nor hosts nor when_failed, expected what may not happen, such as errors: 50%%, or when_failed: true")
	}
	if g.Stop.Errors < 0 || g.Stop.Errors >= 1 {
		c.add("stop.errors", "found %v, expected a share below 100%%: more than all cannot fail", g.Stop.Errors)
	}
	if g.Stop.Errors != 0 {
		c.lasts("stop.within", g.Stop.Within, Duration(time.Second), maxTimeout)
		c.between("stop.requests", g.Stop.Requests, 1, maxStopRequests)
	}
	host := "127.0.0.1"
	if e := g.Target.Endpoint; e != nil {
		u, err := url.Parse(e.URL)
		if err != nil {
			return // said of the target
		}
		host = u.Hostname()
	}
	if k := g.Target.Kubernetes; k != nil {
		host = k.Host()
	}
	if len(g.Stop.Hosts) > 0 && !slices.Contains(g.Stop.Hosts, host) {
		c.add("stop.hosts", "the target is on %s, and this gate may only be played against %s", quoted(host), strings.Join(g.Stop.Hosts, ", "))
	}
}

func (c *checker) endpoint(e Endpoint) {
	u, err := url.Parse(e.URL)
	switch {
	case err != nil && strings.Contains(e.URL, "@"):
		c.add("target.endpoint.url", "found what is no URL, expected one such as http://127.0.0.1:8000")
	case err != nil || u.Host == "" || !slices.Contains([]string{"http", "https", "grpc", "grpcs"}, u.Scheme):
		c.add("target.endpoint.url", "found %s, expected a URL such as http://127.0.0.1:8000", quoted(e.URL))
	case u.User != nil:
		c.add("target.endpoint.url", "found a user or password in the URL, expected none; name the variable that holds the key in api_key_env")
	case u.Fragment != "":
		c.add("target.endpoint.url", "found a fragment (#…) in the URL, expected none, as in http://127.0.0.1:8000")
	case apiPath.MatchString(u.Path):
		c.add("target.endpoint.url", "found the path of an API at its end, expected the URL without it, as in http://127.0.0.1:8000/v1: api in a workload says which it is")
	default:
		query := map[string]string{}
		for name, values := range u.Query() {
			query[name] = values[len(values)-1]
		}
		c.values("target.endpoint.url", "parameter", query, func(name string) bool { return name != "" }, "a name")
	}
	c.values("target.endpoint.query", "parameter", e.Query, func(name string) bool { return name != "" }, "a name")
	c.fields("target.endpoint.fields", e.Fields, "")
	if e.ReadyTimeout != 0 {
		c.lasts("target.endpoint.ready_timeout", e.ReadyTimeout, 1, maxTimeout)
	}
	if e.APIKeyEnv != "" && !variableName.MatchString(e.APIKeyEnv) {
		c.add("target.endpoint.api_key_env", "expected the name of an environment variable, such as OPENAI_API_KEY, and not the key itself")
	}
	c.length("target.endpoint.model", e.Model, maxText)
	if at, err := url.Parse(e.GPUMetrics); e.GPUMetrics != "" && (err != nil || at.Host == "" || at.User != nil || at.Scheme != "http" && at.Scheme != "https") {
		c.add("target.endpoint.gpu_metrics", "found what is no URL of an exporter, expected one such as http://gpu-host:9400/metrics, without a user and password")
	}
	c.length("target.endpoint.ca_file", e.CAFile, maxText)
	c.length("target.endpoint.tokenizer", e.Tokenizer, maxText)
	c.length("target.endpoint.cert_file", e.CertFile, maxText)
	c.length("target.endpoint.key_file", e.KeyFile, maxText)
	switch {
	case strings.Contains(e.KeyFile, "-----BEGIN"):
		c.add("target.endpoint.key_file", "expected the path of a PEM file, and not the key itself")
	case e.CertFile != "" && e.KeyFile == "":
		c.add("target.endpoint.cert_file", "found it without key_file, expected both: a client proves with the private key that the certificate is its own")
	case e.KeyFile != "" && e.CertFile == "":
		c.add("target.endpoint.key_file", "found it without cert_file, expected both: the service is shown the certificate of this key")
	}
	if e.HTTP != "" {
		c.word("target.endpoint.http", e.HTTP, "1.1", "2")
	}
	c.values("target.endpoint.headers", "header", e.Headers, headerName.MatchString, "letters, digits and -")
}

func (c *checker) scenario(path string, s Scenario) {
	c.length(path+".description", s.Description, maxText)
	c.workload(path+".workload", s.Workload)
	c.classes(path+".classes", s)
	c.vary(path+".vary", s)
	if len(s.Stages) == 0 {
		c.add(path+".stages", "found none, expected at least one stage of load")
	}
	names := make(map[string]int)
	for i, stage := range s.Stages {
		path := fmt.Sprintf("%s.stages[%d]", path, i)
		c.unique(names, path+".name", stage.Name, i)
		c.stage(path, stage)
		if stage.Extend != 0 && i < len(s.Stages)-1 {
			c.add(path+".extend", "found it for a stage that others come after, expected it for the last: when the others begin is known before the run")
		}
		if i := slices.IndexFunc(s.Mix(), func(m Part) bool { return m.Workload.Turns > 1 }); i >= 0 && stage.OpenLoop() {
			c.add(path+".name", "found a rate or a trace, expected users: a workload with %d turns is of conversations, and each question waits for the answer before it", s.Mix()[i].Workload.Turns)
		}
	}
	if n := s.offered(); n > maxRequests {
		c.add(path+".stages", "found load of %.0f requests, expected at most %d in a scenario", n, maxRequests)
	}
	for i, f := range s.Faults {
		c.fault(fmt.Sprintf("%s.faults[%d]", path, i), i == 0, f, s.Duration())
	}
	if s.Canary != nil {
		c.lasts(path+".canary.every", s.Canary.Every, minProbe, maxProbe)
		c.between(path+".canary.max_tokens", s.Canary.MaxTokens, 1, maxTokens)
	}
	if s.Twins != nil {
		c.lasts(path+".twins.every", s.Twins.Every, minProbe, maxProbe)
		c.between(path+".twins.max_tokens", s.Twins.MaxTokens, 1, maxTokens)
		c.lasts(path+".twins.for", s.Twins.For, Duration(time.Second), maxProbe)
		if s.Mix()[0].Workload.API == APIGRPC {
			c.add(path+".twins", "found it with api: grpc, expected an API over HTTP: an answer of gRPC cannot be asked for whole")
		}
	}
	if s.Durability != nil {
		c.durability(path+".durability", *s.Durability)
	}
	if s.Probe != nil {
		c.probe(path+".probe", *s.Probe, len(s.Faults) > 0)
	}
}

func (c *checker) workload(path string, w Workload) {
	c.word(path+".api", w.API, APIChat, APICompletions, APIResponses, APIGRPC)
	c.length(path+".model", w.Model, maxText)
	if w.APIKeyEnv != "" && !variableName.MatchString(w.APIKeyEnv) {
		c.add(path+".api_key_env", "expected the name of an environment variable, such as TENANT_KEY, and not the key itself")
	}
	c.connection(path+".connection", w)
	c.fields(path+".fields", w.Fields, w.API)
	for i, prompt := range w.Prompts {
		path := fmt.Sprintf("%s.prompts[%d]", path, i)
		if strings.TrimSpace(prompt) == "" {
			c.add(path, "found an empty prompt, expected a text")
		}
		c.length(path, prompt, maxPrompt)
	}
	c.length(path+".dataset", w.Dataset, maxText)
	if sources := w.sources(); len(sources) > 1 {
		c.add(path, "found %s, expected one of them", strings.Join(sources, " and "))
	}
	if w.Synthetic != nil {
		c.synthetic(path+".synthetic", *w.Synthetic)
	}
	c.length(path+".system", w.System, maxPrompt)
	if w.System != "" && w.API == APICompletions {
		c.add(path+".system", "found a system prompt, expected none: api completions has no roles")
	}
	c.between(path+".turns", w.Turns, 1, maxTurns)
	if w.Turns > 1 && w.API == APICompletions {
		c.add(path+".turns", "found %d, expected 1: api completions has no conversations", w.Turns)
	}
	if w.MaxTokens.Max() > maxTokens && w.MaxTokens.Max() != maxLength || w.MaxTokens.IsZero() {
		c.add(path+".max_tokens", "found %s, expected a number from 1 to %d", w.MaxTokens, maxTokens)
	}
	if w.Answer != 0 {
		c.lasts(path+".answer", w.Answer, Duration(time.Millisecond), maxTimeout)
		if !w.MaxTokens.IsZero() && w.MaxTokens.String() != Fixed(DefaultMaxTokens).String() {
			c.add(path+".answer", "found %v beside max_tokens %s, expected one of them: the number of tokens follows from how long an answer shall last", w.Answer, w.MaxTokens)
		}
		if w.Timeout > 0 && w.Answer >= w.Timeout {
			c.add(path+".answer", "found %v, expected less than the timeout, %v", w.Answer, w.Timeout)
		}
	}
	switch {
	case w.InFlight != 0 && (strings.Contains(path, ".classes[") || strings.Contains(path, ".vary[")):
		c.add(path+".in_flight", "found %d, expected it in the workload of the scenario or in a stage: classes and factors share the load of their scenario", w.InFlight)
	case w.InFlight != 0:
		c.between(path+".in_flight", w.InFlight, 1, maxUsers)
	}
	for i, reason := range w.Finish {
		path := fmt.Sprintf("%s.finish[%d]", path, i)
		if strings.TrimSpace(reason) == "" {
			c.add(path, "found an empty finish reason, expected a word such as stop, length or tool_calls")
		}
		c.length(path, reason, maxText)
	}
	if t := w.Temperature; t != nil && !(*t >= 0 && *t <= 2) {
		c.add(path+".temperature", "found %v, expected a number from 0 to 2", *t)
	}
	c.lasts(path+".timeout", w.Timeout, 1, maxTimeout)
}

func (c *checker) connection(path string, w Workload) {
	if from := w.Connection.From; from != "" {
		if a, err := netip.ParseAddr(from); err != nil || a.IsUnspecified() || a.Zone() != "" {
			c.add(path+".from", "found %s, expected an address of this host, such as 127.0.0.2", quoted(from))
		}
	}
	if w.Connection.HTTP != "" {
		c.word(path+".http", w.Connection.HTTP, "1.1", "2")
		if w.API == APIGRPC {
			c.add(path+".http", "found it beside api: grpc, which is always of HTTP/2; leave it out")
		}
	}
}

// sources are what a workload makes its prompts of.
func (w Workload) sources() (given []string) {
	if len(w.Prompts) > 0 {
		given = append(given, "prompts")
	}
	if w.Dataset != "" {
		given = append(given, "dataset")
	}
	if w.Synthetic != nil {
		given = append(given, "synthetic")
	}
	return given
}

func (c *checker) synthetic(path string, s Synthetic) {
	if s.Tokens.IsZero() {
		c.add(path+".tokens", "found nothing, expected %s", lengthsExample)
	}
	c.between(path+".prefixes", s.Prefixes, 0, maxPrefixes)
	c.between(path+".prefix_tokens", s.PrefixTokens, 0, maxLength)
	switch {
	case s.Prefixes > 0 && s.PrefixTokens == 0:
		c.add(path+".prefixes", "found %d groups, expected prefix_tokens to say what they have in common", s.Prefixes)
	case s.PrefixTokens > 0 && s.Prefixes == 0:
		c.add(path+".prefix_tokens", "found %d tokens, expected prefixes to say how many groups have them", s.PrefixTokens)
	case s.PrefixTokens > s.Tokens.Max() && !s.Tokens.IsZero():
		c.add(path+".prefix_tokens", "found %d, expected at most the %d tokens of a prompt", s.PrefixTokens, s.Tokens.Max())
	}
}

func (c *checker) classes(path string, s Scenario) {
	if len(s.Classes) > maxClasses {
		c.add(path, "found %d, expected at most %d", len(s.Classes), maxClasses)
	}
	names := make(map[string]int)
	for i, class := range s.Classes {
		path := fmt.Sprintf("%s[%d]", path, i)
		c.unique(names, path+".name", class.Name, i)
		if w := class.Weight; !(w > 0 && w <= 1e6) {
			c.add(path+".weight", "found %v, expected a number above 0", w)
		}
		c.workload(path+".workload", class.Workload)
	}
}

// vary checks the factors and their combinations.
func (c *checker) vary(path string, s Scenario) {
	combinations := max(len(s.Classes), 1)
	var base checker
	base.workload("", s.Workload)
	names := make(map[string]int)
	for i, f := range s.Vary {
		path := fmt.Sprintf("%s[%d]", path, i)
		c.unique(names, path+".name", f.Name, i)
		if len(f.Values) < 2 {
			c.add(path+".values", "found %d, expected at least two values to draw from", len(f.Values))
		}
		if combinations *= max(len(f.Values), 1); combinations > maxCombinations {
			c.add(path, "found more than %d combinations of classes and values, expected fewer: each would have too few requests", maxCombinations)
			return
		}
		values := make(map[string]int)
		for j, v := range f.Values {
			path := fmt.Sprintf("%s.values[%d]", path, j)
			c.unique(values, path+".name", v.Name, j)
			if w := v.Weight; !(w > 0 && w <= 1e6) {
				c.add(path+".weight", "found %v, expected a number above 0", w)
			}
			if len(base.problems) == 0 { // otherwise they would be said of each value again
				c.workload(path+".workload", v.Workload.over(s.Workload))
			}
		}
	}
}

func (c *checker) stage(path string, s Stage) {
	c.lasts(path+".for", s.For, 1, maxStage)
	var kinds []string
	if s.Rate != 0 || s.To != nil {
		kinds = append(kinds, "rate")
	}
	if s.Trace != nil {
		kinds = append(kinds, "trace")
	}
	if s.Users != 0 {
		kinds = append(kinds, "users")
	}
	if s.InFlight != 0 {
		kinds = append(kinds, "in_flight")
	}
	switch {
	case len(kinds) > 1:
		c.add(path, "found %s, expected one of them", strings.Join(kinds, " and "))
	case s.Trace != nil:
		c.trace(path+".trace", *s.Trace)
	case s.Users != 0:
		c.between(path+".users", s.Users, 1, maxUsers)
	case s.InFlight != 0:
		c.between(path+".in_flight", s.InFlight, 1, maxUsers)
		c.arrivals(path, s)
	default:
		c.rates(path, s)
	}
	if s.Think != 0 {
		c.lasts(path+".think", s.Think, 1, maxTimeout)
		if s.Users == 0 {
			c.add(path+".think", "found %v, expected users, who think: requests of a rate come by the clock", s.Think)
		}
	}
	if s.Extend != 0 {
		c.lasts(path+".extend", s.Extend, 1, maxStage)
		if len(kinds) != 1 || kinds[0] != "rate" || s.To != nil {
			c.add(path+".extend", "found %v, expected it beside a rate that stays the same: only that can go on as it was", time.Duration(s.Extend))
		}
	}
	if len(kinds) == 1 && kinds[0] == "in_flight" && s.Shape != "" {
		c.add(path+".shape", "found %s, expected it beside a rate only: in_flight stays the same", s.Shape)
	}
	if len(kinds) == 1 && kinds[0] != "rate" && kinds[0] != "in_flight" && (s.Arrivals != "" || s.Burstiness != 0 || s.Shape != "") {
		c.add(path, "found arrivals, burstiness or shape, expected them beside a rate only")
	}
}

func (c *checker) trace(path string, t Trace) {
	if t.File == "" {
		c.add(path+".file", "found nothing, expected a file in the format of Azure's LLM traces, BurstGPT or Mooncake")
	}
	c.length(path+".file", t.File, maxText)
	if t.Unit != "" {
		c.word(path+".unit", t.Unit, TraceUnits...)
	}
	if !(t.Speed >= 1e-3 && t.Speed <= maxSpeed) {
		c.add(path+".speed", "found %v, expected a number from 0.001 to %d", t.Speed, maxSpeed)
	}
}

func (c *checker) rates(path string, s Stage) {
	c.arrivals(path, s)
	if s.To == nil {
		c.rate(path+".rate", s.Rate, false)
	} else {
		// A ramp may start or end at rest, but it goes somewhere.
		c.rate(path+".rate", s.Rate, true)
		c.rate(path+".to", *s.To, true)
		if s.Rate == *s.To {
			c.add(path+".to", "found %v, the rate the stage begins with, expected another one to go to, or none", *s.To)
		}
	}
	c.shape(path, s)
}

func (c *checker) arrivals(path string, s Stage) {
	c.word(path+".arrivals", s.Arrivals, ArrivalsEven, ArrivalsPoisson, ArrivalsGamma)
	switch {
	case s.Arrivals == ArrivalsGamma && !(s.Burstiness >= 0.01 && s.Burstiness <= maxBurstiness):
		c.add(path+".burstiness", "found %v, expected a number from 0.01 to %d: 1 is poisson, less comes in bursts", s.Burstiness, maxBurstiness)
	case s.Arrivals != ArrivalsGamma && s.Burstiness != 0:
		c.add(path+".burstiness", "found %v, expected it with arrivals gamma only", s.Burstiness)
	}
}

func (c *checker) shape(path string, s Stage) {
	if s.To == nil && s.Shape != "" {
		c.add(path+".shape", "found %s, expected to beside it, the rate to go to", s.Shape)
		return
	}
	if s.Shape != "" || s.To != nil {
		c.word(path+".shape", s.Shape, ShapeLinear, ShapeSteps, ShapeSpike, ShapeSine)
	}
	for _, p := range []struct {
		key, shape string
		given      bool
		check      func(path string)
	}{
		{"steps", ShapeSteps, s.Steps != 0, func(at string) { c.between(at, s.Steps, 2, maxSteps) }},
		{"peak", ShapeSpike, s.Peak != 0, func(at string) { c.lasts(at, s.Peak, 1, max(s.For, 1)) }},
		{"period", ShapeSine, s.Period != 0, func(at string) { c.lasts(at, s.Period, Duration(time.Millisecond), maxStage) }},
	} {
		switch at := path + "." + p.key; {
		case s.Shape == p.shape && !p.given:
			c.add(at, "missing key %q, which shape %s needs", p.key, p.shape)
		case s.Shape != p.shape && p.given:
			c.add(at, "found it without shape: %s, expected it there only", p.shape)
		case p.given:
			p.check(at)
		}
	}
}

func (c *checker) rate(path string, r Rate, ramp bool) {
	switch f := float64(r); {
	case math.IsNaN(f) || f < 0 || f == 0 && !ramp:
		c.add(path, "found %v, expected a rate above 0, such as 8/s", r)
	case f > maxRate:
		c.add(path, "found %v, expected at most %d/s, more than one client can send", r, maxRate)
	}
}

func (c *checker) probe(path string, p Probe, measuresRTO bool) {
	most := maxProbe
	if measuresRTO {
		most = maxProbeOfFault
	}
	c.lasts(path+".every", p.Every, minProbe, most)
	c.between(path+".consecutive", p.Consecutive, 1, maxConsecutive)
	c.between(path+".max_tokens", p.MaxTokens, 1, maxTokens)
	c.lasts(path+".timeout", p.Timeout, 1, maxTimeout)
}

func (c *checker) durability(path string, d Durability) {
	c.lasts(path+".every", d.Every, minProbe, maxProbe)
	c.between(path+".max_tokens", d.MaxTokens, 1, maxTokens)
	c.lasts(path+".timeout", d.Timeout, 1, maxTimeout)
	c.lasts(path+".within", d.Within, 1, maxTimeout)
}

// objectives checks that each names what the gate has. A gate that promises
// nothing would pass whatever happens.
func (c *checker) objectives(g Gate) {
	if len(g.Objectives) == 0 {
		c.add("objectives", "found none, expected at least one, such as error_rate <= 5%%")
	}
	seen := make(map[string]int)
	for i, o := range g.Objectives {
		path := fmt.Sprintf("objectives[%d]", i)
		if _, err := ParseObjective(o.String()); err != nil {
			c.add(path, "%v", err)
			continue
		}
		if first, doubled := seen[o.String()]; doubled {
			c.add(path, "found %s a second time (first as number %d), expected it once", quoted(o.String()), first+1)
		}
		seen[o.String()] = i
		o.Scenario = g.scenarioOf(o)
		c.scope(path, o, g.Scenarios)
		if o.Than != (Than{}) {
			c.scope(path, o.Reference(), g.Scenarios)
		}
	}
}

func (c *checker) scope(path string, o Objective, scenarios []Scenario) {
	if o.Scenario != "" {
		i := slices.IndexFunc(scenarios, func(s Scenario) bool { return s.Name == o.Scenario })
		if i < 0 {
			c.add(path, "unknown scenario %s; %s", quoted(o.Scenario), oneOf(o.Scenario, namesOf(scenarios, scenarioName)))
			return
		}
		scenarios = scenarios[i : i+1]
		stages := namesOf(scenarios[0].Stages, stageName)
		if o.Stage != "" && !slices.Contains(stages, o.Stage) {
			c.add(path, "unknown stage %s of %s; %s", quoted(o.Stage), o.Scenario, oneOf(o.Stage, stages))
		}
	}
	c.class(path, o, scenarios)
	c.evidence(path, o, scenarios)
	c.arrivalRate(path, o, scenarios)
	if m, _ := MetricOf(o.Metric); m.Arg == FaultArg {
		c.injected(path, o.Arg, o, scenarios)
		if kind, known := FaultKindOf(o.Arg); m.OfGPUs && known && !kind.Device {
			c.add(path, "%s is of a fault that strikes one GPU, expected %s or %s, not %s", o.Metric, GPUOOM.Name, GPUThrottle.Name, o.Arg)
		}
	}
	if o.During != "" {
		c.injected(path, o.During, o, scenarios)
	}
	if o.Outside && !slices.ContainsFunc(scenarios, func(s Scenario) bool { return len(s.Faults) > 0 }) {
		c.add(path, "nothing is broken there, so all of it is outside faults; leave that out")
	}
	if m, _ := MetricOf(o.Metric); (o.Outside || o.During != "") && m.PerChunk && c.kept != "" && c.kept != ChunksAll {
		c.add(path, "found chunks: %s, which leaves it open what the gaps were when; expected chunks: all", c.kept)
	}
}

// class checks that a scenario the objective is about has its class.
func (c *checker) class(path string, o Objective, scenarios []Scenario) {
	var names []string
	for _, s := range scenarios {
		for _, class := range s.Classes {
			if !slices.Contains(names, class.Name) {
				names = append(names, class.Name)
			}
		}
	}
	if o.Class != "" && !slices.Contains(names, o.Class) {
		c.add(path, "unknown class %s; %s", quoted(o.Class), oneOf(o.Class, names))
	}
}

// evidence checks that a scenario the objective is about brings what it is
// judged by.
func (c *checker) evidence(path string, o Objective, scenarios []Scenario) {
	has := func(with func(Scenario) bool) bool { return slices.ContainsFunc(scenarios, with) }
	switch m, _ := MetricOf(o.Metric); m.Needs {
	case NeedsCanaries:
		if !has(func(s Scenario) bool { return s.Canary != nil }) {
			c.add(path, "%s is seen by canaries, expected canary: {} in the scenario", o.Metric)
		}
	case NeedsTwins:
		if !has(func(s Scenario) bool { return s.Twins != nil }) {
			c.add(path, "%s compares answers to the same question, expected twins: {} in the scenario", o.Metric)
		}
	case NeedsMarks:
		if !has(func(s Scenario) bool {
			return s.Workload.Marks || slices.ContainsFunc(s.Mix(), func(m Part) bool { return m.Workload.Marks })
		}) {
			c.add(path, "%s needs prompts that can be distinguished, expected marks: true in the workload", o.Metric)
		}
	case NeedsRecords:
		concerned := func(s Scenario) bool {
			return o.Arg == "" || slices.ContainsFunc(s.Faults, func(f Fault) bool { return f.Kind == o.Arg })
		}
		if has(concerned) && !has(func(s Scenario) bool { return concerned(s) && s.Durability != nil }) {
			c.add(path, "%s is of records that were acknowledged, expected durability: {} in the scenario", o.Metric)
		}
	case NeedsPrice:
		if !c.priced {
			c.add(path, "%s needs a price, expected cost: {book: prices.yaml, instance: NAME} in the gate", o.Metric)
		}
	case NeedsLengths:
		if !has(func(s Scenario) bool {
			return s.Workload.IgnoreEOS || slices.ContainsFunc(s.Mix(), func(m Part) bool { return m.Workload.IgnoreEOS })
		}) {
			c.add(path, "%s needs answers whose length is known, expected ignore_eos: true in the workload", o.Metric)
		}
	}
}

// arrivalRate refuses promises about a rate where the service sets its own
// pace: users who wait for a slow service ask it less.
func (c *checker) arrivalRate(path string, o Objective, scenarios []Scenario) {
	if m, _ := MetricOf(o.Metric); !m.OpenLoop {
		return
	}
	for _, s := range scenarios {
		for _, stage := range s.Stages {
			if !stage.OpenLoop() && (o.Stage == "" || o.Stage == stage.Name) {
				c.add(path, "%s is of a rate of arrivals, and %s/%s is closed-loop: its users wait for answers, so a slow service is asked less; promise latencies or output_tokens_per_second there", o.Metric, s.Name, stage.Name)
				return
			}
		}
	}
}

func (c *checker) chunks(s string) {
	if s == ChunksAll || s == ChunksNone {
		return
	}
	if _, err := chunkShare(s); err != nil {
		c.add("chunks", "%v", err)
	}
}

// chunkShare reads 1/N.
func chunkShare(s string) (int, error) {
	digits, ok := strings.CutPrefix(s, "1/")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || n < 1 || n > 1_000_000 || digits != strconv.Itoa(n) {
		return 0, fmt.Errorf("found %s, expected all, none, or a share such as 1/100", quoted(s))
	}
	return n, nil
}

// KeepChunks reports whether the chunk times of a request are kept.
func (g Gate) KeepChunks(seq int64) bool {
	switch g.Chunks {
	case ChunksAll, "":
		return true
	case ChunksNone:
		return false
	}
	n, err := chunkShare(g.Chunks)
	return err == nil && seq%int64(n) == 0
}

// injected checks that a scenario the objective is about injects its fault.
func (c *checker) injected(path, kind string, o Objective, scenarios []Scenario) {
	var kinds []string
	for _, s := range scenarios {
		for _, f := range s.Faults {
			if !slices.Contains(kinds, f.Kind) && slices.Contains(FaultKinds, f.Kind) {
				kinds = append(kinds, f.Kind)
			}
		}
	}
	if slices.Contains(kinds, kind) {
		return
	}
	who := "no scenario injects"
	if o.Scenario != "" {
		who = o.Scenario + " does not inject"
	}
	if len(kinds) == 0 {
		c.add(path, "%s %s, expected it among the faults of a scenario", who, kind)
		return
	}
	c.add(path, "%s %s; %s", who, kind, oneOf(kind, kinds))
}

func scenarioName(s Scenario) string { return s.Name }
func stageName(s Stage) string       { return s.Name }

func namesOf[T any](items []T, name func(T) string) []string {
	names := make([]string, len(items))
	for i, item := range items {
		names[i] = name(item)
	}
	return names
}
