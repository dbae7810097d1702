// Package recording is the interface between the two halves of launchgate: the acting
// half writes what happened, the judging half reads it, and nothing else passes between
// them. FORMAT.md documents every file and column.
package recording

import (
	"iter"
	"time"

	"github.com/launchgate/launchgate/internal/words"
)

// Clock is the one monotonic clock of a run. Every time in a recording is an offset
// from its start. No event has offset zero, so that zero can mean "never".
type Clock struct{ start time.Time }

// NewClock starts a clock now.
func NewClock() Clock { return Clock{start: time.Now()} }

// ClockAt is a clock that shows the given time now, for a run that another process
// began.
func ClockAt(now time.Duration) Clock { return Clock{start: time.Now().Add(-now)} }

// Now is the offset of this moment, at least one nanosecond.
func (c Clock) Now() time.Duration { return max(time.Since(c.start), 1) }

// At is the offset of a time read from time.Now on this machine.
func (c Clock) At(t time.Time) time.Duration { return max(t.Sub(c.start), 1) }

// Start is the wall time of offset zero, with its monotonic reading.
func (c Clock) Start() time.Time { return c.start }

// The purpose of a request.
const (
	KindLoad   = "load"   // judged
	KindProbe  = "probe"  // measures RTO, never counted as load
	KindWarmup = "warmup" // never judged
	KindCanary = "canary" // the same questions again and again; Class says which
	KindTwin   = "twin"   // a question asked in several ways; Class names the question, Way the way
	KindWrite  = "write"  // a record that the service has to keep; acknowledged if it succeeded
	KindRead   = "read"   // the final read of a record, with the Seq of its write
)

// LeastVariety is the fewest different sequences of four characters in a text for it to
// be compared: a model in a loop gives the same text to everybody.
const LeastVariety = 24

// The classes of failures; empty on success (see Request.Failure).
const (
	ErrorConnect   = "connect"   // no connection, or a refused one
	ErrorTimeout   = "timeout"   // the client gave up
	ErrorLimited   = "limited"   // HTTP 429: a limit was reached, the client's own or the service's
	ErrorShed      = "shed"      // HTTP 503: the service is overloaded or not ready
	ErrorStatus    = "status"    // another HTTP status outside 2xx
	ErrorInBand    = "in_band"   // an error event inside a 2xx stream
	ErrorTruncated = "truncated" // the stream ended without finish reason and [DONE]
	ErrorProtocol  = "protocol"  // not the protocol: HTML, bad JSON, wrong content type
	ErrorEmpty     = "empty"     // finished without a single token
	ErrorFinish    = "finish"    // the finish reason is not that of a complete answer, or the workload does not allow it
	ErrorNotSent   = "not_sent"  // due, but never sent: the client was late or the run was stopped
	ErrorGone      = "gone"      // an acknowledged record is missing
	ErrorCancelled = "cancelled" // the run was interrupted while the request was in flight
)

