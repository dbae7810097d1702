// Package recording is the folder where the two halves of launchgate meet: the
// acting half writes what happened, the judging half reads it, and nothing
// else passes between them. FORMAT.md documents every file and column.
package recording

import (
	"iter"
	"time"

	"github.com/launchgate/launchgate/internal/words"
)

// Clock is the one monotonic clock of a run. Every time in a recording is an
// offset from its start; nothing that happened is at offset zero, so that zero
// can mean "never".
type Clock struct{ start time.Time }

// NewClock starts a clock now.
func NewClock() Clock { return Clock{start: time.Now()} }

// ClockAt is a clock on which it is the given time now: that of a run which
// another process began.
func ClockAt(now time.Duration) Clock { return Clock{start: time.Now().Add(-now)} }

// Now is the offset of this moment, at least one nanosecond.
func (c Clock) Now() time.Duration { return max(time.Since(c.start), 1) }

// At is the offset of a time read from time.Now on this machine.
func (c Clock) At(t time.Time) time.Duration { return max(t.Sub(c.start), 1) }

// Start is the wall time of offset zero, with its monotonic reading.
func (c Clock) Start() time.Time { return c.start }

// Who a request was sent for.
const (
	KindLoad   = "load"   // judged
	KindProbe  = "probe"  // measures RTO, never counted as load
	KindWarmup = "warmup" // never judged
	KindCanary = "canary" // the same questions again and again; Class says which
	KindTwin   = "twin"   // a question that is asked in several ways; Class says which, Way how
	KindWrite  = "write"  // a record that the service is to keep; acknowledged where it succeeded
	KindRead   = "read"   // the final read of a record, with the Seq of its write
)

// LeastVariety is how many different runs of four characters a text has that says
// something: a model that only repeats itself says the same to everybody.
const LeastVariety = 24

// Why a request did not succeed; empty on success (see Request.Failure).
const (
	ErrorConnect   = "connect"   // no connection, or it was refused
	ErrorTimeout   = "timeout"   // given up by the client
	ErrorLimited   = "limited"   // HTTP 429: a limit was reached, the client's own or the service's
	ErrorShed      = "shed"      // HTTP 503: the service takes no more, or nothing, now
	ErrorStatus    = "status"    // another HTTP status outside 2xx
	ErrorInBand    = "in_band"   // an error event inside a 2xx stream
	ErrorTruncated = "truncated" // the stream ended without finish reason and [DONE]
	ErrorProtocol  = "protocol"  // not the protocol: HTML, bad JSON, wrong content type
	ErrorEmpty     = "empty"     // finished without a single token
	ErrorFinish    = "finish"    // finished for a reason with which a whole answer does not end, or that the workload does not allow
	ErrorNotSent   = "not_sent"  // due, and never sent: the client was late or the run was stopped
	ErrorGone      = "gone"      // a record that was acknowledged is not there
	ErrorCancelled = "cancelled" // the run was interrupted while it was in flight
)

