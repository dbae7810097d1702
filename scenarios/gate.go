// Package scenarios holds the declared nouns of a launch gate: what is
// deployed, how it is loaded, what is broken on purpose and what must hold.
// Everything here is plain data, read from YAML and known before the run. The
// packages that act on it (loadgen, chaos, deploy) and the one that judges it
// (checklist) import it. Of ours it imports internal/words only.
package scenarios

import (
	"slices"
	"time"
)

// Gate is a launch decision: a target, what is done to it, and what must hold for
// the service to launch.
type Gate struct {
	// Name of the gate, for the report and the run folder.
	Name string `yaml:"name" json:"name"`
	// Description says what the gate is for.
	Description string `yaml:"description,omitempty" json:"description,omitempty"`
	// Seed determines arrivals, prompts and victims; 0 draws a new seed for the
	// run.
	Seed uint64 `yaml:"seed,omitempty" json:"seed,omitempty"`
	// Target may be left out of a file that is read by LoadGiven with Against.
	Target    Target     `yaml:"target,omitempty" json:"target"`
	Warmup    Warmup     `yaml:"warmup,omitempty" json:"warmup,omitempty"`
	Scenarios []Scenario `yaml:"scenarios,omitempty" json:"scenarios,omitempty"`
	// Profiles are ready-made sets of objectives, such as
	// mlperf-llama-3.1-8b-server in steady; launchgate list profiles shows each.
	Profiles   []string    `yaml:"profiles,omitempty" json:"profiles,omitempty"`
	Objectives []Objective `yaml:"objectives,omitempty" json:"objectives,omitempty"`
	// Cost gives the price of a replica, for objectives about cost.
	Cost *Cost `yaml:"cost,omitempty" json:"cost,omitempty"`
	// Chunks selects the requests whose chunk times are recorded: all, 1 in N
	// (such as 1/100), or none. Statistics of the gaps cover all requests.
	Chunks string `yaml:"chunks,omitempty" json:"chunks,omitempty"`
	// Confidence is the confidence level that an objective needs to pass; the
	// default is 99%.
	Confidence Share `yaml:"confidence,omitempty" json:"confidence,omitempty"`
	// Include are files, beside this one, whose keys this gate has too. What this file
	// says comes before them; scenarios, objectives and profiles are added to theirs.
	Include []string `yaml:"include,omitempty" json:"include,omitempty"`
	// Matrix plays the gate once for each combination of values. ${NAME} stands for
	// the value of the axis NAME.
	Matrix map[string][]Setting `yaml:"matrix,omitempty" json:"matrix,omitempty"`
	// Labels are kept with the run and shown in its report, such as a version or a
	// team.
	Labels map[string]string `yaml:"labels,omitempty" json:"labels,omitempty"`
	// Stop ends a run that does more harm than permitted.
	Stop *Stop `yaml:"stop,omitempty" json:"stop,omitempty"`
	// Scan runs the security scan after the scenarios.
	Scan *Scan `yaml:"scan,omitempty" json:"scan,omitempty"`
}

// Stop are the conditions under which a run does not begin, or ends at once,
// because the damage that it does is real.
type Stop struct {
	// Hosts that the target may be on; without any, every host is permitted.
	// Of a target.kubernetes without a URL it is the context.
	Hosts []string `yaml:"hosts,omitempty" json:"hosts,omitempty"`
	// Errors is the share of load requests that may fail within that time.
	Errors Share `yaml:"errors,omitempty" json:"errors,omitempty"`
	// Within is the length of the sliding window.
	Within Duration `yaml:"within,omitempty" json:"within,omitempty"`
	// Requests is the least number of completed requests in the window.
	Requests int `yaml:"requests,omitempty" json:"requests,omitempty"`
	// WhenFailed ends the run after a scenario that missed an objective: it can no
	// longer pass.
	WhenFailed bool `yaml:"when_failed,omitempty" json:"when_failed,omitempty"`
}

