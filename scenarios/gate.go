// Package scenarios holds the declared nouns of a launch gate: what is
// deployed, how it is loaded, what is broken on purpose and what must hold.
// Everything here is plain data, read from YAML and known before the run; who
// acts on it (loadgen, chaos, deploy) and who judges it (checklist) import it,
// and it imports nothing of ours.
package scenarios

import "time"

// Gate is one launch question: a target, what is done to it, and what must be
// true afterwards for the service to launch.
type Gate struct {
	// Name of the gate, for the report and the run folder.
	Name string `yaml:"name" json:"name"`
	// Description says what the gate is for.
	Description string `yaml:"description,omitempty" json:"description,omitempty"`
	// Seed draws arrivals, prompts and victims; 0 lets the run draw one.
	Seed       uint64      `yaml:"seed,omitempty" json:"seed,omitempty"`
	Target     Target      `yaml:"target" json:"target"`
	Warmup     Warmup      `yaml:"warmup,omitempty" json:"warmup,omitempty"`
	Scenarios  []Scenario  `yaml:"scenarios" json:"scenarios"`
	Objectives []Objective `yaml:"objectives" json:"objectives"`
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
	// Nodes are the simulated machines the replicas are spread over, one after
	// the other; node-loss takes one with all on it. 0: a node for each.
	Nodes int `yaml:"nodes,omitempty" json:"nodes,omitempty"`
	// Threads per replica; 0 lets the deployment share the cores out.
	Threads int `yaml:"threads,omitempty" json:"threads,omitempty"`
	// Port of the gateway; 0 takes a free one.
	Port int `yaml:"port,omitempty" json:"port,omitempty"`
	// ReadyTimeout bounds the wait for every replica's /ready.
	ReadyTimeout Duration `yaml:"ready_timeout,omitempty" json:"ready_timeout,omitempty"`
}

// Endpoint is a service launchgate did not deploy and cannot break.
type Endpoint struct {
	// URL of the service, without the path of its API.
	URL string `yaml:"url" json:"url"`
	// Model to ask for; empty asks for the first the service lists.
	Model string `yaml:"model,omitempty" json:"model,omitempty"`
	// APIKeyEnv names the environment variable that holds the key, so that no
	// key is ever written into a gate or a run folder.
	APIKeyEnv string `yaml:"api_key_env,omitempty" json:"api_key_env,omitempty"`
	// Headers are sent with every request. Secrets have no place in them.
	Headers map[string]string `yaml:"headers,omitempty" json:"headers,omitempty"`
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
	Stages      []Stage  `yaml:"stages" json:"stages"`
	Faults      []Fault  `yaml:"faults,omitempty" json:"faults,omitempty"`
	// Probe watches the service beside the load; a scenario with faults has one
	// even where none is declared, because RTO is measured with it.
	Probe *Probe `yaml:"probe,omitempty" json:"probe,omitempty"`
}

// Workload says what each request asks.
type Workload struct {
	// API is chat (/v1/chat/completions) or completions (/v1/completions).
	API string `yaml:"api,omitempty" json:"api,omitempty"`
	// Stream asks for the answer token by token; without it, TTFT is not known.
	Stream *bool `yaml:"stream,omitempty" json:"stream,omitempty"`
	// Prompts are drawn from by the seed; empty takes forty short ones.
	Prompts []string `yaml:"prompts,omitempty" json:"prompts,omitempty"`
	// System is the system prompt of every chat.
	System string `yaml:"system,omitempty" json:"system,omitempty"`
	// MaxTokens of an answer.
	MaxTokens int `yaml:"max_tokens,omitempty" json:"max_tokens,omitempty"`
	// Temperature of the sampling; at 0 the same prompt is the same work.
	Temperature *float64 `yaml:"temperature,omitempty" json:"temperature,omitempty"`
	// Timeout is when the client gives a request up; it counts as an error.
	Timeout Duration `yaml:"timeout,omitempty" json:"timeout,omitempty"`
}

// Stage is a stretch of open-loop load: requests become due by the clock,
// whether or not earlier ones were answered.
type Stage struct {
	// Name of the stage, for objectives to refer to.
	Name string `yaml:"name" json:"name"`
	// For is how long the stage lasts.
	For Duration `yaml:"for" json:"for"`
	// Rate at which requests become due.
	Rate Rate `yaml:"rate" json:"rate"`
	// To makes the stage a linear ramp from Rate to To.
	To *Rate `yaml:"to,omitempty" json:"to,omitempty"`
	// Arrivals: constant (evenly spaced) or poisson (exponential gaps).
	Arrivals string `yaml:"arrivals,omitempty" json:"arrivals,omitempty"`
}

// Fault is something broken on purpose while a scenario's load runs.
type Fault struct {
	// Kind of fault; launchgate list tells what each one does.
	Kind string `yaml:"kind" json:"kind"`
	// Target selects the victim: a replica's name (replica-0), busiest or
	// random (from the gate's seed).
	Target string `yaml:"target,omitempty" json:"target,omitempty"`
	// At is when it may be injected, from the start of the scenario.
	At Duration `yaml:"at" json:"at"`
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
	// Loss is the share of segments that are lost on their way, each way.
	Loss Share `yaml:"loss,omitempty" json:"loss,omitempty"`
	// Bandwidth is how many bytes a second get through, each way.
	Bandwidth Size `yaml:"bandwidth,omitempty" json:"bandwidth,omitempty"`
	// Cut is how a network is cut: silent (what is sent never arrives) or reset
	// (connections are broken and refused).
	Cut string `yaml:"cut,omitempty" json:"cut,omitempty"`
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

// Duration is how long the scenario's load lasts.
func (s Scenario) Duration() time.Duration {
	var sum time.Duration
	for _, stage := range s.Stages {
		sum += time.Duration(stage.For)
	}
	return sum
}

// offered is how many requests the scenario's load is, on average.
func (s Scenario) offered() float64 {
	var sum float64
	for _, stage := range s.Stages {
		mean := float64(stage.Rate)
		if stage.To != nil {
			mean = (mean + float64(*stage.To)) / 2
		}
		sum += mean * time.Duration(stage.For).Seconds()
	}
	return sum
}

// Duration is a time.Duration written as 30s, 1m30s or 250ms.
type Duration time.Duration

// Rate is requests per second, written as 8/s, 90/m or a bare number.
type Rate float64

// Size is a number of bytes, written as 64KiB, 16MiB or 2GiB.
type Size int64

// Share is a part of a whole from 0 to 1, written as 20%.
type Share float64
