package deploy

import (
	"context"
	"slices"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Plan is a target before it is started, as its gate describes it.
type Plan interface {
	// About is what is known of the target by now.
	About() About
	// Replicas are those that will serve; none if launchgate does not know them, as
	// for a service that it does not deploy.
	Replicas() []Replica
	// Lacks is why the target will not be able to have the effect of a fault, as
	// far as that is known before it is up; nil where it will.
	Lacks(c Capability, f scenarios.Fault) error
	// PlayedBy says what will play a fault, such as the kernel or a proxy; empty if
	// there is no choice.
	PlayedBy(f scenarios.Fault) words.Sentence
	// Open starts the target, or points at it, and returns at once. The Target must
	// be stopped.
	Open(ctx context.Context, o Setup) (Target, error)
}

// Target is a service under test, wherever it runs. A fault asks it for an effect
// through the interface of a Capability.
type Target interface {
	About() About
	Access() Access
	Replicas() []Replica
	// Lacks is why the target cannot have the effect of a fault; nil where it can.
	Lacks(c Capability, f scenarios.Fault) error
	// Metrics are the known places where its metrics can be read.
	Metrics() []Source
	// WaitReady waits until every replica serves. Its error has the last status that
	// the target reported.
	WaitReady(ctx context.Context) error
	// Stop ends everything that Open has started and returns when nothing of it runs.
	// A service that ran before is left alone.
	Stop() error
}

// About describes a target, for the recording, for a dry run and for the screen.
type About struct {
	Kind     string // the word of the recording: local, endpoint
	URL      string // empty where it is not known yet
	Model    string // the model that it is started with; empty: its own
	Models   []ServedModel
	Replicas int // that launchgate starts, or that exist
	// Place says what the target is and where it runs. It is for targets that
	// are not on this machine and that a URL does not describe.
	Place words.Sentence
	// Asked says how requests are sent to a service that launchgate does not deploy.
	Asked []words.Sentence
	// RunsBuild: the target runs the Build of the Setup.
	RunsBuild bool
	// Allowance is how far the run may exceed the limits of a gateway that launchgate
	// starts; empty if the gateway has no limits.
	Allowance words.Sentence
	// Watched says what monitors it, or why nothing does; empty if launchgate does not
	// know. Before the target is started it can only be the reason why nothing does.
	Watched words.Sentence
	// Seating is what the replicas compute on; nil where that is not known.
	Seating *Seating
	// Settings are those of each replica, as the gate gives them.
	Settings Settings
	// Tells are the observations that the target makes itself. The run does not
	// make these.
	Tells []string
}

// Settings of a replica; 0 where the gate leaves them to the server.
type Settings struct {
	MaxBatchSize      int
	MaxSequenceLength int
	Threads           int
	GPUMemoryFraction float64
	KVCacheBytes      int64
}

// ServedModel is one of several models that a replica serves.
type ServedModel struct{ Name, Quantization string }

// TellsOf reports whether the target itself makes an observation.
func (a About) TellsOf(observation string) bool { return slices.Contains(a.Tells, observation) }

// Access is how a target is reached.
type Access struct {
	// Endpoint has the URL, the certificate authority, and the name of the
	// variable that the API key goes by.
	Endpoint scenarios.Endpoint
	// Via is the address to connect to in place of that in the URL; empty: the URL's.
	Via string
	// Inside is the URL by which pods of the service's cluster reach it; empty: by that
	// of the Endpoint.
	Inside string
	// Keys are the API keys that were issued for the run, by the names of their
	// variables. They are in no file and in no environment. Every other key is read
	// from the environment.
	Keys map[string]string
}

// Replica is one of the processes or pods that serve.
type Replica struct {
	Name   string
	Node   string // the machine that it runs on; empty where that is not known
	Device string // that it computes on; empty where that is not known
}

// Names are those of replicas.
func Names(replicas []Replica) []string {
	names := make([]string, len(replicas))
	for i, r := range replicas {
		names[i] = r.Name
	}
	return names
}

// Source is where metrics are read.
type Source struct {
	Name string // of the process
	URL  string
	// Beside: they are at /metrics beside the API, if there are any, and reached as
	// the API is; the URL is empty.
	Beside bool
}

// Setup is how a target is brought up, besides what the gate says of it.
type Setup struct {
	// Build is what to run, for a target that launchgate deploys: a reference-server
	// program on this machine, or an image where the target runs images.
	Build  string
	LogDir string // folder of the logs and the gateway's files
	// AnyLoad lets the run's own keys exceed the gateway's limits at any load, and not
	// only up to twice the load that the gate plans.
	AnyLoad bool
	// Journal is of the run's faults; nil where it plays none.
	Journal Journal
	// OnEvent is called for each event. It must be safe for concurrent use.
	OnEvent func(Event)
}
