// Package prompt makes the prompts: from a list, from a dataset, or from random words,
// with a length counted in the target's own tokens. The same seed makes the same
// prompts, except for the salt, which is new in every run.
package prompt

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/loadgen/trace"
	"github.com/launchgate/launchgate/scenarios"
)

// Material is what the prompts of a gate are made of, and has to be read or measured
// before the run.
type Material struct {
	// Vocabulary is for prompts of a given length; its How is empty if the gate has no
	// such prompts.
	Vocabulary Vocabulary
	// Nonce distinguishes this run's prompts from those of any other run.
	Nonce    uint64
	datasets map[string]Dataset
	traces   map[traceFile]trace.Trace
	keys     map[string]string // by the variables that hold them
	names    []string          // of the scenarios
}

// Gather reads the files that a gate names. Until Learn is called, the target's tokens
// are a guess.
func Gather(g scenarios.Gate) (*Material, error) {
	m := &Material{Nonce: rand.Uint64(), datasets: map[string]Dataset{}, traces: map[traceFile]trace.Trace{}, keys: map[string]string{}}
	if _, has := counted(g); has {
		m.Vocabulary = Guessed()
	}
	for _, s := range g.Scenarios {
		m.names = append(m.names, s.Name)
		for _, class := range s.Mix() {
			if err := m.dataset(class.Workload.Dataset); err != nil {
				return nil, words.Errorf("scenario %s: %s", s.Name, err)
			}
		}
		for _, stage := range s.Stages {
			if stage.Trace == nil {
				continue
			}
			if err := m.trace(*stage.Trace); err != nil {
				return nil, words.Errorf("scenario %s: %s", s.Name, err)
			}
		}
	}
	return m, nil
}

// Keys takes the keys of the gate's tenants, by the names of their variables.
func (m *Material) Keys(g scenarios.Gate, keys map[string]string) error {
	for _, s := range g.Scenarios {
		for _, class := range s.Mix() {
			name := class.Workload.APIKeyEnv
			if name == "" {
				continue
			}
			key, err := OneLine(keys[name])
			if err != nil {
				return words.Errorf("scenario %s: the environment variable %s for an API key %s", s.Name, name, err)
			}
			m.keys[name] = key
		}
	}
	return nil
}

// OneLine is a secret without the line break at the end of its file. Its error never
// repeats the secret.
func OneLine(secret string) (string, error) {
	secret = strings.TrimSpace(secret)
	if secret == "" {
		return "", words.Errorf("is empty")
	}
	if i := strings.IndexFunc(secret, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
		return "", words.Errorf("has a line break or another control character after %d bytes, expected one line", i)
	}
	return secret, nil
}

// Learn finds out how the target counts tokens, if the gate has prompts of a given
// length. It sends requests like those of the load.
func (m *Material) Learn(ctx context.Context, g scenarios.Gate, c *client.Client) (err error) {
	if w, has := counted(g); has {
		maker := m.Maker(w, 0)
		m.Vocabulary, err = learn(ctx, c, maker.Prompt(Asked{Talk: Talk{MaxTokens: client.Least(w.API)}}, nil, rand.New(rand.NewPCG(0, 0))))
	}
	return err
}

// counted is the workload of the first prompts whose length is given in tokens; false
// if there are none.
func counted(g scenarios.Gate) (scenarios.Workload, bool) {
	for _, s := range g.Scenarios {
		for _, class := range s.Mix() {
			if class.Workload.Synthetic != nil {
				return class.Workload, true
			}
		}
		for _, stage := range s.Stages {
			if stage.Trace != nil {
				return s.Mix()[0].Workload, true
			}
		}
	}
	return scenarios.Workload{}, false
}

func (m *Material) dataset(file string) (err error) {
	if _, read := m.datasets[file]; file != "" && !read {
		m.datasets[file], err = LoadDataset(file)
	}
	return err
}