// Request is the record of one request: a row of requests-*.parquet. Offsets of events
// that did not happen are zero (null in the file).
type Request struct {
	Seq      int64  `parquet:"seq"` // within its scenario and kind, in order of Due
	Kind     string `parquet:"kind,dict"`
	Scenario string `parquet:"scenario,dict"`
	Stage    string `parquet:"stage,dict"`
	Class    string `parquet:"class,dict"`
	Variant  string `parquet:"variant,optional,dict"` // the values of the gate's factors (vary), as in "connection=new language=other"
	Streamed bool   `parquet:"streamed"`

	Due         time.Duration `parquet:"due_ns"`                   // when the schedule wanted to send it
	Sent        time.Duration `parquet:"sent_ns,optional"`         // when the client began to send it
	FirstByte   time.Duration `parquet:"first_byte_ns,optional"`   // response headers
	FirstToken  time.Duration `parquet:"first_token_ns,optional"`  // first visible fragment of any kind
	FirstOutput time.Duration `parquet:"first_output_ns,optional"` // first non-reasoning fragment
	LastToken   time.Duration `parquet:"last_token_ns,optional"`
	LastVisible time.Duration `parquet:"last_visible_ns,optional"` // last visible fragment, if known
	End         time.Duration `parquet:"end_ns,optional"`          // the body was read to its end, or the request failed

	// Chunks holds the offset of every content chunk (FirstToken … LastToken), if the
	// gate keeps them for this request.
	Chunks []time.Duration `parquet:"chunk_ns,list"`
	// MaxGap is the longest gap between two chunks, recorded even if Chunks is not.
	MaxGap time.Duration `parquet:"max_gap_ns,optional"`

	Status int32 `parquet:"status,optional"`
	// RetryAfter is when a refused client should come back, if the service says so.
	RetryAfter       time.Duration `parquet:"retry_after_ns,optional"`
	FinishReason     string        `parquet:"finish_reason,optional,dict"`
	PromptTokens     int32         `parquet:"prompt_tokens,optional"`
	PromptBytes      int32         `parquet:"prompt_bytes,optional"`  // length of its text, as the client sent it
	Connection       int32         `parquet:"connection,optional"`    // number of the connection, in the order in which the client opened them
	OnConnection     int32         `parquet:"on_connection,optional"` // number of the request on its connection
	CachedReported   bool          `parquet:"cached_told"`            // the service reported how many prompt tokens came from a cache
	CachedTokens     int32         `parquet:"cached_tokens,optional"` // how many these were
	OutputTokens     int32         `parquet:"output_tokens,optional"`
	ReasoningTokens  int32         `parquet:"reasoning_tokens,optional"`   // reasoning tokens among them; 0: none, or not reported
	FirstChunkTokens int32         `parquet:"first_chunk_tokens,optional"` // tokens in the first chunk that TPOT counts from; 0: unknown
	TokensFrom       string        `parquet:"tokens_from,optional,dict"`   // usage | chunks
	AskedTokens      int32         `parquet:"asked_tokens,optional"`       // the answer should have exactly so many
	LimitTokens      int32         `parquet:"limit_tokens,optional"`       // the answer should have at most so many
	QuestionHash     int64         `parquet:"question_hash,optional"`      // of the question without its mark and salt, if its answer is inspected
	AnswerHash       int64         `parquet:"answer_hash,optional"`        // of the answer's text, if it is inspected
	AnswerChars      int32         `parquet:"answer_chars,optional"`       // characters of it
	AnswerVariety    int32         `parquet:"answer_variety,optional"`     // different sequences of four characters in it
	SameChars        int32         `parquet:"same_chars,optional"`         // of a twin's answer: characters in common with the beginning of the answer that it is compared with
	Pieces           int32         `parquet:"pieces,optional"`             // of a twin's answer: chunks with content
	Foreign          string        `parquet:"foreign,optional"`            // the request whose mark, or text, is in the answer
	Way              string        `parquet:"way,optional,dict"`           // how a twin was asked
	Answer           string        `parquet:"-"`                           // its text, if it is inspected; never written
	AnswerTokens     int32         `parquet:"answer_tokens,optional"`      // of a canary's or a twin's answer, counted by the service's own tokenizer
	Record           string        `parquet:"record,optional"`             // the id of an acknowledged write, or of the record that was read
	Bytes            int64         `parquet:"bytes,optional"`              // body bytes read
	Replica          string        `parquet:"replica,optional,dict"`       // the replica that answered, if the service says so
	Retries          int32         `parquet:"retries,optional"`            // by the gateway, if it says so
	Error            string        `parquet:"error,optional,dict"`         // one of the Error constants
	ErrorText        string        `parquet:"error_text,optional"`         // in English; Fail sets these three, Why reads them
	ErrorSaid        string        `parquet:"error_said,optional"`         // the phrase and its arguments, in JSON; empty: a text of others
}

