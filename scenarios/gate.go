// Package scenarios holds the declared nouns of a launch gate: what is
// deployed, how it is loaded, what is broken on purpose and what must hold.
// Everything here is plain data, read from YAML and known before the run; who
// acts on it (loadgen, chaos, deploy) and who judges it (checklist) import it,
// and it imports nothing of ours.
package scenarios

import (
	"slices"
	"time"
)

// Gate is one launch question: a target, what is done to it, and what must be
// true afterwards for the service to launch.
type Gate struct {
	// Name of the gate, for the report and the run folder.
	Name string `yaml:"name" json:"name"`
	// Description says what the gate is for.
	Description string `yaml:"description,omitempty" json:"description,omitempty"`
	// Seed draws arrivals, prompts and victims; 0 lets the run draw one.
	Seed uint64 `yaml:"seed,omitempty" json:"seed,omitempty"`
	// Target may be left out of a file that is read by LoadAgainst.
	Target    Target     `yaml:"target,omitempty" json:"target"`
	Warmup    Warmup     `yaml:"warmup,omitempty" json:"warmup,omitempty"`
	Scenarios []Scenario `yaml:"scenarios,omitempty" json:"scenarios,omitempty"`
	// Profiles are ready sets of objectives, such as mlperf-llama-3.1-8b-server in
	// steady; launchgate list profiles tells what each holds.
	Profiles   []string    `yaml:"profiles,omitempty" json:"profiles,omitempty"`
	Objectives []Objective `yaml:"objectives,omitempty" json:"objectives,omitempty"`
	// Cost says what a replica runs on, for objectives about money.
	Cost *Cost `yaml:"cost,omitempty" json:"cost,omitempty"`
	// Chunks says of which requests the time of every chunk is kept: all, 1 in N
	// (such as 1/100), or none. Statistics of the gaps are kept of all.
	Chunks string `yaml:"chunks,omitempty" json:"chunks,omitempty"`
	// Confidence is how sure a promise has to be to pass: 99% where nothing is said.
	Confidence Share `yaml:"confidence,omitempty" json:"confidence,omitempty"`
	// Stop ends a run that harms more than it may.
	Stop *Stop `yaml:"stop,omitempty" json:"stop,omitempty"`
	// Scan looks for security flaws when the scenarios are over.
	Scan *Scan `yaml:"scan,omitempty" json:"scan,omitempty"`
}

// Stop are the conditions under which a run is not begun, or ended at once:
// what it breaks is real.
type Stop struct {
	// Hosts that the target may be on; without any, it may be on each.
	Hosts []string `yaml:"hosts,omitempty" json:"hosts,omitempty"`
	// Errors is the share of load requests that may fail in a while.
	Errors Share `yaml:"errors,omitempty" json:"errors,omitempty"`
	// Within is how long that while is.
	Within Duration `yaml:"within,omitempty" json:"within,omitempty"`
	// Requests is how many have to have ended in it.
	Requests int `yaml:"requests,omitempty" json:"requests,omitempty"`
}

// Target is the service under test: exactly one of its fields is set.
type Target struct {
	// Local is the bundled service, deployed on loopback for the run.
	Local *Local `yaml:"local,omitempty" json:"local,omitempty"`
	// Endpoint is an OpenAI-compatible service that is already there.
	Endpoint *Endpoint `yaml:"endpoint,omitempty" json:"endpoint,omitempty"`
}