// Target is the service under test: exactly one of its fields is set.
type Target struct {
	// Local is the bundled service, deployed on loopback for the run.
	Local *Local `yaml:"local,omitempty" json:"local,omitempty"`
	// Endpoint is an OpenAI-compatible service that already runs.
	Endpoint *Endpoint `yaml:"endpoint,omitempty" json:"endpoint,omitempty"`
	// Kubernetes is a service on a cluster: the bundled one, deployed for the run, or
	// one that is already there.
	Kubernetes *Kubernetes `yaml:"kubernetes,omitempty" json:"kubernetes,omitempty"`
}

// Local deploys replicas of the bundled reference-server behind its gateway.
type Local struct {
	// Replicas is the number of replicas behind the gateway.
	Replicas int `yaml:"replicas,omitempty" json:"replicas,omitempty"`
	// Model is a GGUF file or Hugging Face folder; empty means the built-in model.
	Model string `yaml:"model,omitempty" json:"model,omitempty"`
	// LoadFormat is where the weights come from: auto (the files of the models), or
	// dummy (random weights of a shape, to plan capacity without the weights; a model
	// is then a name such as llama-70b, a config.json, or a folder with one).
	LoadFormat string `yaml:"load_format,omitempty" json:"load_format,omitempty"`
	// Models are several models by name, in place of model. Each replica serves
	// all of them on one device; workloads select one by its name.
	Models map[string]Model `yaml:"models,omitempty" json:"models,omitempty"`
	// Nodes is the number of simulated machines over which the replicas are
	// spread; node-loss takes down one of them. 0 means a node for each replica.
	Nodes int `yaml:"nodes,omitempty" json:"nodes,omitempty"`
	// Threads per replica; 0 divides the cores among the replicas.
	Threads int `yaml:"threads,omitempty" json:"threads,omitempty"`
	// KVCache is the memory of each replica's KV cache; 0 means the server's
	// default.
	KVCache Size `yaml:"kv_cache,omitempty" json:"kv_cache,omitempty"`
	// MaxBatchSize is the most sequences that a replica computes together; 0 means the
	// server's default.
	MaxBatchSize int `yaml:"max_batch_size,omitempty" json:"max_batch_size,omitempty"`
	// MaxSequenceLength is the most tokens of a prompt and its answer together; 0 means
	// the server's default. The model's context is the upper limit.
	MaxSequenceLength int `yaml:"max_sequence_length,omitempty" json:"max_sequence_length,omitempty"`
	// GPUMemoryFraction is the share of a GPU's free memory that the replicas on it take
	// together; 0 means that of GPU_MEMORY_FRACTION, or 90%.
	GPUMemoryFraction Share `yaml:"gpu_memory_fraction,omitempty" json:"gpu_memory_fraction,omitempty"`
	// Devices are what the replicas compute on: auto (every GPU of this machine, the
	// freest first; the CPU if there is none), cpu, or a list of GPUs such as [0, 1],
	// numbered as nvidia-smi does. Replicas are spread evenly, and share the memory of
	// a GPU in equal parts.
	Devices Devices `yaml:"devices,omitempty" json:"devices,omitzero"`
	// Port of the gateway; 0 means a free port.
	Port int `yaml:"port,omitempty" json:"port,omitempty"`
	// ReadyTimeout bounds the wait for every replica's /ready.
	ReadyTimeout Duration `yaml:"ready_timeout,omitempty" json:"ready_timeout,omitempty"`
	// Gateway is the entry point of the deployment: TLS, API keys, limits, an
	// audit log and a ledger.
	Gateway Gateway `yaml:"gateway,omitempty" json:"gateway,omitzero"`
	// Monitoring is a Prometheus that monitors the deployment, if the program is
	// on the PATH; its alerts are in the recording.
	Monitoring Monitoring `yaml:"monitoring,omitempty" json:"monitoring,omitzero"`
}

