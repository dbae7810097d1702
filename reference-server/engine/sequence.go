package engine

import (
	"context"
	"sync"
	"time"

	"github.com/launchgate/launchgate/internal/tokenizer"
	"github.com/launchgate/launchgate/reference-server/sample"
	"github.com/launchgate/launchgate/reference-server/tensor"
)

// sequence is an answer under way: its prompt and the tokens written so far.
type sequence struct {
	caller   Caller
	request  *asked
	tenant   *tenant   // of caller, while the scheduler has the sequence
	since    time.Time // when it arrived
	ran      int       // tokens since it last began to run
	picking  bool      // its next token is being picked beside the steps
	tokens   []int32   // the prompt, then the output; the last may be one that a step under way picks (tensor.Picked)
	prompt   int       // tokens of the prompt
	limit    int       // the most tokens that it may have
	computed int       // tokens whose keys and values are in the cache, or will be when the steps under way have ended
	table    []int32   // its blocks
	chain    []contents
	reused   int // prompt tokens that came from the cache

	sampler   *sample.Sampler
	text      *stopper
	decoder   *tokenizer.Decoder
	ignoreEOS bool
	logprobs  bool
	stream    *Stream
	over      bool           // its last event was sent
	wrote     func(id int32) // for tests; nil elsewhere
}

// asked is the common state of the sequences of one request.
type asked struct {
	begun bool // one of them has run
}

// pending is the number of tokens whose keys and values must still be computed:
// first the prompt, then the last written token.
func (s *sequence) pending() int { return len(s.tokens) - s.computed }

// decoding reports whether the sequence only waits for its next token.
func (s *sequence) decoding() bool { return s.pending() == 1 && len(s.tokens) > s.prompt }

// short is how many blocks the sequence lacks to compute n more tokens.
func (s *sequence) short(n int) int {
	return (s.computed+n+tensor.BlockSize-1)/tensor.BlockSize - len(s.table)
}

// drop frees the sequence's blocks. Its keys and values must be computed again.
func (s *sequence) drop(b *blocks) {
	b.release(s.table)
	s.table, s.chain, s.computed = nil, nil, 0
}

// settle makes the blocks known that computed tokens have filled. The last ones
// may still be being computed, but a sequence that reuses them is computed in a
// later step.
func (s *sequence) settle(b *blocks) {
	for i := len(s.chain); (i+1)*tensor.BlockSize <= s.computed; i++ {
		before := b.root(s.caller.Tenant)
		if i > 0 {
			before = s.chain[i-1]
		}
		s.chain = append(s.chain, b.fill(s.table[i], before, s.tokens[i*tensor.BlockSize:(i+1)*tensor.BlockSize]))
	}
}

// used is the usage of an abandoned sequence: the computed part of its prompt
// and the written tokens.
func (s *sequence) used() Usage {
	u := Usage{Prompt: min(s.computed, s.prompt), Cached: s.reused, Output: len(s.tokens) - s.prompt}
	if u.Output > 0 { // its blocks may have been freed meanwhile
		u.Prompt = s.prompt
	}
	return u
}

// full reports whether the sequence has its last token, or the last token is
// being computed.
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

// Event is the next piece of an answer. The last one has Finish or Err set. If
// the client gave up, its Usage is what was computed until then.
type Event struct {
	Text   string
	Tokens int // output tokens that the text came from
	Finish string
	Err    error
	Usage  Usage
	// Logprobs of the tokens, if they were requested.
	Logprobs []Logprob
}

// Logprob is a token's bytes, which may be a part of a rune, with the logarithm
// of its probability and the most likely alternatives.
type Logprob struct {
	Text    string
	Logprob float64
	Top     []Logprob
}

// Stream carries an answer from the engine to its reader. The engine never
// waits for the reader. The length of the answer bounds the unread events.
type Stream struct {
	ctx  context.Context
	mu   sync.Mutex
	held []Event
	read int           // number of held events that were read
	more chan struct{} // signals an unread event
}

func newStream(ctx context.Context) *Stream {
	return &Stream{ctx: ctx, more: make(chan struct{}, 1)}
}

// Next waits for the next event. It returns ctx's error if the reader gives up
// first. The engine gives up when the context of Submit ends.
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