// Local deploys replicas of the bundled reference-server behind its gateway.
type Local struct {
	// Replicas is how many processes serve behind the gateway.
	Replicas int `yaml:"replicas,omitempty" json:"replicas,omitempty"`
	// Model is a GGUF file or Hugging Face folder; empty means the model the
	// server carries.
	Model string `yaml:"model,omitempty" json:"model,omitempty"`
	// Models are several, by the names that workloads ask for them by: each
	// replica serves them all, on one device. They stand in place of model.
	Models map[string]Model `yaml:"models,omitempty" json:"models,omitempty"`
	// Nodes are the simulated machines the replicas are spread over, one after
	// the other; node-loss takes one with all on it. 0: a node for each.
	Nodes int `yaml:"nodes,omitempty" json:"nodes,omitempty"`
	// Threads per replica; 0 lets the deployment share the cores out.
	Threads int `yaml:"threads,omitempty" json:"threads,omitempty"`
	// KVCache is the memory of each replica's KV cache; 0: the server's default.
	KVCache Size `yaml:"kv_cache,omitempty" json:"kv_cache,omitempty"`
	// Port of the gateway; 0 takes a free one.
	Port int `yaml:"port,omitempty" json:"port,omitempty"`
	// ReadyTimeout bounds the wait for every replica's /ready.
	ReadyTimeout Duration `yaml:"ready_timeout,omitempty" json:"ready_timeout,omitempty"`
	// Gateway is the front door: TLS, API keys, limits, an audit log and a ledger.
	Gateway Gateway `yaml:"gateway,omitempty" json:"gateway,omitzero"`
	// Monitoring is a Prometheus that watches the deployment, where that program
	// is on the PATH; its alerts are in the recording.
	Monitoring Monitoring `yaml:"monitoring,omitempty" json:"monitoring,omitzero"`
}

// Model is one of several that a replica serves.
type Model struct {
	// Path of a GGUF file or Hugging Face folder; empty means the model the server
	// carries.
	Path string `yaml:"path,omitempty" json:"path,omitempty"`
	// Quantization is how its weights are kept: none, fp16 or int8; empty: int8.
	Quantization string `yaml:"quantization,omitempty" json:"quantization,omitempty"`
}

// Monitoring is a Prometheus with the rules of deploy/monitoring.
type Monitoring struct {
	// Disabled has nobody watch.
	Disabled bool `yaml:"disabled,omitempty" json:"disabled,omitempty"`
	// Shorten makes every window of the rules this many times shorter, for a
	// drill: at 60, what takes five minutes in production takes five seconds.
	Shorten int `yaml:"shorten,omitempty" json:"shorten,omitempty"`
}

// Gateway is the front door of the bundled service with everything it has. The
// run gets a key of its own, with an allowance that fits its load.
type Gateway struct {
	// Plain has the gateway only balance, in clear: no TLS, keys, limits or ledger.
	Plain bool `yaml:"plain,omitempty" json:"plain,omitempty"`
	// Config is a file of limits, as deploy/gateway.yaml has them; without one
	// the guide's hold.
	Config string `yaml:"config,omitempty" json:"config,omitempty"`
	// Unreplicated leaves the ledger without a second place: a disk that is lost
	// takes all that was acknowledged with it.
	Unreplicated bool `yaml:"unreplicated,omitempty" json:"unreplicated,omitempty"`
	// Keys say what the API keys are, by the environment variables (a workload's
	// api_key_env) that they are put into. One that is not here is of the class
	// standard, with the allowance of the run.
	Keys map[string]Key `yaml:"keys,omitempty" json:"keys,omitempty"`
}

// Key is an API key of the gateway, of a tenant of its own.
type Key struct {
	// Class is how important its requests are: batch, standard or interactive, or
	// what config has in their place; the first gives way first.
	Class string `yaml:"class,omitempty" json:"class,omitempty"`
	// Limited holds it to the gateway's limits, as anybody else's; without it, it
	// may send what the load plans.
	Limited bool `yaml:"limited,omitempty" json:"limited,omitempty"`
}

// Endpoint is a service launchgate did not deploy and cannot break.
type Endpoint struct {
	// URL of the service, as its clients are given it: a path in it is taken as it
	// is (https://host/v1beta/openai); without one, /v1 is put behind it.
	URL string `yaml:"url" json:"url"`
	// Model to ask for; empty asks for the first the service lists.
	Model string `yaml:"model,omitempty" json:"model,omitempty"`
	// APIKeyEnv names the environment variable that holds the key, so that no
	// key is ever written into a gate or a run folder.
	APIKeyEnv string `yaml:"api_key_env,omitempty" json:"api_key_env,omitempty"`
	// Headers are sent with every request; ${NAME} stands for what an environment
	// variable holds, which is never printed or recorded.
	Headers map[string]string `yaml:"headers,omitempty" json:"headers,omitempty"`
	// Query are the parameters of every request's URL, with ${NAME} as in headers.
	Query map[string]string `yaml:"query,omitempty" json:"query,omitempty"`
	// Fields are put into the JSON of every request, as those of a workload are.
	Fields map[string]Field `yaml:"fields,omitempty" json:"fields,omitempty"`
	// ReadyTimeout is how long the service may take until it serves, from the first
	// question on.
	ReadyTimeout Duration `yaml:"ready_timeout,omitempty" json:"ready_timeout,omitempty"`
	// CAFile holds the certificate of the authority that signed the service's.
	CAFile string `yaml:"ca_file,omitempty" json:"ca_file,omitempty"`
	// HTTP is the version spoken: 1.1 or 2; empty is what is negotiated.
	HTTP string `yaml:"http,omitempty" json:"http,omitempty"`
	// NewConnections gives every request a connection of its own.
	NewConnections bool `yaml:"new_connections,omitempty" json:"new_connections,omitempty"`
}