// Dummy reports whether the weights are random.
func (l Local) Dummy() bool { return l.LoadFormat == LoadDummy }

// Model is one of several models that a replica serves.
type Model struct {
	// Path of a GGUF file or Hugging Face folder; empty means the built-in model.
	Path string `yaml:"path,omitempty" json:"path,omitempty"`
	// Quantization of its weights: none, fp16 or int8; empty means int8.
	Quantization string `yaml:"quantization,omitempty" json:"quantization,omitempty"`
}

// Monitoring is a Prometheus with the rules of deploy/monitoring.
type Monitoring struct {
	// Disabled starts no Prometheus.
	Disabled bool `yaml:"disabled,omitempty" json:"disabled,omitempty"`
	// Shorten divides every window of the alert rules by this number, for a drill:
	// with 60, five minutes become five seconds.
	Shorten int `yaml:"shorten,omitempty" json:"shorten,omitempty"`
}

// Gateway is the entry point of the bundled service, with all its features. The
// run gets a key of its own, with an allowance that fits its load.
type Gateway struct {
	// Plain makes the gateway only balance load, without TLS, keys, limits and
	// ledger.
	Plain bool `yaml:"plain,omitempty" json:"plain,omitempty"`
	// Config is a file of limits, like deploy/gateway.yaml, whose limits are the
	// default.
	Config string `yaml:"config,omitempty" json:"config,omitempty"`
	// Unreplicated switches off the replication of the ledger, so that the loss of
	// its disk loses all acknowledged data.
	Unreplicated bool `yaml:"unreplicated,omitempty" json:"unreplicated,omitempty"`
	// Keys describe API keys, by the environment variable (a workload's
	// api_key_env) that the run puts them into. A key that is not listed has the
	// class standard and the allowance of the run.
	Keys map[string]Key `yaml:"keys,omitempty" json:"keys,omitempty"`
}

// Key is an API key of the gateway with its own tenant.
type Key struct {
	// Class is the importance of its requests: batch, standard or interactive, or
	// the classes of config. Under overload, the first class is refused first.
	Class string `yaml:"class,omitempty" json:"class,omitempty"`
	// Limited applies the gateway's normal limits to the key; without it, the key
	// may send what the load plans.
	Limited bool `yaml:"limited,omitempty" json:"limited,omitempty"`
}

// Endpoint is a service launchgate did not deploy and cannot break.
type Endpoint struct {
	// URL of the service, as its clients use it. A path is used unchanged
	// (https://host/v1beta/openai); without a path, /v1 is appended.
	URL string `yaml:"url" json:"url"`
	// Model to request; empty means the first model that the service lists.
	Model string `yaml:"model,omitempty" json:"model,omitempty"`
	// APIKeyEnv names the environment variable that holds the key, so that gates
	// and run folders never contain a key.
	APIKeyEnv string `yaml:"api_key_env,omitempty" json:"api_key_env,omitempty"`
	// Headers are sent with every request. ${NAME} stands for the value of an
	// environment variable, which is never printed or recorded.
	Headers map[string]string `yaml:"headers,omitempty" json:"headers,omitempty"`
	// Query holds parameters for the URL of every request, with ${NAME} as in
	// headers.
	Query map[string]string `yaml:"query,omitempty" json:"query,omitempty"`
	// Fields are added to the JSON of every request, like the fields of a
	// workload.
	Fields map[string]Field `yaml:"fields,omitempty" json:"fields,omitempty"`
	// ReadyTimeout is how long the service may take to become ready, from the
	// first request on.
	ReadyTimeout Duration `yaml:"ready_timeout,omitempty" json:"ready_timeout,omitempty"`
	// GPUMetrics is the URL of a Prometheus exporter that reports the GPUs of the
	// service, such as NVIDIA's DCGM exporter: http://gpu-host:9400/metrics.
	GPUMetrics string `yaml:"gpu_metrics,omitempty" json:"gpu_metrics,omitempty"`
	// CAFile is a PEM file with the certificate authority of the service.
	CAFile string `yaml:"ca_file,omitempty" json:"ca_file,omitempty"`
	// Tokenizer is the tokenizer.json of the model. The tokens of prompts and answers
	// are counted with it, and not by the service.
	Tokenizer string `yaml:"tokenizer,omitempty" json:"tokenizer,omitempty"`
	// CertFile and KeyFile are the PEM files of the certificate that the client shows to
	// the service, with the authorities that signed it, and of its private key.
	CertFile string `yaml:"cert_file,omitempty" json:"cert_file,omitempty"`
	KeyFile  string `yaml:"key_file,omitempty" json:"key_file,omitempty"`
	// HTTP is the HTTP version: 1.1 or 2; empty means negotiated.
	HTTP string `yaml:"http,omitempty" json:"http,omitempty"`
	// NewConnections opens a new connection for every request.
	NewConnections bool `yaml:"new_connections,omitempty" json:"new_connections,omitempty"`
}