// The steps of a fault's life, in order. FaultAsked does not mean that it is in effect.
const (
	FaultDeclared = "declared"
	FaultInjected = "injected"
	FaultInEffect = "in_effect"
	FaultHeld     = "held" // it was in effect for all of its time; momentary kinds do not have this step
	FaultReverted = "reverted"
	FaultGone     = "gone"
	FaultFailed   = "failed" // a step could not be taken or was never seen; Text says which and why
)

// Injection is one step of a fault's life: a line of injections.jsonl.
type Injection struct {
	At       time.Duration `json:"at_ns"`
	ID       string        `json:"id"` // scenario/index, unique in the run
	Scenario string        `json:"scenario"`
	Kind     string        `json:"kind"`
	Target   string        `json:"target,omitempty"` // the target, once it is chosen
	State    string        `json:"state"`
	// Unsupported: the fault failed because the target cannot have it.
	Unsupported bool           `json:"unsupported,omitempty"`
	Text        words.Sentence `json:"-"` // how it was seen, or why it failed
}

// Names of observations. Subject says what is observed, Value is the measured value.
const (
	ObsScenarioStarted    = "scenario_started" // Subject: scenario
	ObsScenarioEnded      = "scenario_ended"
	ObsStageStarted       = "stage_started" // Subject: scenario/stage; Value: offered requests
	ObsStageEnded         = "stage_ended"
	ObsWorkerLost         = "worker_lost"                // Subject: worker; Text says how it was seen
	ObsWorkerClock        = "worker_clock_error_seconds" // Subject: worker; Value: how far its clock may have been off by the end of a scenario
	ObsWorkerPlace        = "worker_place"               // Subject: worker on another machine; Value: cores that it may use; Text: where it runs
	ObsCouldNotRun        = "could_not_run"              // the run could not begin, or not go on; Text says why
	ObsInterrupted        = "interrupted"                // the run was stopped from outside; Text says by what
	ObsEndedEarly         = "ended_early"                // the rest was not played because the run could no longer pass; Subject: scenario, the last one; Text: what it missed
	ObsScanStarted        = "scan_started"               // the security scan begins; Value: number of checks
	ObsScanEnded          = "scan_ended"                 // every check has ended; Value: number of checks
	ObsRunEnded           = "run_ended"                  // the last line of a complete run
	ObsImported           = "imported"                   // the run was made by another tool; Subject: the tool; Value: 1 if it says when requests were due, 0 if not
	ObsTokensCounted      = "tokens_counted"             // Text: how the lengths of prompts are known
	ObsSized              = "load_sized"                 // how fast the service answered before the load, and the load that follows; Subject: scenario; Value: seconds of an answer
	ObsResent             = "requests_resent"            // Value: how many were sent again because the kept connection had been closed
	ObsLeftOpen           = "connections_left_open"      // Value: how many connections the service left open after the end of an answer
	ObsSentAfterEnd       = "answers_sent_after_end"     // Value: how many answers went on after their end
	ObsTraceEnded         = "trace_ended"                // the trace of a stage ended before the stage; Subject: scenario; Text: how long before
	ObsReplicasReady      = "replicas_ready"             // Value: number of replicas that the gateway would route to
	ObsReplicasUnreported = "replicas_untold"            // the service does not report how many replicas are ready; Text: its answer
	ObsMemoryUnreported   = "memory_untold"              // the service does not report its memory; Subject: scenario; Text: why
	ObsMetricsUnread      = "metrics_unread"             // its metrics could not be read, so it is not known whether it reports its memory; Subject: scenario; Text: why
	ObsTokenizerAbsent    = "tokenizer_absent"           // the service has no API for its tokenizer; Subject: scenario; Text: its answer
	ObsTokenizerFailed    = "tokenizer_failed"           // its tokenizer did not count; Subject: scenario; Value: number of answers; Text: reason for the first one
	ObsHealth             = "health"                     // Value: 1 if the service's health check is good, 0 if it is not; Text: its answer
	ObsReadBack           = "read_back"                  // the final read of the records has ended; Subject: scenario; Value: writes that were due
	ObsReplicaReady       = "replica_ready"              // Subject: replica; Value: 1 ready, 0 not
	ObsInFlight           = "streams_in_flight"          // Subject: replica
	ObsProcessStarted     = "process_started"            // Subject: process; Value: pid; Text: restart number
	ObsProcessExited      = "process_exited"             // Subject: process; Value: pid; Text: how it ended
	ObsLedgerReturned     = "ledger_returned"            // a lost ledger is available again; Subject: gateway; Value: 1 restored from its second place, 0 empty; Text: how
	ObsMonitoring         = "monitoring"                 // Value: 1 if the service is monitored, 0 if not; Names: the alerts that can fire; Text: why it is not monitored
	ObsAlert              = "alert"                      // Subject: alert; Value: 1 it fires, 0 no longer
	ObsQueue              = "queue"                      // Subject: replica; requests waiting
	ObsKVUsed             = "kv_used_ratio"              // Subject: replica
	ObsMemory             = "memory_bytes"               // Subject: process; resident memory
	ObsDeviceMemory       = "device_memory_bytes"        // Subject: device; used by all processes
	ObsPower              = "power_watts"                // Subject: device
	ObsEnergy             = "energy_joules"              // Subject: device; since some moment before the run
	ObsUtilisation        = "device_utilisation_ratio"   // Subject: device; the share of time in which it computed
	ObsTemperature        = "device_temperature_celsius" // Subject: device
	ObsClock              = "device_clock_mhz"           // Subject: device; of its processors
	ObsECCErrors          = "device_ecc_errors"          // Subject: device; uncorrected memory errors since some time before the run
	ObsHeldBack           = "device_held_back"           // Subject: device; Value: 1 if its clocks are held back, 0 no longer; Names: the reasons
	ObsXid                = "device_xid"                 // Subject: device; Value: the number of an error that its driver reported (NVIDIA's Xid)
	ObsClientCPU          = "client_cpu_ratio"           // of one core, since the last observation; the Subject of the client's observations is the worker, if there are several
	ObsClientGCPause      = "client_gc_pause_seconds"    // p99 since the last observation
	ObsClientSched        = "client_sched_delay_seconds" // p99 since the last observation
	ObsClientReadDelay    = "client_read_delay_seconds"  // p99 since the last observation: from the arrival of a chunk to its parsing
	ObsClientFiles        = "client_descriptor_ratio"    // open file descriptors as a share of the limit
	ObsClientPorts        = "client_port_ratio"          // connections to the target as a share of the ephemeral ports
)