// Warmup is sent before the first scenario and never judged.
type Warmup struct {
	// Requests is how many.
	Requests int `yaml:"requests,omitempty" json:"requests,omitempty"`
}

// Scenario is one act of the run: stages of load one after the other, with
// faults and probes beside them.
type Scenario struct {
	// Name of the scenario, for objectives to refer to.
	Name string `yaml:"name" json:"name"`
	// Description says what the scenario is about.
	Description string   `yaml:"description,omitempty" json:"description,omitempty"`
	Workload    Workload `yaml:"workload,omitempty" json:"workload,omitempty"`
	// Classes share the load out by weight, each with what differs from the
	// scenario's workload; objectives can be of one class.
	Classes []Class `yaml:"classes,omitempty" json:"classes,omitempty"`
	// Vary has each request draw one value of every factor, independently of the
	// others, so that lateness can be laid to one of them (late_for_some).
	Vary   []Factor `yaml:"vary,omitempty" json:"vary,omitempty"`
	Stages []Stage  `yaml:"stages" json:"stages"`
	Faults []Fault  `yaml:"faults,omitempty" json:"faults,omitempty"`
	// Probe watches the service beside the load; a scenario with faults has one
	// even where none is declared, because RTO is measured with it.
	Probe *Probe `yaml:"probe,omitempty" json:"probe,omitempty"`
	// Canary asks the same few questions again and again beside the load, to see
	// whether their answers stay what they were.
	Canary *Canary `yaml:"canary,omitempty" json:"canary,omitempty"`
	// Durability writes records beside the load and reads every one back at the
	// end, to see whether what the service acknowledged is still there.
	Durability *Durability `yaml:"durability,omitempty" json:"durability,omitempty"`
}

// Durability is a workload of background responses (POST /v1/responses). The id
// that one is acknowledged with is a record. At the end of the scenario, when its
// faults have run their course, each record is asked for again.
type Durability struct {
	// Every is the interval between two writes. What is lost shows to within one.
	Every Duration `yaml:"every,omitempty" json:"every,omitempty"`
	// MaxTokens of a record's answer.
	MaxTokens int `yaml:"max_tokens,omitempty" json:"max_tokens,omitempty"`
	// Timeout of a write; one that was not acknowledged by then is no record.
	Timeout Duration `yaml:"timeout,omitempty" json:"timeout,omitempty"`
	// Within is how long the final read waits for records that are not complete
	// yet, or cannot be read for the moment.
	Within Duration `yaml:"within,omitempty" json:"within,omitempty"`
	// Usage has every second record be what an answer used, for its bill: read back
	// from /v1/usage/{X-Request-Id}, as the bundled gateway has it.
	Usage bool `yaml:"usage,omitempty" json:"usage,omitempty"`
}

// Canary is a small question whose answer is known: what it was before, at
// temperature 0. It finds services that are quick and wrong.
type Canary struct {
	// Every is the interval between two of them.
	Every Duration `yaml:"every,omitempty" json:"every,omitempty"`
	// MaxTokens of an answer.
	MaxTokens int `yaml:"max_tokens,omitempty" json:"max_tokens,omitempty"`
}