// Warmup requests are sent before the first scenario and never judged.
type Warmup struct {
	// Requests is the number of warm-up requests.
	Requests int `yaml:"requests,omitempty" json:"requests,omitempty"`
}

// Scenario is one part of the run: stages of load one after another, with faults
// and probes beside them.
type Scenario struct {
	// Name of the scenario, for objectives to refer to.
	Name string `yaml:"name" json:"name"`
	// Description says what the scenario tests.
	Description string   `yaml:"description,omitempty" json:"description,omitempty"`
	Workload    Workload `yaml:"workload,omitempty" json:"workload,omitempty"`
	// Classes divide the load by weight, each with its differences from the
	// scenario's workload; objectives can refer to one class.
	Classes []Class `yaml:"classes,omitempty" json:"classes,omitempty"`
	// Vary makes each request draw one value of every factor independently, so
	// that late_for_some can find the factor that makes requests late.
	Vary   []Factor `yaml:"vary,omitempty" json:"vary,omitempty"`
	Stages []Stage  `yaml:"stages" json:"stages"`
	Faults []Fault  `yaml:"faults,omitempty" json:"faults,omitempty"`
	// Probe sends small requests beside the load to measure RTO. A scenario with
	// faults always has one, even if none is declared.
	Probe *Probe `yaml:"probe,omitempty" json:"probe,omitempty"`
	// Canary repeats the same few questions beside the load, to see whether their
	// answers change.
	Canary *Canary `yaml:"canary,omitempty" json:"canary,omitempty"`
	// Twins asks the same questions in several ways, beside the load and after it, to
	// see whether the answers and their counts agree.
	Twins *Twins `yaml:"twins,omitempty" json:"twins,omitempty"`
	// Durability writes records beside the load and reads all of them back at the
	// end, to see whether the service lost acknowledged ones.
	Durability *Durability `yaml:"durability,omitempty" json:"durability,omitempty"`
}

// Durability is a workload of background responses (POST /v1/responses). The id
// that one is acknowledged with is a record. At the end of the scenario, when its
// faults have run their course, each record is asked for again.
type Durability struct {
	// Every is the interval between two writes, and the precision of what is
	// measured as lost.
	Every Duration `yaml:"every,omitempty" json:"every,omitempty"`
	// MaxTokens of a record's answer.
	MaxTokens int `yaml:"max_tokens,omitempty" json:"max_tokens,omitempty"`
	// Timeout of a write; a write that is not acknowledged by then does not count
	// as a record.
	Timeout Duration `yaml:"timeout,omitempty" json:"timeout,omitempty"`
	// Within is how long the final read waits for records that are incomplete or
	// temporarily unreadable.
	Within Duration `yaml:"within,omitempty" json:"within,omitempty"`
	// Usage makes every second record a usage record for billing, read back from
	// /v1/usage/{X-Request-Id}, as the bundled gateway provides it.
	Usage bool `yaml:"usage,omitempty" json:"usage,omitempty"`
}

