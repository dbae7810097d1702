package host

import (
	"context"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// BurnCommand is the argument that makes this program call Burn. The number of
// cores follows it.
const BurnCommand = "fault-burn"

// burnSlice is the period in which a burner uses its share of a core.
const burnSlice = 10 * time.Millisecond

// Burn uses so many cores from the moment it reads a line from lifeline until
// lifeline ends. So it cannot outlive the process at the other end. It runs in
// a process of its own.
func Burn(cores float64, lifeline io.Reader) error {
	if _, err := lifeline.Read(make([]byte, 1)); err != nil {
		return nil // the fault was cancelled
	}
	threads := int(math.Ceil(cores))
	runtime.GOMAXPROCS(threads + 1)
	ctx, stop := context.WithCancel(context.Background())
	var burning sync.WaitGroup
	for range threads {
		burning.Go(func() { burn(ctx, cores/float64(threads)) })
	}
	_, _ = io.Copy(io.Discard, lifeline)
	stop()
	burning.Wait()
	return nil
}

func burn(ctx context.Context, share float64) {
	busy := time.Duration(share * float64(burnSlice))
	for ctx.Err() == nil {
		began := time.Now()
		for time.Since(began) < busy {
		}
		time.Sleep(burnSlice - busy)
	}
}

// BurnCores uses so many cores in a process beside the service.
func (l *Local) BurnCores(_ context.Context, _ deploy.Victim, f scenarios.Fault) (deploy.Effect, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c, err := startChild(exec.Command(self, BurnCommand, strconv.FormatFloat(f.Cores, 'f', -1, 64)))
	return &burning{child: c, cores: f.Cores}, err
}

type burning struct {
	*child
	cores float64
	from  time.Time
}

// Victim is empty: the fault hits the whole machine.
func (b *burning) Victim() string { return "" }

func (b *burning) Undo() []deploy.Undo { return b.undo() }

func (b *burning) Inject(context.Context) (sight, error) {
	b.from = time.Now()
	return sight{How: words.Say("pid %d begins to use %g of %d cores", b.pid, b.cores, runtime.NumCPU())}, b.begin()
}

// SeeInEffect waits until the process has used a tenth of the processor time
// that it asks for in a second. On a busy machine it gets less than it asks
// for.
func (b *burning) SeeInEffect(ctx context.Context) (sight, error) {
	return until(ctx, pollEvery, func() (words.Sentence, bool) {
		st, alive := b.stat()
		if !alive {
			return words.Sentence{}, false
		}
		asked := time.Duration(b.cores * float64(time.Second))
		return words.Say("pid %d used %s of processor time in %s", b.pid, st.CPU, time.Since(b.from).Round(time.Millisecond)), st.CPU >= min(asked/10, time.Second)
	})
}

func (b *burning) Revert(context.Context) (sight, error) {
	b.end()
	return sight{How: words.Say("pid %d was ended", b.pid)}, nil
}

func (b *burning) SeeGone(context.Context) (sight, error) {
	if _, alive := b.stat(); alive {
		return sight{}, words.Errorf("the process that uses the processor still runs")
	}
	return sight{How: words.Say("pid %d is gone", b.pid)}, nil
}
