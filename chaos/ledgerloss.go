package chaos

import (
	"context"
	"slices"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

var ledgerLoss = Kind{
	Name:      "ledger-loss",
	Does:      "ends the gateway and what replicates its ledger with SIGKILL, and removes the ledger's files for good; with for, the disk stays away so long. The deployment then restores the ledger from its second place, or begins an empty one, with the same API keys, where there is none (target.local.gateway.unreplicated)",
	Needs:     "a deployment of launchgate's own whose gateway is not plain (target.local); durability in the scenario, for what is lost to be measured",
	Seen:      "both processes are gone, and so are the files; gone again when a ledger is there, and a new gateway routes to every replica that the old one did",
	Simulates: "the disk under the ledger lost at once: a failed volume, a node that does not come back",
	Example:   "{kind: ledger-loss, at: 5s, for: 2s}",
	door:      true,
	prepare:   prepareLedgerLoss,
}

// losable is what losing the disk of the ledger needs of a target.
type losable interface {
	HasLedger() bool
	LoseLedger() error
	LedgerReturned() words.Sentence // how it came back last
	WithLedger() []string           // processes that are where the ledger is; none without one
}

func prepareLedgerLoss(ctx context.Context, target any, _ scenarios.Fault, _ uint64) (fault, error) {
	t, ok := target.(removable)
	if !ok {
		return nil, notOurs("launchgate has no ledger of it to lose")
	}
	inFlight, err := t.InFlight(ctx)
	r := &removal{target: t, victim: deploy.Gateway}
	for _, streams := range inFlight {
		r.streams += streams
	}
	if err != nil {
		return nil, err
	}
	return r, r.withDisk(ctx)
}

// withDisk has the removal take the gateway and its ledger too.
func (r *removal) withDisk(ctx context.Context) error {
	disk, ok := r.target.(losable)
	if !ok || len(disk.WithLedger()) == 0 {
		return needsDoor("it has no ledger that could be lost")
	}
	r.disk = disk
	r.all = append(r.all, disk.WithLedger()...)
	for _, replica := range deploy.Names(r.target.Replicas()) {
		if !slices.Contains(r.serving, replica) && r.target.Serving(ctx, replica) {
			r.serving = append(r.serving, replica)
		}
	}
	return nil
}