func (m *Material) trace(t scenarios.Trace) (err error) {
	if _, read := m.traces[fileOf(t)]; !read {
		m.traces[fileOf(t)], err = trace.Load(t.File, t.Unit)
	}
	return err
}

// traceFile is the file of a trace, and the unit of its times.
type traceFile struct{ name, unit string }

func fileOf(t scenarios.Trace) traceFile { return traceFile{t.File, t.Unit} }

// Remarks are the parts of the gate's files that are not sent as they are written
// there.
func (m *Material) Remarks() (remarks []words.Sentence) {
	for _, file := range slices.Sorted(maps.Keys(m.datasets)) {
		if n := m.datasets[file].LeftOut; n > 0 {
			remarks = append(remarks, words.Say("dataset %s: %d of its %d records are left out, because they contain no user message", file, n, n+len(m.datasets[file].Talks)))
		}
	}
	for _, file := range slices.SortedFunc(maps.Keys(m.traces), func(a, b traceFile) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.unit, b.unit)) }) {
		if n := m.traces[file].Failed; n > 0 {
			remarks = append(remarks, words.Say("trace %s: %d of its %d requests are left out, because they got no answer in the recording", file.name, n, n+len(m.traces[file].Requests)))
		}
	}
	return remarks
}

// Trace is the content of a trace that the gate names.
func (m *Material) Trace(t scenarios.Trace) trace.Trace { return m.traces[fileOf(t)] }

// Maker makes the prompts of one workload.
type Maker struct {
	work  scenarios.Workload
	from  *Material
	talks []Talk
	seed  uint64 // for what the prompts of a group share
	// fields of the requests, as the client takes them.
	fields   map[string]string
	scenario string // in the marks of its prompts
}

// Maker makes a Maker for a workload.
func (m *Material) Maker(w scenarios.Workload, seed uint64) *Maker {
	return &Maker{work: w, from: m, talks: m.datasets[w.Dataset].Talks, seed: seed, fields: scenarios.Texts(w.Fields)}
}

// Of sets the scenario of the prompts.
func (m *Maker) Of(scenario string) *Maker {
	m.scenario = scenario
	return m
}

// Asked is the talk of one request, or of one user.
type Asked struct {
	Talk
	mark client.Mark // in every question, if the workload wants marks
	bare []string    // the questions without their marks and salt
}

// marked adds the mark of a request to the questions of a talk, if the workload wants
// marks.
func (m *Maker) marked(talk Talk, bare []string, id uint64) Asked {
	t := Asked{Talk: talk}
	if !m.work.Marks {
		return t
	}
	t.mark = client.Mark{Run: m.from.Nonce, Scenario: m.scenario, Request: id, Names: m.from.names}
	questions := make([]string, len(t.Questions))
	for i, q := range t.Questions {
		questions[i] = t.mark.Asked(q)
	}
	t.Questions, t.bare = questions, bare
	return t
}

// saltWords is how many words at the end of a synthetic prompt are new in every run.
const saltWords = 8

// Talk draws a conversation with as many questions as the workload has turns. id is the
// id of the request, unique in the run.
func (m *Maker) Talk(rng *rand.Rand, id uint64) Asked {
	salt := m.salt(id)
	var t Talk
	var bare []string
	switch {
	case m.work.Synthetic != nil:
		for range m.work.Turns {
			t.Questions = append(t.Questions, m.synthetic(rng, salt))
		}
		bare = t.Questions
	case len(m.talks) > 0:
		t = m.talks[rng.IntN(len(m.talks))]
		bare = t.Questions[:min(m.work.Turns, len(t.Questions))]
		t.Questions = salted(bare, salt)
	default:
		for range m.work.Turns {
			t.Questions = append(t.Questions, m.work.Prompts[rng.IntN(len(m.work.Prompts))])
		}
		bare = t.Questions
		t.Questions = salted(bare, salt)
	}
	if s := m.work.System; s != "" && (len(t.Before) == 0 || t.Before[0].Role != "system") {
		t.Before = append([]client.Message{{Role: "system", Content: s}}, t.Before...)
	}
	return m.marked(t, bare, id)
}

