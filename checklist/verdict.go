// Package checklist makes a verdict from a gate and a recording. Judge is pure: the
// same folder gives the same findings, now or in a year. Doubt is part of the result:
// an objective without enough evidence is Unproven, one with a wrong measurement is
// Invalid, and neither is ever a pass.
package checklist

import (
	"fmt"
	"strings"

	"github.com/launchgate/launchgate/internal/words"
)

// Outcome of an objective, a fault or a whole run. The zero value is Unproven, so that
// an undecided outcome is not a pass.
type Outcome int

const (
	Unproven Outcome = iota // not enough evidence to say
	Pass
	Fail
	Invalid // the run did not do what the gate specifies, so its numbers mean nothing
)

var outcomeNames = [...]string{"unproven", "pass", "fail", "invalid"}

func (o Outcome) String() string { return outcomeNames[o] }

// MarshalText writes the outcome as in verdict.json.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (o *Outcome) UnmarshalText(b []byte) error {
	for i, name := range outcomeNames {
		if name == string(b) {
			*o = Outcome(i)
			return nil
		}
	}
	return fmt.Errorf("%q is not an outcome; %s are", b, strings.Join(outcomeNames[:], ", "))
}

// Exit codes of the launchgate command.
const (
	ExitPass        = 0
	ExitFail        = 1
	ExitUnproven    = 2
	ExitInvalid     = 3
	ExitCouldNotRun = 4
	ExitInterrupted = 130
)

// Verdict is verdict.json. The exit code, JUnit, Markdown, the terminal and HTML all
// come from it. Its sentences are English in the file, and in the language of the
// reader elsewhere.
type Verdict struct {
	Verdict Outcome `json:"verdict"`
	// Confidence is the confidence that the gate asks for, if it is not 99 %.
	Confidence float64          `json:"confidence,omitempty"`
	ExitCode   int              `json:"exit_code"`
	Why        []words.Sentence `json:"why"` // sentences, the deciding one first
	Incomplete bool             `json:"incomplete"`
	Objectives []Finding        `json:"objectives"`
	Faults     []Fault          `json:"faults"`
	Alerts     []Alert          `json:"alerts"` // nil: there was no monitoring
	Client     Client           `json:"client"`
	Scenarios  []Scenario       `json:"scenarios"`
	// Reasons are the sentences of Why, each with its subject. They are set when a run
	// is judged, and not read from verdict.json.
	Reasons []Reason `json:"-"`
	Cost    *Cost    `json:"cost,omitempty"`    // if the gate has a price
	Energy  *Energy  `json:"energy,omitempty"`  // if a device reports it
	Devices []Device `json:"devices,omitempty"` // GPUs that were observed
}

// Reason is a sentence of the verdict.
type Reason struct {
	Said  words.Sentence
	About About
}

// About is the subject of a reason.
type About int

const (
	AboutRun       About = iota // the run, its client or its gate as a whole
	AboutObjective              // an objective, whose finding has the same sentence
	AboutFault                  // a fault, which has the same sentence
)

// Finding is the judgement of one objective. Value is nil if nothing was measured,
// never zero.
type Finding struct {
	Source    string         `json:"source"`
	Scenario  string         `json:"scenario"` // empty: the whole run
	Verdict   Outcome        `json:"verdict"`
	Value     *float64       `json:"value"`
	Bound     *float64       `json:"bound,omitempty"` // confidence bound on the side of the threshold
	Unit      string         `json:"unit"`
	Threshold float64        `json:"threshold"`
	Samples   int64          `json:"samples"`
	Why       words.Sentence `json:"why"`
	// Waived: it is unproven because the service lacks the feature that it is about,
	// and the gate says where supported.
	Waived bool `json:"waived,omitempty"`

	sure  float64 // confidence of the bound
	asked float64 // confidence that the gate asks for
}

// Fault is the judgement of one fault's life. Times are seconds on the run's clock, nil
// if the step was not reached.
type Fault struct {
	ID               string         `json:"id"`
	Scenario         string         `json:"scenario"`
	Kind             string         `json:"kind"`
	Target           string         `json:"target"`
	DeclaredAt       *float64       `json:"declared_at"`
	InjectedAt       *float64       `json:"injected_at"`
	InEffectAt       *float64       `json:"in_effect_at"`
	HeldAt           *float64       `json:"held_at"` // the end of its hold, if it has one
	RevertedAt       *float64       `json:"reverted_at"`
	GoneAt           *float64       `json:"gone_at"`
	RecoveredAt      *float64       `json:"recovered_at"` // first of the consecutive good probes
	DetectionSeconds *float64       `json:"detection_seconds"`
	RTOSeconds       *float64       `json:"rto_seconds"`
	RPOSeconds       *float64       `json:"rpo_seconds"`
	LostRequests     int64          `json:"lost_requests"`
	Blast            *Blast         `json:"blast"` // nil: it is not known to have struck
	Verdict          Outcome        `json:"verdict"`
	Why              words.Sentence `json:"why"`
}

// Client says whether the measurements of the load generator are valid.
type Client struct {
	Valid                bool     `json:"valid"`
	SendLagP50Seconds    *float64 `json:"send_lag_p50_seconds"`
	SendLagP99Seconds    *float64 `json:"send_lag_p99_seconds"`
	SendLagMaxSeconds    *float64 `json:"send_lag_max_seconds"`
	OfferedPerSecond     *float64 `json:"offered_per_second"`
	AchievedPerSecond    *float64 `json:"achieved_per_second"`
	GCPauseP99Seconds    *float64 `json:"gc_pause_p99_seconds"`
	SchedDelayP99Seconds *float64 `json:"sched_delay_p99_seconds"`
	ReadDelayP99Seconds  *float64 `json:"read_delay_p99_seconds"`
	FilesRatio           *float64 `json:"descriptors_max_ratio"`
	PortsRatio           *float64 `json:"ports_max_ratio"`
	CPUMaxRatio          *float64 `json:"cpu_max_ratio"` // 1 is one core
	// WorkerClockErrorSeconds is how far the clock of any worker may have been off; nil
	// where one process sent the load.
	WorkerClockErrorSeconds *float64 `json:"worker_clock_error_seconds,omitempty"`
	// Bounds are the limits of the fields above, by their names, and the least
	// delivered_ratio, which is achieved ÷ offered of every stage.
	Bounds map[string]float64 `json:"bounds"`
	Why    words.Sentence     `json:"why"`
}

// Scenario sums up the measurements of one scenario.
type Scenario struct {
	Name                  string     `json:"name"`
	Requests              int64      `json:"requests"`
	Errors                int64      `json:"errors"`
	TTFT                  *Quantiles `json:"ttft_seconds"`
	TPOT                  *Quantiles `json:"tpot_seconds"`
	ICL                   *Quantiles `json:"icl_seconds"`
	Latency               *Quantiles `json:"latency_seconds"`
	OutputTokensPerSecond *float64   `json:"output_tokens_per_second"`
	GoodputPerSecond      *float64   `json:"goodput_per_second"`
}

// Quantiles of a distribution in seconds; nil without samples.
type Quantiles struct {
	Samples int64   `json:"samples"`
	P50     float64 `json:"p50"`
	P90     float64 `json:"p90"`
	P95     float64 `json:"p95"`
	P99     float64 `json:"p99"`
	Max     float64 `json:"max"`
}