// Class is a part of a scenario's load: a tenant, a model, a kind of request.
type Class struct {
	// Name of the class, for objectives to refer to.
	Name string `yaml:"name" json:"name"`
	// Weight is its share of the requests, against the sum of all weights.
	Weight float64 `yaml:"weight,omitempty" json:"weight,omitempty"`
	// Workload is what differs from the scenario's.
	Workload Workload `yaml:"workload,omitempty" json:"workload,omitempty"`
}

// Factor is something that differs between requests: who asks, over which
// connection, in which language.
type Factor struct {
	// Name of the factor.
	Name string `yaml:"name" json:"name"`
	// Values are those that are drawn from.
	Values []Value `yaml:"values" json:"values"`
}

// Value is one of those that a factor can have.
type Value struct {
	// Name of the value.
	Name string `yaml:"name" json:"name"`
	// Weight is its share of the requests, against the sum of all weights.
	Weight float64 `yaml:"weight,omitempty" json:"weight,omitempty"`
	// Workload is what differs from the scenario's or the class's.
	Workload Workload `yaml:"workload,omitempty" json:"workload,omitempty"`
}

// Workload says what each request asks.
type Workload struct {
	// API is chat (/v1/chat/completions), completions (/v1/completions),
	// responses (/v1/responses) or grpc (the bundled service's own).
	API string `yaml:"api,omitempty" json:"api,omitempty"`
	// Model to ask for; empty asks for the target's.
	Model string `yaml:"model,omitempty" json:"model,omitempty"`
	// APIKeyEnv names the environment variable that holds the key of the tenant
	// who asks; empty takes the target's.
	APIKeyEnv string `yaml:"api_key_env,omitempty" json:"api_key_env,omitempty"`
	// Connection is how its requests reach the service, where that differs from
	// how others do.
	Connection Connection `yaml:"connection,omitempty" json:"connection,omitzero"`
	// Stream asks for the answer token by token; without it, TTFT is not known.
	Stream *bool `yaml:"stream,omitempty" json:"stream,omitempty"`
	// Prompts are drawn from by the seed; empty takes forty short ones.
	Prompts []string `yaml:"prompts,omitempty" json:"prompts,omitempty"`
	// Dataset is a file of prompts or conversations, in JSON lines: of OpenAI's
	// messages, ShareGPT's conversations, or a prompt each.
	Dataset string `yaml:"dataset,omitempty" json:"dataset,omitempty"`
	// Synthetic makes prompts of a given length.
	Synthetic *Synthetic `yaml:"synthetic,omitempty" json:"synthetic,omitempty"`
	// System is the system prompt of every chat.
	System string `yaml:"system,omitempty" json:"system,omitempty"`
	// Turns is how many questions of a conversation are asked one after the
	// other, each with what was said before it; more than one needs users.
	Turns int `yaml:"turns,omitempty" json:"turns,omitempty"`
	// MaxTokens of an answer: a number, or drawn for each request, as in
	// lognormal(128, 64).
	MaxTokens Lengths `yaml:"max_tokens,omitempty" json:"max_tokens,omitzero"`
	// IgnoreEOS has answers go on to max_tokens, where the service can (vLLM,
	// SGLang, the bundled one), so that every run is the same work.
	IgnoreEOS bool `yaml:"ignore_eos,omitempty" json:"ignore_eos,omitempty"`
	// Finish names the finish reasons that an answer may have, as in
	// [stop, length]; another one is an error. Empty allows all with which a whole
	// answer ends: stop, length, tool_calls and function_call, or what other APIs
	// say in their place. A service's own word can be named too.
	Finish []string `yaml:"finish,omitempty" json:"finish,omitempty"`
	// Salt makes every prompt one of a kind at its end, so that a cache of whole
	// responses cannot flatter; a cache of prefixes still helps.
	Salt *bool `yaml:"salt,omitempty" json:"salt,omitempty"`
	// Fields are put into the JSON of each request: any value, null to leave a field
	// out, and ${max_tokens} and its like for what the field of that name would have
	// held, so that a field can be renamed.
	Fields map[string]Field `yaml:"fields,omitempty" json:"fields,omitempty"`
	// Temperature of the sampling; at 0 the same prompt is the same work.
	Temperature *float64 `yaml:"temperature,omitempty" json:"temperature,omitempty"`
	// Timeout is when the client gives a request up; it counts as an error.
	Timeout Duration `yaml:"timeout,omitempty" json:"timeout,omitempty"`
}

