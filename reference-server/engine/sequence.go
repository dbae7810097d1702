package engine

import (
	"context"
	"sync"
	"time"

	"github.com/launchgate/launchgate/reference-server/sample"
	"github.com/launchgate/launchgate/reference-server/tensor"
	"github.com/launchgate/launchgate/reference-server/tokenizer"
)

// sequence is a request on its way: its prompt, and what was written so far.
type sequence struct {
	caller   Caller
	request  *asked
	tenant   *tenant   // of caller, while the scheduler has the sequence
	since    time.Time // it arrived
	ran      int       // tokens since it last began to run
	picking  bool      // its next token is being picked beside the steps
	tokens   []int32   // the prompt, then the output; the last may be one that a step under way picks (tensor.Picked)
	prompt   int       // tokens of the prompt
	limit    int       // tokens it may come to have
	computed int       // tokens whose keys and values are in the cache, or will be when the steps under way have ended
	table    []int32   // its blocks
	chain    []contents
	reused   int // prompt tokens that the cache had

	sampler   *sample.Sampler
	text      *stopper
	decoder   *tokenizer.Decoder
	ignoreEOS bool
	logprobs  bool
	stream    *Stream
	over      bool           // its last event is told
	wrote     func(id int32) // for tests; nil elsewhere
}

// asked is what the sequences of one request have in common.
type asked struct {
	begun bool // one of them has run
}

// pending are the tokens whose keys and values are to be computed: the prompt
// at first, then the token written last.
func (s *sequence) pending() int { return len(s.tokens) - s.computed }

// decoding reports whether the sequence only waits for its next token.
func (s *sequence) decoding() bool { return s.pending() == 1 && len(s.tokens) > s.prompt }

// short is how many blocks the sequence lacks to compute n more tokens.
func (s *sequence) short(n int) int {
	return (s.computed+n+tensor.BlockSize-1)/tensor.BlockSize - len(s.table)
}

// drop gives up the cache: what was computed has to be computed again.
func (s *sequence) drop(b *blocks) {
	b.release(s.table)
	s.table, s.chain, s.computed = nil, nil, 0
}

// settle makes the blocks known that computed tokens have filled. Where the last
// of these are still being computed, whoever reuses them is computed later.
func (s *sequence) settle(b *blocks) {
	for i := len(s.chain); (i+1)*tensor.BlockSize <= s.computed; i++ {
		before := b.root(s.caller.Tenant)
		if i > 0 {
			before = s.chain[i-1]
		}
		s.chain = append(s.chain, b.fill(s.table[i], before, s.tokens[i*tensor.BlockSize:(i+1)*tensor.BlockSize]))
	}
}

// used is what was computed of a sequence that is given up: the part of its
// prompt that steps have taken, and the tokens that were written.
func (s *sequence) used() Usage {
	u := Usage{Prompt: min(s.computed, s.prompt), Cached: s.reused, Output: len(s.tokens) - s.prompt}
	if u.Output > 0 { // its cache may have been given up meanwhile
		u.Prompt = s.prompt
	}
	return u
}

// full reports whether the sequence has its last token, or it is being computed.
func (s *sequence) full() bool { return len(s.tokens) >= s.limit }

// Why a generation ended.
const (
	FinishStop   = "stop"   // the model ended its turn, or wrote a stop string
	FinishLength = "length" // max_tokens, or the end of the context
)

// Usage counts the tokens of a request.
type Usage struct {
	Prompt, Cached, Output int
}

// Event is the next piece of an answer. The last one has Finish or Err set; where
// its client gave up, its Usage is what was computed until then.
type Event struct {
	Text   string
	Tokens int // output tokens that the text came from
	Finish string
	Err    error
	Usage  Usage
	// Logprobs of the tokens, where they were asked for.
	Logprobs []Logprob
}

// Logprob is a token's bytes, which may be a part of a rune, with the logarithm
// of its probability, and the likeliest tokens in its place.
type Logprob struct {
	Text    string
	Logprob float64
	Top     []Logprob
}

// Stream carries an answer from the engine to its reader. The engine never
// waits for the reader; what is not yet read is bounded by the answer's length.
type Stream struct {
	ctx  context.Context
	mu   sync.Mutex
	held []Event
	read int           // of held, those that were taken
	more chan struct{} // something is held
}

func newStream(ctx context.Context) *Stream {
	return &Stream{ctx: ctx, more: make(chan struct{}, 1)}
}

// Next waits for the next event. It returns ctx's error when the reader gives
// up first; the engine gives up with the context of Submit.
func (s *Stream) Next(ctx context.Context) (Event, error) {
	for {
		s.mu.Lock()
		if s.read < len(s.held) {
			e := s.held[s.read]
			if s.read++; s.read == len(s.held) {
				s.held, s.read = s.held[:0], 0
			}
			s.mu.Unlock()
			return e, nil
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return Event{}, context.Cause(ctx)
		case <-s.more:
		}
	}
}

func (s *Stream) put(e Event) {
	s.mu.Lock()
	s.held = append(s.held, e)
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
}