// salt draws the salt of a request; nil if the workload wants none.
func (m *Maker) salt(id uint64) *rand.Rand {
	if m.work.Salt == nil || !*m.work.Salt {
		return nil
	}
	return rand.New(rand.NewPCG(m.from.Nonce, id))
}

// salted adds a unique mark to the end of every question. The text before it is the
// same in every run, so that a prefix cache works as it does for users.
func salted(questions []string, salt *rand.Rand) []string {
	if salt == nil {
		return questions
	}
	marked := make([]string, len(questions))
	for i, q := range questions {
		marked[i] = fmt.Sprintf("%s (%06x)", q, salt.Uint32()>>8)
	}
	return marked
}

// synthetic draws a prompt: first the words that its group shares, then words of its
// own, the last few of which are the salt.
func (m *Maker) synthetic(rng, salt *rand.Rand) string {
	s := m.work.Synthetic
	tokens := s.Tokens.Draw(rng)
	var b strings.Builder
	common := 0
	if s.Prefixes > 0 {
		group := rng.IntN(s.Prefixes)
		common = min(s.PrefixTokens, tokens)
		m.from.Vocabulary.write(&b, common, rand.New(rand.NewPCG(m.seed, uint64(group))))
	}
	m.own(&b, tokens-common, rng, salt)
	return b.String()
}

// own ends a prompt with words that no other prompt has.
func (m *Maker) own(b *strings.Builder, tokens int, rng, salt *rand.Rand) {
	last := 0
	if salt != nil {
		last = min(saltWords, tokens)
	}
	if tokens > last {
		m.from.Vocabulary.write(b, tokens-last, rng)
	}
	if last > 0 {
		m.from.Vocabulary.write(b, last, salt)
	}
}

// Replayed is the prompt of a trace's request: its blocks, which other requests of the
// trace may share, or words of its own.
func (m *Maker) Replayed(r trace.Request, rng *rand.Rand, id uint64) Asked {
	var b strings.Builder
	rest := r.Input
	for _, block := range r.Blocks {
		n := min(trace.BlockTokens, rest)
		if rest -= n; n > 0 {
			m.from.Vocabulary.write(&b, n, rand.New(rand.NewPCG(m.seed, block)))
		}
	}
	if rest > 0 {
		m.own(&b, rest, rng, m.salt(id))
	}
	questions := []string{b.String()}
	return m.marked(Talk{Questions: questions, MaxTokens: r.Output}, questions, id)
}

// Prompt makes the prompt that sends the messages of a talk so far.
func (m *Maker) Prompt(t Asked, messages []client.Message, rng *rand.Rand) client.Prompt {
	w := m.work
	tokens := t.MaxTokens
	if tokens == 0 {
		tokens = w.MaxTokens.Draw(rng)
	}
	return client.Prompt{
		Mark: t.mark, Question: t.about(messages),
		API: w.API, Model: w.Model, APIKey: m.from.keys[w.APIKeyEnv], Connection: client.Connection(w.Connection), Messages: messages, MaxTokens: tokens, Fields: m.fields,
		Temperature: *w.Temperature, IgnoreEOS: w.IgnoreEOS, Finish: w.Finish, Stream: *w.Stream, Timeout: time.Duration(w.Timeout),
	}
}

// about is a hash of the question in the last message, without its mark and salt.
func (t Asked) about(messages []client.Message) int64 {
	for i, bare := range t.bare {
		if len(messages) > 0 && messages[len(messages)-1].Content == t.Questions[i] {
			return client.HashOf(bare)
		}
	}
	return 0
}

// First is the first question of a talk, with the messages before it.
func (t Talk) First() []client.Message {
	return append(append([]client.Message(nil), t.Before...), client.Message{Role: "user", Content: t.Questions[0]})
}