// Request is what happened to one request: a row of requests-*.parquet.
// Offsets that never happened are zero (null in the file).
type Request struct {
	Seq      int64  `parquet:"seq"` // within its scenario and kind, in order of Due
	Kind     string `parquet:"kind,dict"`
	Scenario string `parquet:"scenario,dict"`
	Stage    string `parquet:"stage,dict"`
	Class    string `parquet:"class,dict"`
	Variant  string `parquet:"variant,optional,dict"` // of the gate's factors (vary), as in "connection=new language=other"
	Streamed bool   `parquet:"streamed"`

	Due         time.Duration `parquet:"due_ns"`                   // when the schedule wanted it sent
	Sent        time.Duration `parquet:"sent_ns,optional"`         // when the client began to send it
	FirstByte   time.Duration `parquet:"first_byte_ns,optional"`   // response headers
	FirstToken  time.Duration `parquet:"first_token_ns,optional"`  // first fragment of any kind that a reader sees
	FirstOutput time.Duration `parquet:"first_output_ns,optional"` // first non-reasoning fragment
	LastToken   time.Duration `parquet:"last_token_ns,optional"`
	LastVisible time.Duration `parquet:"last_visible_ns,optional"` // last fragment that a reader sees, where it is known
	End         time.Duration `parquet:"end_ns,optional"`          // the body was read to its end, or it failed

	// Chunks holds the offset of every content chunk (FirstToken … LastToken),
	// where the gate keeps them of this request.
	Chunks []time.Duration `parquet:"chunk_ns,list"`
	// MaxGap is the longest gap between two of them, also where they are not kept.
	MaxGap time.Duration `parquet:"max_gap_ns,optional"`

	Status int32 `parquet:"status,optional"`
	// RetryAfter is when a refused client is to come back, where the service says so.
	RetryAfter       time.Duration `parquet:"retry_after_ns,optional"`
	FinishReason     string        `parquet:"finish_reason,optional,dict"`
	PromptTokens     int32         `parquet:"prompt_tokens,optional"`
	PromptBytes      int32         `parquet:"prompt_bytes,optional"`  // of its text, as the client sent it
	Connection       int32         `parquet:"connection,optional"`    // the client's n-th that was opened
	OnConnection     int32         `parquet:"on_connection,optional"` // the n-th request on it
	CachedTold       bool          `parquet:"cached_told"`            // the service says how many of them a cache had
	CachedTokens     int32         `parquet:"cached_tokens,optional"` // so many
	OutputTokens     int32         `parquet:"output_tokens,optional"`
	ReasoningTokens  int32         `parquet:"reasoning_tokens,optional"`   // of them, those of reasoning; 0: none, or not told
	FirstChunkTokens int32         `parquet:"first_chunk_tokens,optional"` // tokens in the first chunk that TPOT counts from; 0: not known
	TokensFrom       string        `parquet:"tokens_from,optional,dict"`   // usage | chunks
	AskedTokens      int32         `parquet:"asked_tokens,optional"`       // the answer was to have exactly so many
	LimitTokens      int32         `parquet:"limit_tokens,optional"`       // the answer was to have so many at the most
	QuestionHash     int64         `parquet:"question_hash,optional"`      // of the question without what is new in each request, where its answer is looked at
	AnswerHash       int64         `parquet:"answer_hash,optional"`        // of the answer's text, where it is looked at
	AnswerChars      int32         `parquet:"answer_chars,optional"`       // characters of it
	AnswerVariety    int32         `parquet:"answer_variety,optional"`     // different runs of four characters in it
	SameChars        int32         `parquet:"same_chars,optional"`         // of a twin's answer: characters at its beginning that are those of the answer it is compared with
	Pieces           int32         `parquet:"pieces,optional"`             // of a twin's answer: chunks with content
	Foreign          string        `parquet:"foreign,optional"`            // the request whose mark, or text, the answer has
	Way              string        `parquet:"way,optional,dict"`           // in which a twin was asked
	Answer           string        `parquet:"-"`                           // its text, where it is looked at; never written
	AnswerTokens     int32         `parquet:"answer_tokens,optional"`      // of a canary's or a twin's answer, as the service's own tokenizer counts them
	Record           string        `parquet:"record,optional"`             // the id that a write was acknowledged with, and a read asked for
	Bytes            int64         `parquet:"bytes,optional"`              // body bytes read
	Replica          string        `parquet:"replica,optional,dict"`       // who answered, where the service says so
	Retries          int32         `parquet:"retries,optional"`            // by the gateway, where it says so
	Error            string        `parquet:"error,optional,dict"`         // one of the Error constants
	ErrorText        string        `parquet:"error_text,optional"`         // in English; Fail sets the three, Why reads them
	ErrorSaid        string        `parquet:"error_said,optional"`         // the phrase and what fills it, in JSON; empty: others said it
}

// The steps of a fault's life, in order. Asked is not in effect.
const (
	FaultDeclared = "declared"
	FaultInjected = "injected"
	FaultInEffect = "in_effect"
	FaultHeld     = "held" // its time in effect is over, and it was in effect to the end; kinds that are over at once have none
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
	Target   string        `json:"target,omitempty"` // the victim, once it is chosen
	State    string        `json:"state"`
	// Unsupported says of a fault that failed that the target cannot have it.
	Unsupported bool           `json:"unsupported,omitempty"`
	Text        words.Sentence `json:"-"` // how it was seen, or why it failed
}