// Observation is an event beside the requests: a line of observations.jsonl.
type Observation struct {
	At      time.Duration  `json:"at_ns"`
	Name    string         `json:"name"`
	Subject string         `json:"subject,omitempty"`
	Value   float64        `json:"value"`
	Text    words.Sentence `json:"-"`
	Names   []string       `json:"names,omitempty"` // if there are several
}

// Environment is environment.json: where, when and with what the run was made.
type Environment struct {
	Format    int       `json:"format"` // of the recording, see FORMAT.md
	Version   string    `json:"version"`
	StartedAt time.Time `json:"started_at"`
	Command   []string  `json:"command"`
	Seed      uint64    `json:"seed"`
	// Labels are those of the gate, the CI system and the command line.
	Labels map[string]string `json:"labels,omitempty"`
	Host   Host              `json:"host"`
	Target Target            `json:"target"`
	// Files are the SHA-256 sums of the recording's files, written when the
	// recording is closed; a run that was cut short has none.
	Files map[string]string `json:"files,omitempty"`
}

// Host is the machine the client ran on.
type Host struct {
	OS          string `json:"os"`
	Arch        string `json:"arch"`
	CPU         string `json:"cpu,omitempty"`
	Cores       int    `json:"cores"`
	MemoryBytes int64  `json:"memory_bytes,omitempty"`
	Go          string `json:"go"`
	// GPUs are those of this machine, if the service may use them.
	GPUs []GPU `json:"gpus,omitempty"`
}