// Connection is how requests reach the service.
type Connection struct {
	// From is the address of this host that they come from, such as 127.0.0.2:
	// another client, to a service that tells them apart by their addresses.
	From string `yaml:"from,omitempty" json:"from,omitempty"`
	// HTTP is the version spoken: 1.1 or 2; empty is what is negotiated.
	HTTP string `yaml:"http,omitempty" json:"http,omitempty"`
	// New gives every request a connection of its own.
	New bool `yaml:"new,omitempty" json:"new,omitempty"`
}

// Synthetic prompts are drawn words, counted in tokens of the target: by its
// own tokenizer where it offers one, else by what its usage says.
type Synthetic struct {
	// Tokens of a prompt, with its prefix.
	Tokens Lengths `yaml:"tokens" json:"tokens"`
	// Prefixes is how many groups of requests there are that begin alike.
	Prefixes int `yaml:"prefixes,omitempty" json:"prefixes,omitempty"`
	// PrefixTokens is how many tokens the requests of a group have in common.
	PrefixTokens int `yaml:"prefix_tokens,omitempty" json:"prefix_tokens,omitempty"`
}

// Stage is a stretch of load. With a rate or a trace it is open-loop: requests
// become due by the clock, whether or not earlier ones were answered. With
// users it is closed-loop: each user waits for an answer before the next
// question, so that a slow service is asked less.
type Stage struct {
	// Name of the stage, for objectives to refer to.
	Name string `yaml:"name" json:"name"`
	// For is how long the stage lasts.
	For Duration `yaml:"for" json:"for"`
	// Extend is how much longer the last stage may go on, until its percentiles
	// can be decided.
	Extend Duration `yaml:"extend,omitempty" json:"extend,omitempty"`
	// Rate at which requests become due.
	Rate Rate `yaml:"rate,omitempty" json:"rate,omitempty"`
	// To is another rate that the stage goes to, in the way of its shape.
	To *Rate `yaml:"to,omitempty" json:"to,omitempty"`
	// Shape is how it goes from rate to to: linear, steps, spike (at once, in the
	// middle, and back) or sine (there and back, again and again).
	Shape string `yaml:"shape,omitempty" json:"shape,omitempty"`
	// Steps is in how many steps a staircase climbs, the first at rate.
	Steps int `yaml:"steps,omitempty" json:"steps,omitempty"`
	// Peak is how long a spike lasts.
	Peak Duration `yaml:"peak,omitempty" json:"peak,omitempty"`
	// Period is how long a wave of a sine is.
	Period Duration `yaml:"period,omitempty" json:"period,omitempty"`
	// Arrivals: constant (evenly spaced), poisson (independent users) or gamma
	// (as bursty as burstiness says).
	Arrivals string `yaml:"arrivals,omitempty" json:"arrivals,omitempty"`
	// Burstiness is the shape of gamma arrivals, as in vLLM's benchmark: 1 is
	// poisson, less comes in bursts, more is more even.
	Burstiness float64 `yaml:"burstiness,omitempty" json:"burstiness,omitempty"`
	// Trace is a recorded load that is played again.
	Trace *Trace `yaml:"trace,omitempty" json:"trace,omitempty"`
	// Users is how many ask at the same time, each waiting for its answer.
	Users int `yaml:"users,omitempty" json:"users,omitempty"`
	// Think is how long a user waits on average before the next question; the
	// waits are exponential.
	Think Duration `yaml:"think,omitempty" json:"think,omitempty"`
}

// Trace is a file of arrivals: when each request came, how long its prompt and
// its answer were, and which blocks of its prompt others had too.
type Trace struct {
	// File in the format of Azure's LLM traces, of BurstGPT (both CSV) or of
	// Mooncake (JSON lines).
	File string `yaml:"file" json:"file"`
	// Unit is that of times that are numbers: ns, us, ms or s. Without it the format
	// says it, or the trace is refused.
	Unit string `yaml:"unit,omitempty" json:"unit,omitempty"`
	// Speed plays it faster, or slower below 1.
	Speed float64 `yaml:"speed,omitempty" json:"speed,omitempty"`
}

