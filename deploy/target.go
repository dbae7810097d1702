package deploy

import (
	"context"
	"slices"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Plan is a target before it is brought up: what its gate alone says of it.
type Plan interface {
	// About is what is known of the target by now.
	About() About
	// Replicas are those that will serve. There are none where launchgate does
	// not know them, as those of a service that is already there.
	Replicas() []Replica
	// Lacks is why the target will not be able to have the effect of a fault, as
	// far as that is known before it is up; nil where it will.
	Lacks(c Capability, f scenarios.Fault) error
	// PlayedBy says by what a fault will be played, where there is a choice.
	PlayedBy(f scenarios.Fault) words.Sentence
	// Open brings the target up, or points at it, and returns at once. What has
	// been opened must be stopped.
	Open(ctx context.Context, o Setup) (Target, error)
}

// Target is a service under test, whatever it runs on. What a fault may do to it
// is asked of it by the interface of a Capability.
type Target interface {
	About() About
	Access() Access
	Replicas() []Replica
	// Lacks is why the target cannot have the effect of a fault; nil where it can.
	Lacks(c Capability, f scenarios.Fault) error
	// Metrics are where it tells its metrics, as far as that is known.
	Metrics() []Source
	// WaitReady waits until every replica serves. Its error says what the target
	// said of itself last.
	WaitReady(ctx context.Context) error
	// Stop ends what Open has started, and returns when nothing of it runs. What
	// was there before goes on.
	Stop() error
}

// About is what a target is, for the recording, for a plan and for a person who
// watches.
type About struct {
	Kind     string // the word of the recording: local, endpoint
	URL      string // empty where it is not known yet
	Model    string // that it is told to serve; empty: its own
	Models   []ServedModel
	Replicas int // that launchgate starts, or that are there
	// Place says what it is and where, of what is neither on this machine nor known by
	// a URL alone.
	Place words.Sentence
	// RunsBuild: it runs the Build of the Setup, so that another build makes another
	// target.
	RunsBuild bool
	// Allowance is how far the client is let past the limits of a gateway that
	// launchgate starts; empty where that has none.
	Allowance words.Sentence
	// Watched is by whom it is watched, or why by nobody; empty where launchgate
	// does not know. Before the target is up it is only why by nobody.
	Watched words.Sentence
	// Tells are the observations that the target makes of itself: nobody else
	// has to look for them.
	Tells []string
}

// ServedModel is one of several models that a replica serves.
type ServedModel struct{ Name, Quantization string }

// TellsOf reports whether the target makes an observation of itself.
func (a About) TellsOf(observation string) bool { return slices.Contains(a.Tells, observation) }

// Access is how a target is reached.
type Access struct {
	// Endpoint has the URL, the certificate authority, and the name of the
	// variable that the API key goes by.
	Endpoint scenarios.Endpoint
	// Via is what is connected to in place of the URL's address; empty: nothing.
	Via string
	// Keys are the API keys that were issued for the run, by the variables that
	// they go by. They are in no file and in no environment. A key that is not
	// among them is in the environment.
	Keys map[string]string
}

// Replica is one of those who serve.
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
	LogDir string // of logs, and of what the gateway keeps
	// AnyLoad has the run's own keys let past the limits of the gateway at any
	// load, and not only at twice what the gate plans.
	AnyLoad bool
	// Journal is of the run's faults; nil where it plays none.
	Journal Journal
	// OnEvent is told what happens. It must be safe for concurrent use.
	OnEvent func(Event)
}