// GPU is a device of the machine. What it does not report is missing.
type GPU struct {
	Index           int      `json:"index"` // in the order of the PCI bus
	Name            string   `json:"name"`
	UUID            string   `json:"uuid"` // the Subject of its observations
	MemoryBytes     int64    `json:"memory_bytes"`
	FreeBytes       int64    `json:"free_bytes"` // before the service was started
	PCI             string   `json:"pci,omitempty"`
	Driver          string   `json:"driver,omitempty"`
	CUDA            string   `json:"cuda,omitempty"` // the newest version that the driver can run
	PowerLimitWatts float64  `json:"power_limit_watts,omitempty"`
	ClockMHz        int      `json:"clock_mhz,omitempty"`        // of its processors, at the most
	MemoryClockMHz  int      `json:"memory_clock_mhz,omitempty"` // at the most
	ECC             string   `json:"ecc,omitempty"`              // on | off
	MIG             string   `json:"mig,omitempty"`              // on | off
	NVLinks         int      `json:"nvlinks,omitempty"`          // links to other GPUs that are up
	Replicas        []string `json:"replicas,omitempty"`         // that compute on it
}

// Target is the service under test.
type Target struct {
	Kind     string `json:"kind"` // local | endpoint
	URL      string `json:"url"`
	Model    string `json:"model,omitempty"`
	Replicas int    `json:"replicas,omitempty"`
	// Settings are those of each replica of launchgate's own deployment.
	Settings Settings `json:"settings,omitzero"`
	// Protocol is the protocol between client and service, and whether it is encrypted.
	Protocol words.Kept `json:"protocol,omitzero"`
	// Allowance says how far the client was allowed to exceed the limits of a gateway
	// that launchgate deployed.
	Allowance words.Kept `json:"allowance,omitzero"`
	// Watched says what monitored a service that launchgate deployed, or why nothing
	// did.
	Watched words.Kept `json:"watched,omitzero"`
	// Devices says what the replicas of a local deployment compute on, in a sentence for
	// each device.
	Devices []words.Kept `json:"devices,omitempty"`
	// Seats are the same as data.
	Seats []Seat `json:"seats,omitempty"`
}

// Settings of a replica, where the gate gives them; 0: the server's default.
type Settings struct {
	MaxBatchSize      int     `json:"max_batch_size,omitempty"`      // sequences computed together
	MaxSequenceLength int     `json:"max_sequence_length,omitempty"` // tokens of a prompt and its answer
	Threads           int     `json:"threads,omitempty"`
	GPUMemoryFraction float64 `json:"gpu_memory_fraction,omitempty"` // of a GPU's free memory, for all replicas on it
	KVCacheBytes      int64   `json:"kv_cache_bytes,omitempty"`
}

// Seat is what a replica computes on.
type Seat struct {
	Replica string `json:"replica"`
	Device  string `json:"device"`          // cpu, cuda:0, or auto where nothing was planned
	GPU     string `json:"gpu,omitempty"`   // the UUID
	Bytes   int64  `json:"bytes,omitempty"` // of the GPU's memory that it may take
}

// Recording is a run for the judging half. Requests is streamed, so that ten million of
// them need not fit into memory; it may be read more than once.
type Recording struct {
	Dir         string
	Environment Environment
	Gate        []byte // gate.yaml, as resolved for the run
	Requests    iter.Seq2[Request, error]
	// Gaps are counted if chunk times are not kept for every request; nil otherwise.
	Gaps         []Gaps
	Injections   []Injection
	Observations []Observation
	// Scan holds the results of the security scan, if there was one.
	Scan []ScanResult
	// Complete is whether the run wrote its end (ObsRunEnded, no ObsInterrupted).
	Complete bool
	// Warnings say what could not be read.
	Warnings []words.Sentence
}
