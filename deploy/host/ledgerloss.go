package host

import (
	"context"
	"slices"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// losable is what losing the disk of the ledger needs of a target.
type losable interface {
	HasLedger() bool
	LoseLedger() error
	LedgerReturned() words.Sentence // how it came back last
	WithLedger() []string           // processes that are where the ledger is; none without one
}

// LoseLedger ends what the ledger's disk is under, and removes the files.
func (l *Local) LoseLedger(ctx context.Context, _ deploy.Victim, _ scenarios.Fault) (deploy.Effect, error) {
	return loseLedger(ctx, l.Local)
}

func loseLedger(ctx context.Context, t removable) (deploy.Effect, error) {
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
		return needsGateway("it has no ledger that could be lost")
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