// TraceUnits are the units that the times of a trace can be numbers of.
var TraceUnits = []string{"ns", "us", "ms", "s"}

// OpenLoop reports whether requests become due by the clock.
func (s Stage) OpenLoop() bool { return s.Users == 0 }

// Fault is something broken on purpose while a scenario's load runs.
type Fault struct {
	// Kind of fault; launchgate list tells what each one does.
	Kind string `yaml:"kind" json:"kind"`
	// Target selects the victim: a replica's name (replica-0, or a pod's name),
	// busiest or random (from the gate's seed).
	Target string `yaml:"target,omitempty" json:"target,omitempty"`
	// At is when it may be injected, from the start of the scenario, or from the
	// end of the fault it comes after.
	At Duration `yaml:"at" json:"at"`
	// Latest has the moment be drawn from the gate's seed: from at until then.
	Latest Duration `yaml:"latest,omitempty" json:"latest,omitempty"`
	// After is previous where the fault waits for the end of the one before it;
	// without it, faults go their ways side by side.
	After string `yaml:"after,omitempty" json:"after,omitempty"`
	// Repeat is how often the fault is played, each time like the first and at
	// after the end of the one before: one fault is one sample.
	Repeat int `yaml:"repeat,omitempty" json:"repeat,omitempty"`
	// MinStreams delays the injection until the victim has at least this many
	// streams in flight, so that a kill hits work and not an idle process.
	MinStreams int `yaml:"min_streams,omitempty" json:"min_streams,omitempty"`
	// For is how long the fault is held, from being seen in effect.
	For Duration `yaml:"for,omitempty" json:"for,omitempty"`
	// Within bounds each wait of the fault's life: for MinStreams, for being
	// seen in effect, and for being seen gone.
	Within Duration `yaml:"within,omitempty" json:"within,omitempty"`

	// Notice is how long before its end a victim is told of it.
	Notice Duration `yaml:"notice,omitempty" json:"notice,omitempty"`
	// Delay is what is added to every round trip.
	Delay Duration `yaml:"delay,omitempty" json:"delay,omitempty"`
	// Skew is what the victim's wall clock is off by.
	Skew Offset `yaml:"skew,omitempty" json:"skew,omitempty"`
	// Loss is the share of segments that are lost on their way, each way.
	Loss Share `yaml:"loss,omitempty" json:"loss,omitempty"`
	// Bandwidth is how many bytes a second get through, each way.
	Bandwidth Size `yaml:"bandwidth,omitempty" json:"bandwidth,omitempty"`
	// Cut is how a network is cut: silent (what is sent never arrives) or reset
	// (connections are broken and refused).
	Cut string `yaml:"cut,omitempty" json:"cut,omitempty"`
	// Disk is what becomes of a lost node's: kept, or lost together with the
	// gateway and its ledger, which then are on that node.
	Disk string `yaml:"disk,omitempty" json:"disk,omitempty"`
	// Release is what is bad about the version that bad-release rolls out:
	// corrupt-model (the file breaks off), erroring (it refuses every prompt), slow
	// (the same answers, three times as late) or bad-config (limits of the gateway
	// that mean nothing).
	Release string `yaml:"release,omitempty" json:"release,omitempty"`
	// Cores is how many processor cores: left to the victim by pod-slow, burnt
	// beside the service by cpu-stress.
	Cores float64 `yaml:"cores,omitempty" json:"cores,omitempty"`
	// Memory is how much the victim may still take: of its own under
	// memory-pressure, of the device's under gpu-oom.
	Memory Size `yaml:"memory,omitempty" json:"memory,omitempty"`
}

// Probe sends a small request at a fixed interval, independent of the load.
type Probe struct {
	// Every is the interval, and the error of an RTO: at most 250ms beside faults.
	Every Duration `yaml:"every,omitempty" json:"every,omitempty"`
	// Consecutive is how many complete answers in a row mean recovered.
	Consecutive int `yaml:"consecutive,omitempty" json:"consecutive,omitempty"`
	// MaxTokens of a probe's answer.
	MaxTokens int `yaml:"max_tokens,omitempty" json:"max_tokens,omitempty"`
	// Timeout of one probe, and the latency above which an answer does not
	// count as service.
	Timeout Duration `yaml:"timeout,omitempty" json:"timeout,omitempty"`
}

