package deploy

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Effect is a change that a target makes to itself for a fault, and undoes. Its
// methods are called in the order of a fault's life. A method that waits returns
// when it has seen what it waits for, with a sentence that says how, or when ctx
// ends.
type Effect interface {
	// Victim is the name of the replica or node that is hit; empty if it has none.
	Victim() string
	// Undo is how to undo the effect if this process dies after Inject has begun. It
	// is known before Inject is called.
	Undo() []Undo
	Inject(ctx context.Context) (Sight, error)
	// SeeInEffect is called when the fault was injected, and once more at the
	// end of its hold: it must still be in effect.
	SeeInEffect(ctx context.Context) (Sight, error)
	// Revert undoes what Inject did or only began to do. It can be repeated.
	Revert(ctx context.Context) (Sight, error)
	SeeGone(ctx context.Context) (Sight, error)
}

// Sight is what was seen and when; a zero time means now.
type Sight struct {
	At  time.Time
	How words.Sentence
}

// Undo takes back one thing that a fault does, as a line of a journal. It is
// plain data, so that another process can do it. It can be repeated, also when the
// thing was never done. deploy/targets knows which package carries it out.
type Undo struct {
	Do string `json:"do"`
	// To is the object of the action, such as a process, a file or an object of
	// a cluster. The package that carries it out defines its form.
	To json.RawMessage `json:"to,omitempty"`
	// UntilReboot: a reboot of this machine undoes it too, because the effect
	// is on a process.
	UntilReboot bool `json:"until_reboot,omitempty"`
}

// UnmarshalJSON reads an Undo. Older journals have the fields of To beside
// "do", and a pid among them if it concerns a process.
func (u *Undo) UnmarshalJSON(b []byte) error {
	type plain Undo
	var read struct {
		plain
		PID int `json:"pid"`
	}
	if err := json.Unmarshal(b, &read); err != nil {
		return err
	}
	*u = Undo(read.plain)
	if u.To == nil {
		u.To, u.UntilReboot = slices.Clone(b), read.PID != 0
	}
	return nil
}

// Journal is the file in which a target notes how to undo something that it makes
// when it starts, such as a network namespace, before it makes it.
type Journal interface {
	Begin(id, kind, victim string, undo []Undo) error
	End(id string) error
}

// Lack is the error of a fault that a target cannot have.
type Lack struct{ Reason words.Sentence }

func (l Lack) Error() string { return l.Reason.String() }

// Victim is the replica that a fault is to hit, and how many streams it had in
// flight. It is empty for a fault that does not choose a replica.
type Victim struct {
	Replica string
	Streams int
}

// Crowd is what a target must offer so that a victim can be chosen.
type Crowd interface {
	Replicas() []Replica
	// InFlight is the number of streams that run through each replica now.
	InFlight(ctx context.Context) (map[string]int, error)
	// Serving reports whether a replica takes part.
	Serving(ctx context.Context, replica string) bool
}

// Capability is an effect that a target may be able to have on itself. The target
// implements the interface of the capability, which has one method, or Lacks gives
// the reason why not.
type Capability int

// The capabilities of targets, each with its interface below.
const (
	KillReplica Capability = iota
	KillGateway
	HangReplica
	SlowReplica
	LimitMemory
	TakeNode
	DrainNode
	Preempt
	ShapeNetwork
	BurnCores
	FillDevice
	ThrottleDevice
	FillCache
	ExpireCertificate
	LoseLedger
	FillDisk
	SkewClock
	RollOutBad
)

// said follows "it cannot".
var said = [...]words.Phrase{
	KillReplica:       "kill a replica",
	KillGateway:       "kill the gateway",
	HangReplica:       "stop a replica from answering",
	SlowReplica:       "take cores from a replica",
	LimitMemory:       "limit the memory of a replica",
	TakeNode:          "take down a node",
	DrainNode:         "drain a node",
	Preempt:           "preempt a replica",
	ShapeNetwork:      "shape the network in front of a replica",
	BurnCores:         "use CPU cores beside the service",
	FillDevice:        "fill the memory of its device",
	ThrottleDevice:    "throttle a GPU",
	FillCache:         "fill the KV cache of a replica",
	ExpireCertificate: "replace its certificate",
	LoseLedger:        "lose the disk of its ledger",
	FillDisk:          "fill the disk of its ledger",
	SkewClock:         "change the clock of a replica",
	RollOutBad:        "roll out a bad version",
}

// Said is what is done, in words that follow "it cannot".
func (c Capability) Said() words.Sentence { return words.Say(said[c]) }

// The interface of each capability. Its method prepares the effect and does nothing
// yet. The parameters of the effect are those of the fault.
type (
	ReplicaKiller interface {
		KillReplica(ctx context.Context, v Victim, f scenarios.Fault) (Effect, error)
	}
	GatewayKiller interface {
		KillGateway(ctx context.Context, v Victim, f scenarios.Fault) (Effect, error)
	}
	ReplicaHanger interface {
		HangReplica(ctx context.Context, v Victim, f scenarios.Fault) (Effect, error)
	}
	ReplicaSlower interface {
		SlowReplica(ctx context.Context, v Victim, f scenarios.Fault) (Effect, error)
	}
	MemoryLimiter interface {
		LimitMemory(ctx context.Context, v Victim, f scenarios.Fault) (Effect, error)
	}
	NodeTaker interface {
		TakeNode(ctx context.Context, v Victim, f scenarios.Fault) (Effect, error)
	}
	NodeDrainer interface {
		DrainNode(ctx context.Context, v Victim, f scenarios.Fault) (Effect, error)
	}
	Preempter interface {
		Preempt(ctx context.Context, v Victim, f scenarios.Fault) (Effect, error)
	}
	NetworkShaper interface {
		ShapeNetwork(ctx context.Context, v Victim, f scenarios.Fault) (Effect, error)
	}
	CoreBurner interface {
		BurnCores(ctx context.Context, v Victim, f scenarios.Fault) (Effect, error)
	}
	DeviceFiller interface {
		FillDevice(ctx context.Context, v Victim, f scenarios.Fault) (Effect, error)
	}
	DeviceThrottler interface {
		ThrottleDevice(ctx context.Context, v Victim, f scenarios.Fault) (Effect, error)
	}
	CacheFiller interface {
		FillCache(ctx context.Context, v Victim, f scenarios.Fault) (Effect, error)
	}
	CertificateExpirer interface {
		ExpireCertificate(ctx context.Context, v Victim, f scenarios.Fault) (Effect, error)
	}
	LedgerLoser interface {
		LoseLedger(ctx context.Context, v Victim, f scenarios.Fault) (Effect, error)
	}
	DiskFiller interface {
		FillDisk(ctx context.Context, v Victim, f scenarios.Fault) (Effect, error)
	}
	ClockSkewer interface {
		SkewClock(ctx context.Context, v Victim, f scenarios.Fault) (Effect, error)
	}
	BadReleaser interface {
		RollOutBad(ctx context.Context, v Victim, f scenarios.Fault) (Effect, error)
	}
)