// Canary is a small question whose answer is known: what it was before, at
// temperature 0. It finds services that are quick and wrong.
type Canary struct {
	// Every is the interval between two canary requests.
	Every Duration `yaml:"every,omitempty" json:"every,omitempty"`
	// MaxTokens of an answer.
	MaxTokens int `yaml:"max_tokens,omitempty" json:"max_tokens,omitempty"`
}

// Twins are questions that are asked in several ways at temperature 0: streamed and
// whole, alone and beside the load, over a kept and a new connection, with each key,
// by chat and by completions. Some questions of the load are asked again too, alone.
type Twins struct {
	// Every is the interval between two of them beside the load.
	Every Duration `yaml:"every,omitempty" json:"every,omitempty"`
	// MaxTokens of an answer.
	MaxTokens int `yaml:"max_tokens,omitempty" json:"max_tokens,omitempty"`
	// For is how long they are asked alone at the most, after the load.
	For Duration `yaml:"for,omitempty" json:"for,omitempty"`
}

// Class is a part of a scenario's load, such as a tenant, a model or a kind of
// request.
type Class struct {
	// Name of the class, for objectives to refer to.
	Name string `yaml:"name" json:"name"`
	// Weight is its share of the requests, relative to the sum of all weights.
	Weight float64 `yaml:"weight,omitempty" json:"weight,omitempty"`
	// Workload holds what differs from the scenario's workload.
	Workload Workload `yaml:"workload,omitempty" json:"workload,omitempty"`
}

// Factor is something that differs between requests, such as the tenant, the
// connection or the language.
type Factor struct {
	// Name of the factor.
	Name string `yaml:"name" json:"name"`
	// Values are the values to draw from.
	Values []Value `yaml:"values" json:"values"`
}

// Value is one value of a factor.
type Value struct {
	// Name of the value.
	Name string `yaml:"name" json:"name"`
	// Weight is its share of the requests, relative to the sum of all weights.
	Weight float64 `yaml:"weight,omitempty" json:"weight,omitempty"`
	// Workload holds what differs from the workload of the scenario or class.
	Workload Workload `yaml:"workload,omitempty" json:"workload,omitempty"`
}