// Breaks reports whether a scenario of the gate has faults.
func (g Gate) Breaks() bool {
	return slices.ContainsFunc(g.Scenarios, func(s Scenario) bool { return len(s.Faults) > 0 })
}

// Duration is how long the scenario's load lasts.
func (s Scenario) Duration() time.Duration {
	var sum time.Duration
	for _, stage := range s.Stages {
		sum += time.Duration(stage.For)
	}
	return sum
}

// offered is how many requests the scenario's load is at most; of traces and
// users nobody knows before.
func (s Scenario) offered() float64 {
	var sum float64
	for _, stage := range s.Stages {
		highest := float64(stage.Rate)
		if stage.To != nil {
			highest = max(highest, float64(*stage.To))
		}
		sum += highest * time.Duration(stage.For).Seconds()
	}
	return sum
}

// Peak is the most that the gate asks of the service: requests a second, and
// requests under way if nothing were answered before its client gives up. Of
// traces and users nobody knows the rate before; it is then the most that a
// client can send.
func (g Gate) Peak() (perSecond float64, underWay int) {
	for _, s := range g.Scenarios {
		var rate float64
		var users int
		for _, stage := range s.Stages {
			rate = max(rate, float64(stage.Rate))
			if stage.To != nil {
				rate = max(rate, float64(*stage.To))
			}
			if stage.Trace != nil || stage.Users > 0 {
				rate = maxRate
			}
			users = max(users, stage.Users)
		}
		if s.Probe != nil {
			rate += 1 / time.Duration(s.Probe.Every).Seconds()
		}
		if s.Canary != nil {
			rate += 1 / time.Duration(s.Canary.Every).Seconds()
		}
		if s.Durability != nil {
			rate += 1 / time.Duration(s.Durability.Every).Seconds()
		}
		var timeout Duration
		for _, class := range s.Mix() {
			timeout = max(timeout, class.Workload.Timeout)
		}
		perSecond = max(perSecond, rate)
		underWay = max(underWay, int(rate*time.Duration(timeout).Seconds())+users)
	}
	return perSecond, underWay
}

// Part is a part of a scenario's load, with its whole workload.
type Part struct {
	Class
	// Variant are the values that it has of the factors, as in
	// "connection=new language=other"; empty where nothing varies.
	Variant string
}

// Mix are the parts that the scenario's requests are of: each class with each
// combination of the factors' values. A scenario without classes is one without a
// name.
func (s Scenario) Mix() (mix []Part) {
	for _, c := range s.Classes {
		mix = append(mix, Part{Class: c})
	}
	if len(mix) == 0 {
		mix = []Part{{Class: Class{Weight: 1, Workload: s.Workload}}}
	}
	for _, f := range s.Vary {
		if n := len(f.Values); n == 0 || len(mix)*n > maxCombinations {
			continue // such a gate is refused
		}
		var with []Part
		for _, p := range mix {
			for _, v := range f.Values {
				with = append(with, p.with(f.Name, v))
			}
		}
		mix = with
	}
	return mix
}

// with is the part of a part that has a value of a factor.
func (p Part) with(factor string, v Value) Part {
	if v.Weight != 0 { // an unresolved gate has none
		p.Weight *= v.Weight
	}
	from := v.Workload.Connection
	or(&from.From, p.Workload.Connection.From)
	or(&from.HTTP, p.Workload.Connection.HTTP)
	or(&from.New, p.Workload.Connection.New)
	p.Workload = v.Workload.over(p.Workload)
	p.Workload.Connection = from
	if p.Variant += " " + factor + "=" + v.Name; p.Variant[0] == ' ' {
		p.Variant = p.Variant[1:]
	}
	return p
}

// Duration is a time.Duration written as 30s, 1m30s or 250ms.
type Duration time.Duration

// Offset is a time forwards or, below 0, back.
type Offset time.Duration

// Rate is requests per second, written as 8/s or 90/m, or 0.
type Rate float64

// Size is a number of bytes, written as 64KiB, 16MiB or 2GiB.
type Size int64

// Share is a part of a whole from 0 to 1, written as 20%.
type Share float64