// Names of observations. Subject says of whom, Value how much.
const (
	ObsScenarioStarted = "scenario_started" // Subject: scenario
	ObsScenarioEnded   = "scenario_ended"
	ObsStageStarted    = "stage_started" // Subject: scenario/stage; Value: offered requests
	ObsStageEnded      = "stage_ended"
	ObsWorkerLost      = "worker_lost"                // Subject: worker; Text says how it was seen
	ObsInterrupted     = "interrupted"                // the run was stopped from outside; Text says by what
	ObsScanStarted     = "scan_started"               // the security scan begins; Value: how many checks
	ObsScanEnded       = "scan_ended"                 // every check has ended; Value: how many
	ObsRunEnded        = "run_ended"                  // the last line of a complete run
	ObsTokensCounted   = "tokens_counted"             // Text: how the lengths of prompts are known
	ObsResent          = "requests_resent"            // Value: how many were sent again because the kept connection had been closed
	ObsLeftOpen        = "connections_left_open"      // Value: how many the service left open after the end of an answer
	ObsSentAfterEnd    = "answers_sent_after_end"     // Value: how many answers went on after their end
	ObsReplicasReady   = "replicas_ready"             // Value: how many the gateway would route to
	ObsReplicasUntold  = "replicas_untold"            // the service does not say how many are ready; Text: what it answers
	ObsMemoryUntold    = "memory_untold"              // the service does not tell how much memory it takes; Subject: scenario; Text: why
	ObsMetricsUnread   = "metrics_unread"             // its metrics could not be read, so whether it tells is not known; Subject: scenario; Text: why
	ObsTokenizerAbsent = "tokenizer_absent"           // the service counts no tokens for its clients; Subject: scenario; Text: what it answers
	ObsTokenizerFailed = "tokenizer_failed"           // its tokenizer did not count; Subject: scenario; Value: how many answers; Text: why, of the first
	ObsHealth          = "health"                     // Value: 1 where the service's health check says that it is well, 0 where it says that it is not; Text: what it answered
	ObsReadBack        = "read_back"                  // the final read of the records has ended; Subject: scenario; Value: writes that were due
	ObsReplicaReady    = "replica_ready"              // Subject: replica; Value: 1 ready, 0 not
	ObsInFlight        = "streams_in_flight"          // Subject: replica
	ObsProcessStarted  = "process_started"            // Subject: process; Value: pid; Text: restart number
	ObsProcessExited   = "process_exited"             // Subject: process; Value: pid; Text: how it ended
	ObsLedgerReturned  = "ledger_returned"            // a ledger that was lost is there again; Subject: gateway; Value: 1 from its second place, 0 empty; Text: how
	ObsMonitoring      = "monitoring"                 // Value: 1 where the service is watched, 0 where it is not; Names: the alerts that can fire; Text: why it is not watched
	ObsAlert           = "alert"                      // Subject: alert; Value: 1 fires, 0 does not any more
	ObsQueue           = "queue"                      // Subject: replica; requests waiting
	ObsKVUsed          = "kv_used_ratio"              // Subject: replica
	ObsMemory          = "memory_bytes"               // Subject: process; resident memory
	ObsDeviceMemory    = "device_memory_bytes"        // Subject: device; taken by everybody
	ObsPower           = "power_watts"                // Subject: device
	ObsEnergy          = "energy_joules"              // Subject: device; since some moment before the run
	ObsClientCPU       = "client_cpu_ratio"           // of one core, since the last observation; the Subject of these is the worker, where there are several
	ObsClientGCPause   = "client_gc_pause_seconds"    // p99 since the last observation
	ObsClientSched     = "client_sched_delay_seconds" // p99 since the last observation
	ObsClientReadDelay = "client_read_delay_seconds"  // p99 since the last observation: from the arrival of a chunk to its being parsed
	ObsClientFiles     = "client_descriptor_ratio"    // open file descriptors, of those allowed
	ObsClientPorts     = "client_port_ratio"          // connections to the target, of the ephemeral ports there are
)

// Observation is something seen beside the requests: a line of
// observations.jsonl.
type Observation struct {
	At      time.Duration  `json:"at_ns"`
	Name    string         `json:"name"`
	Subject string         `json:"subject,omitempty"`
	Value   float64        `json:"value"`
	Text    words.Sentence `json:"-"`
	Names   []string       `json:"names,omitempty"` // of what there are several
}

// Environment is environment.json: where, when and with what a run was made.
type Environment struct {
	Format    int       `json:"format"` // of the recording, see FORMAT.md
	Version   string    `json:"version"`
	StartedAt time.Time `json:"started_at"`
	Command   []string  `json:"command"`
	Seed      uint64    `json:"seed"`
	Host      Host      `json:"host"`
	Target    Target    `json:"target"`
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
}

// Target is what was driven.
type Target struct {
	Kind     string `json:"kind"` // local | endpoint
	URL      string `json:"url"`
	Model    string `json:"model,omitempty"`
	Replicas int    `json:"replicas,omitempty"`
	// Protocol is what the client and the service spoke, and whether in clear.
	Protocol words.Kept `json:"protocol,omitzero"`
	// Allowance says how far the client was let past the limits of a gateway
	// that launchgate deployed.
	Allowance words.Kept `json:"allowance,omitzero"`
	// Watched says by whom a service that launchgate deployed was watched, or why
	// by nobody.
	Watched words.Kept `json:"watched,omitzero"`
}

// Recording is a run as the judging half sees it. Requests is streamed, so
// that ten million of them need not fit in memory; it may be ranged over more
// than once.
type Recording struct {
	Dir         string
	Environment Environment
	Gate        []byte // gate.yaml, as it was resolved for the run
	Requests    iter.Seq2[Request, error]
	// Gaps are counted where chunk times were not kept of every request; nil
	// otherwise.
	Gaps         []Gaps
	Injections   []Injection
	Observations []Observation
	// Scan is what the checks of a security scan came to, where there was one.
	Scan []ScanResult
	// Complete is whether the run wrote its end (ObsRunEnded, no ObsInterrupted).
	Complete bool
	// Warnings are what could not be read, in sentences.
	Warnings []words.Sentence
}