// Workload says what each request sends.
type Workload struct {
	// API is chat (/v1/chat/completions), completions (/v1/completions),
	// responses (/v1/responses) or grpc (the bundled service's own).
	API string `yaml:"api,omitempty" json:"api,omitempty"`
	// Model to request; empty means the target's model.
	Model string `yaml:"model,omitempty" json:"model,omitempty"`
	// APIKeyEnv names the environment variable that holds the tenant's key; empty
	// means the target's key.
	APIKeyEnv string `yaml:"api_key_env,omitempty" json:"api_key_env,omitempty"`
	// Connection is how its requests reach the service, if that differs from other
	// requests.
	Connection Connection `yaml:"connection,omitempty" json:"connection,omitzero"`
	// Stream requests a streamed answer; without it, TTFT is unknown.
	Stream *bool `yaml:"stream,omitempty" json:"stream,omitempty"`
	// Prompts are the prompts to draw from, by the seed; empty means forty short
	// built-in ones.
	Prompts []string `yaml:"prompts,omitempty" json:"prompts,omitempty"`
	// Dataset is a file of prompts or conversations in JSON lines: OpenAI
	// messages, ShareGPT conversations, or one prompt per line.
	Dataset string `yaml:"dataset,omitempty" json:"dataset,omitempty"`
	// Synthetic makes prompts of a given length.
	Synthetic *Synthetic `yaml:"synthetic,omitempty" json:"synthetic,omitempty"`
	// System is the system prompt of every chat.
	System string `yaml:"system,omitempty" json:"system,omitempty"`
	// Turns is the number of questions in a conversation, each sent with the
	// conversation so far; more than one needs users.
	Turns int `yaml:"turns,omitempty" json:"turns,omitempty"`
	// MaxTokens of an answer: a number, or drawn for each request, as in
	// lognormal(128, 64).
	MaxTokens Lengths `yaml:"max_tokens,omitempty" json:"max_tokens,omitzero"`
	// Answer is how long an answer shall last, in place of max_tokens: the number of
	// tokens follows from the speed that the warm-up measures.
	Answer Duration `yaml:"answer,omitempty" json:"answer,omitempty"`
	// InFlight is how many requests shall be in flight on average, in stages without a
	// rate, trace or users: the rate follows from how long an answer lasts in the
	// warm-up.
	InFlight int `yaml:"in_flight,omitempty" json:"in_flight,omitempty"`
	// IgnoreEOS makes answers continue to max_tokens, if the service supports it
	// (vLLM, SGLang, the bundled one), so that every run is the same work.
	IgnoreEOS bool `yaml:"ignore_eos,omitempty" json:"ignore_eos,omitempty"`
	// Finish lists the finish reasons that an answer may have, such as [stop,
	// length]; any other is an error. Empty allows those of a complete answer:
	// stop, length, tool_calls and function_call, or their equivalents in other
	// APIs. It may contain a service's own reasons.
	Finish []string `yaml:"finish,omitempty" json:"finish,omitempty"`
	// Salt makes the end of every prompt unique, so that a cache of whole
	// responses cannot answer it; a prefix cache still helps.
	Salt *bool `yaml:"salt,omitempty" json:"salt,omitempty"`
	// Marks ends every prompt with a mark that no other has, which the answer may
	// repeat: an answer with the mark of another request is somebody else's. Answers
	// are compared with one another too.
	Marks bool `yaml:"marks,omitempty" json:"marks,omitempty"`
	// Fields are added to the JSON of each request. null removes a field.
	// ${max_tokens} and the like stand for the value of that field, so that a
	// field can be renamed.
	Fields map[string]Field `yaml:"fields,omitempty" json:"fields,omitempty"`
	// Temperature of the sampling; at 0 the same prompt means the same work.
	Temperature *float64 `yaml:"temperature,omitempty" json:"temperature,omitempty"`
	// Timeout of a request, after which the client gives up; that counts as an
	// error.
	Timeout Duration `yaml:"timeout,omitempty" json:"timeout,omitempty"`
}

// Connection is how requests reach the service.
type Connection struct {
	// From is the source address on this host, such as 127.0.0.2, which makes it
	// another client to a service that distinguishes clients by address.
	From string `yaml:"from,omitempty" json:"from,omitempty"`
	// HTTP is the HTTP version: 1.1 or 2; empty means negotiated.
	HTTP string `yaml:"http,omitempty" json:"http,omitempty"`
	// New opens a new connection for every request.
	New bool `yaml:"new,omitempty" json:"new,omitempty"`
}

// Synthetic prompts are drawn words, counted in tokens of the target: by its
// own tokenizer where it offers one, else by what its usage says.
type Synthetic struct {
	// Tokens of a prompt, including its prefix.
	Tokens Lengths `yaml:"tokens" json:"tokens"`
	// Prefixes is the number of groups of requests with a common prefix.
	Prefixes int `yaml:"prefixes,omitempty" json:"prefixes,omitempty"`
	// PrefixTokens is the length of the common prefix in tokens.
	PrefixTokens int `yaml:"prefix_tokens,omitempty" json:"prefix_tokens,omitempty"`
}

