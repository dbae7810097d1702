package measure

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/run"
	"github.com/launchgate/launchgate/internal/version"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Side is one of the two services that are compared.
type Side struct {
	Gate   scenarios.Gate // its target is the service
	Server string         // the reference-server program
}

// Baseline compares two services in blocks of the same load. The blocks are played in
// the order base, head, head, base, and so on, so that drift affects both alike. The
// two blocks of a pair send the same requests.
type Baseline struct {
	Base, Head Side
	One        scenarios.Gate // for a single block, see capacity.Try
	Pairs      int
	Dir        string // for the recordings of the blocks
	Command    []string
	// Judge judges the recording in a folder, and Read reads it.
	Judge func(dir string) (checklist.Verdict, error)
	Read  func(dir string) (scenarios.Gate, *recording.Recording, error)
	// Tell receives the progress of a block. Opened is called for each side that is
	// open, Ready when both are, and LeftOut for a block without a usable result, with
	// the reason.
	Tell    func(block string, p run.Progress)
	Opened  func(side, url string)
	Ready   func()
	LeftOut func(pair int, why words.Sentence)
}

// Compared are the blocks of base and head, in pairs, and how many pairs were left out.
// If ctx ends early, it holds the blocks played by then.
type Compared struct {
	Sides   [2][]checklist.Block
	LeftOut int
	Head    string // its address
}

// Play opens both services, and plays the pairs.
func (b Baseline) Play(ctx context.Context) (c Compared, err error) {
	names := [2]string{"base", "head"}
	var sessions [2]*run.Session
	for i, side := range []Side{b.Base, b.Head} {
		logs := filepath.Join(b.Dir, "logs-"+names[i])
		if err := os.MkdirAll(logs, 0o755); err != nil {
			return c, err
		}
		if sessions[i], err = run.Open(ctx, side.Gate, side.Server, logs); err != nil {
			return c, fmt.Errorf("%s: %w", names[i], err)
		}
		defer sessions[i].Close()
		b.Opened(names[i], sessions[i].Endpoint.URL)
	}
	c.Head = sessions[1].Endpoint.URL
	b.Ready()
	for pair := 0; pair < b.Pairs && ctx.Err() == nil; pair++ {
		var both [2]*checklist.Block
		for turn := range 2 {
			side := (pair + turn) % 2 // base head, head base, …
			block, why, err := b.play(ctx, sessions[side], fmt.Sprintf("block-%03d-%s", pair+1, names[side]), pair)
			if err != nil {
				return c, err
			}
			if ctx.Err() != nil {
				break
			}
			if block == nil {
				b.LeftOut(pair+1, why)
			}
			both[side] = block
		}
		if both[0] == nil || both[1] == nil {
			c.LeftOut++
			continue
		}
		c.Sides[0], c.Sides[1] = append(c.Sides[0], *both[0]), append(c.Sides[1], *both[1])
	}
	return c, nil
}

// play plays one block and cuts out what is compared; nil if the client was too slow.
func (b Baseline) play(ctx context.Context, s *run.Session, name string, pair int) (*checklist.Block, words.Sentence, error) {
	gate, dir := b.One, filepath.Join(b.Dir, name)
	gate.Target = scenarios.Target{Endpoint: &s.Endpoint}
	gate.Seed += uint64(pair)
	err := run.Run(ctx, run.Options{Gate: gate, Keys: s.Keys, Dir: dir, Version: version.Short(), Command: b.Command, Tell: func(p run.Progress) {
		if p.Live != nil {
			b.Tell(name, p)
		}
	}})
	if err != nil || ctx.Err() != nil {
		return nil, words.Sentence{}, err
	}
	v, err := b.Judge(dir)
	if err != nil {
		return nil, words.Sentence{}, err
	}
	if !v.Client.Valid {
		return nil, v.Client.Why, nil
	}
	g, rec, err := b.Read(dir)
	if err != nil {
		return nil, words.Sentence{}, err
	}
	blocks, err := checklist.Blocks(g, rec, 1)
	if err != nil || len(blocks) != 1 {
		return nil, words.Say("it contains no load"), err
	}
	return &blocks[0], words.Sentence{}, nil
}

// FirstRate is the rate of the first open-loop stage of the gate's first
// scenario without faults.
func FirstRate(gate scenarios.Gate) (scenarios.Rate, error) {
	for _, s := range gate.Scenarios {
		for _, st := range s.Stages {
			if len(s.Faults) == 0 && st.Rate > 0 {
				return st.Rate, nil
			}
		}
	}
	return 0, fmt.Errorf("%s has no scenario without faults that has a rate, which is what --baseline compares", gate.Name)
}
