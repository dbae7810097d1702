package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// lenient is a deployment whose roll-out of a bad version ends as ends says.
type lenient struct {
	bare
	dir   string
	ends  func(context.Context) (deploy.Released, error)
	taken int // number of releases taken back by hand
}

func (l *lenient) RollOutBad(ctx context.Context, _ deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
	return rollOutBad(ctx, l, f)
}
func (l *lenient) Replicas() []deploy.Replica           { return []deploy.Replica{{Name: "replica-0"}} }
func (l *lenient) Serving(context.Context, string) bool { return true }
func (l *lenient) PID(string) int                       { return 1 }
func (l *lenient) Command(string) []string              { return []string{"serve"} }
func (l *lenient) WithLedger() []string                 { return []string{deploy.Gateway} }
func (l *lenient) LogDir() string                       { return l.dir }
func (l *lenient) ModelFile(context.Context) (string, error) {
	return filepath.Join(l.dir, "model"), nil
}
func (l *lenient) Deepen(_ context.Context, _, to string) error {
	return os.WriteFile(to, []byte("deeper"), 0o600)
}
func (l *lenient) Limits() string                 { return "good.yaml" }
func (l *lenient) TakeBack(context.Context) error { l.taken++; return nil }
func (l *lenient) Release(ctx context.Context, _ deploy.Release, _ func(words.Sentence)) (deploy.Released, error) {
	return l.ends(ctx)
}

func (l *lenient) Reconfigure(ctx context.Context, file string) (deploy.Released, error) {
	if file == l.Limits() {
		l.taken++
		return deploy.Released{Live: true}, nil
	}
	return l.ends(ctx)
}

var _ releasable = (*lenient)(nil)

// If the deployment does not roll a bad version back, the fault takes it back
// by hand and never sees it gone. A version that reached no replica was never
// in effect.
func TestBadReleaseThatIsNotRolledBack(t *testing.T) {
	live := func(context.Context) (deploy.Released, error) {
		return deploy.Released{Live: true, Why: words.Kept{Sentence: words.Verbatim("served by all")}}, nil
	}
	for _, tt := range []struct {
		name, release string
		ends          func(context.Context) (deploy.Released, error)
		want, says    string
		taken         int
	}{
		{"a model goes live", scenarios.ReleaseCorruptModel, live, "injected in_effect reverted failed", "it went live: served by all", 1},
		{"limits are taken", scenarios.ReleaseBadConfig, live, "injected in_effect reverted failed", "it went live: served by all", 1},
		{"nobody ends it", scenarios.ReleaseErroring, func(ctx context.Context) (deploy.Released, error) {
			<-ctx.Done()
			return deploy.Released{Why: words.Kept{Sentence: words.Verbatim("context canceled")}, RollBack: 1}, nil
		}, "injected failed reverted", "never seen in effect", 1},
		{"refused before", scenarios.ReleaseErroring, func(context.Context) (deploy.Released, error) {
			return deploy.Released{Why: words.Kept{Sentence: words.Verbatim("no such version")}}, nil
		},
			"injected failed reverted", "was refused before replica-0 had it: no such version", 0},
		{"it cannot be rolled back", scenarios.ReleaseErroring, func(context.Context) (deploy.Released, error) {
			return deploy.Released{}, errors.New("the roll-back failed")
		},
			"injected failed reverted", "the roll-back failed", 1},
		{"a slow one goes live", scenarios.ReleaseSlow, live, "injected in_effect reverted failed", "it went live: served by all", 1},
		{"rolled back", scenarios.ReleaseErroring, func(context.Context) (deploy.Released, error) {
			return deploy.Released{Why: words.Kept{Sentence: words.Verbatim("errors")}, RollBack: 1}, nil
		},
			"injected in_effect reverted gone", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := &lenient{dir: t.TempDir(), ends: tt.ends}
			if err := os.WriteFile(filepath.Join(l.dir, "model"), make([]byte, 100), 0o600); err != nil {
				t.Fatal(err)
			}
			lines := play(t.Context(), journal(t), l, scenarios.Fault{Kind: "bad-release", Release: tt.release, Within: scenarios.Duration(300 * time.Millisecond)})
			if got := states(lines); got != "declared "+tt.want || l.taken != tt.taken {
				t.Errorf("states are %q, want %q; taken back %d times, want %d", got, tt.want, l.taken, tt.taken)
			}
			if got := text(lines, "failed"); !strings.Contains(got, tt.says) {
				t.Errorf("it says %q, want %q", got, tt.says)
			}
			if left, _ := filepath.Glob(filepath.Join(l.dir, ofOurs+"*")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}