// Stage is a period of load. With a rate or a trace it is open-loop: requests
// become due by the clock, whether or not earlier ones were answered. With users
// it is closed-loop: each user waits for an answer before the next question, so a
// slower service gets fewer requests.
type Stage struct {
	// Name of the stage, for objectives to refer to.
	Name string `yaml:"name" json:"name"`
	// For is how long the stage lasts.
	For Duration `yaml:"for" json:"for"`
	// Extend is how much longer the last stage may run until its percentiles can
	// be decided.
	Extend Duration `yaml:"extend,omitempty" json:"extend,omitempty"`
	// Rate at which requests become due.
	Rate Rate `yaml:"rate,omitempty" json:"rate,omitempty"`
	// To is the rate at the end of the stage, which shape leads to.
	To *Rate `yaml:"to,omitempty" json:"to,omitempty"`
	// Shape is how the rate changes from rate to to: linear, steps, spike (a jump
	// in the middle, and back) or sine (waves between the two).
	Shape string `yaml:"shape,omitempty" json:"shape,omitempty"`
	// Steps is the number of steps of the shape steps, the first at rate.
	Steps int `yaml:"steps,omitempty" json:"steps,omitempty"`
	// Peak is the length of a spike.
	Peak Duration `yaml:"peak,omitempty" json:"peak,omitempty"`
	// Period is the length of one wave of a sine.
	Period Duration `yaml:"period,omitempty" json:"period,omitempty"`
	// Arrivals: constant (evenly spaced), poisson (independent users) or gamma
	// (bursts, set by burstiness).
	Arrivals string `yaml:"arrivals,omitempty" json:"arrivals,omitempty"`
	// Burstiness is the shape parameter of gamma arrivals, as in vLLM's benchmark:
	// 1 is poisson, less means bursts, more means even spacing.
	Burstiness float64 `yaml:"burstiness,omitempty" json:"burstiness,omitempty"`
	// InFlight is how many requests shall be in flight on average, in place of a rate:
	// the rate follows from how long an answer lasts in the warm-up.
	InFlight int `yaml:"in_flight,omitempty" json:"in_flight,omitempty"`
	// Trace is a recorded load to replay.
	Trace *Trace `yaml:"trace,omitempty" json:"trace,omitempty"`
	// Users is the number of concurrent users, each waiting for its answer.
	Users int `yaml:"users,omitempty" json:"users,omitempty"`
	// Think is how long a user waits on average before the next question; the
	// waits are exponential.
	Think Duration `yaml:"think,omitempty" json:"think,omitempty"`
}

// Trace is a file of arrivals: when each request came, how long its prompt and
// its answer were, and which blocks of its prompt others had too.
type Trace struct {
	// File in the format of Azure's LLM traces or BurstGPT (both CSV) or of
	// Mooncake (JSON lines).
	File string `yaml:"file" json:"file"`
	// Unit is that of times that are numbers: ns, us, ms or s. Without it the format
	// says it, or the trace is refused.
	Unit string `yaml:"unit,omitempty" json:"unit,omitempty"`
	// Speed replays it faster, or slower below 1.
	Speed float64 `yaml:"speed,omitempty" json:"speed,omitempty"`
}

// TraceUnits are the units that the times of a trace can be numbers of.
var TraceUnits = []string{"ns", "us", "ms", "s"}

// OpenLoop reports whether requests become due by the clock.
func (s Stage) OpenLoop() bool { return s.Users == 0 }

