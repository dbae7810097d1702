package host

import (
	"context"
	"slices"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// losable is what a target must offer so that the ledger's disk can be lost.
type losable interface {
	HasLedger() bool
	LoseLedger() error
	LedgerReturned() words.Sentence // how the ledger was last restored
	WithLedger() []string           // processes that use the ledger's disk; none without a ledger
}

// LoseLedger ends the processes that use the ledger's disk and removes the
// files.
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

// withDisk makes the removal include the gateway and its ledger.
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