// Fault is something that launchgate breaks on purpose while a scenario's load
// runs.
type Fault struct {
	// Kind of fault; launchgate list faults describes each kind.
	Kind string `yaml:"kind" json:"kind"`
	// Target selects the victim: a replica's name (replica-0, or a pod's name),
	// busiest or random (from the gate's seed).
	Target string `yaml:"target,omitempty" json:"target,omitempty"`
	// At is the earliest time of the injection, from the start of the scenario or
	// from the end of the fault that it comes after.
	At Duration `yaml:"at" json:"at"`
	// Latest makes the gate's seed draw the time of the injection, from at until
	// latest.
	Latest Duration `yaml:"latest,omitempty" json:"latest,omitempty"`
	// After: previous makes the fault wait for the end of the one before it;
	// without it, faults overlap.
	After string `yaml:"after,omitempty" json:"after,omitempty"`
	// Repeat is the number of times the fault is played, each time at after the
	// end of the one before. Each time is one sample.
	Repeat int `yaml:"repeat,omitempty" json:"repeat,omitempty"`
	// MinStreams delays the injection until the victim has at least this many
	// streams in flight, so that a kill hits work and not an idle process.
	MinStreams int `yaml:"min_streams,omitempty" json:"min_streams,omitempty"`
	// For is how long the fault is held, from when it is seen in effect.
	For Duration `yaml:"for,omitempty" json:"for,omitempty"`
	// Within limits each wait: for min_streams, for the fault to be seen in
	// effect, and for it to be seen gone.
	Within Duration `yaml:"within,omitempty" json:"within,omitempty"`

	// Notice is how long before its end the victim gets SIGTERM.
	Notice Duration `yaml:"notice,omitempty" json:"notice,omitempty"`
	// Delay is added to every round trip.
	Delay Duration `yaml:"delay,omitempty" json:"delay,omitempty"`
	// Skew is the error of the victim's wall clock.
	Skew Offset `yaml:"skew,omitempty" json:"skew,omitempty"`
	// Loss is the share of packets that are lost in each direction.
	Loss Share `yaml:"loss,omitempty" json:"loss,omitempty"`
	// Bandwidth in bytes per second, in each direction.
	Bandwidth Size `yaml:"bandwidth,omitempty" json:"bandwidth,omitempty"`
	// Cut is how the network is cut: silent (nothing arrives, without an error) or
	// reset (connections are reset and refused).
	Cut string `yaml:"cut,omitempty" json:"cut,omitempty"`
	// Disk is what happens to the disk of a lost node: kept, or lost together with
	// the gateway and its ledger, which are then on that node.
	Disk string `yaml:"disk,omitempty" json:"disk,omitempty"`
	// Release is the defect of the version that bad-release rolls out:
	// corrupt-model (a truncated file), erroring (it refuses every prompt), slow
	// (the same answers, three times slower) or bad-config (invalid gateway
	// limits).
	Release string `yaml:"release,omitempty" json:"release,omitempty"`
	// Cores is a number of CPU cores: what pod-slow leaves to the victim, or what
	// cpu-stress uses beside the service.
	Cores float64 `yaml:"cores,omitempty" json:"cores,omitempty"`
	// Memory is how much more memory the victim may take (memory-pressure), or how
	// much device memory stays free (gpu-oom).
	Memory Size `yaml:"memory,omitempty" json:"memory,omitempty"`
	// Power is the share of its power limit that gpu-throttle leaves to a GPU.
	Power Share `yaml:"power,omitempty" json:"power,omitempty"`
}

// Probe sends a small request at a fixed interval, independent of the load.
type Probe struct {
	// Every is the interval of the probes and the precision of an RTO: at most
	// 250ms in scenarios with faults.
	Every Duration `yaml:"every,omitempty" json:"every,omitempty"`
	// Consecutive is the number of complete answers in a row that count as
	// recovery.
	Consecutive int `yaml:"consecutive,omitempty" json:"consecutive,omitempty"`
	// MaxTokens of a probe's answer.
	MaxTokens int `yaml:"max_tokens,omitempty" json:"max_tokens,omitempty"`
	// Timeout of one probe; a slower answer counts as a failed probe.
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

// offered is the largest number of requests that the scenario's load can have. For
// traces and users it is not known before the run.
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
// requests under way if nothing were answered before its client gives up. The rate
// of traces and users is not known before the run; it is then the most that a
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
			if stage.Trace != nil || stage.Users > 0 || stage.InFlight > 0 {
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
		if s.Twins != nil {
			rate += 1 / time.Duration(s.Twins.Every).Seconds()
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
