package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/launchgate/launchgate/reference-server/device"
)

// Pool serves several models on one device. A model is loaded when it is first
// asked for; when the device has no memory for it, idle ones are unloaded, the
// least recently used first.
type Pool struct {
	log    *slog.Logger
	models []*slot // in the order they were named

	mu       sync.Mutex
	draining bool
	missing  string // the missing file of a model; empty: none
}

// slot is a model that can be loaded.
type slot struct {
	cfg Config

	// These fields are guarded by Pool.mu.
	engine  *Engine       // nil: not loaded
	loading chan struct{} // closed when the load under way has ended; nil: there is none
	done    float64       // of the load under way
	users   int           // requests under way
	used    time.Time     // last use
	stop    context.CancelFunc
	ended   chan struct{} // Run has returned
}

// UnknownModelError names a model that is not served, and those that are.
type UnknownModelError struct {
	Name   string
	Served []string
}

func (e *UnknownModelError) Error() string {
	return fmt.Sprintf("the model %q is not served here; %q are", e.Name, e.Served)
}

// ErrLoading is returned for a model that is being loaded.
var ErrLoading = errors.New("the model is being loaded")

// NewPool serves the models of configs; their names must differ.
func NewPool(configs []Config, log *slog.Logger) (*Pool, error) {
	p := &Pool{log: log}
	for _, c := range configs {
		c = c.withDefaults()
		for _, s := range p.models {
			if s.cfg.Name == c.Name {
				return nil, fmt.Errorf("two models are called %q; give names: --model NAME=PATH", c.Name)
			}
		}
		p.models = append(p.models, &slot{cfg: c})
	}
	return p, nil
}

// Names are those of the models, the default one first.
func (p *Pool) Names() (names []string) {
	for _, s := range p.models {
		names = append(names, s.cfg.Name)
	}
	return names
}

// fileEvery is how often a missing file of a model is looked for.
const fileEvery = 250 * time.Millisecond

// WaitForFiles waits until the file or folder of every model exists, or ctx
// ends. A volume may be filled after the server has started. A file must get
// its name only when it is complete.
func (p *Pool) WaitForFiles(ctx context.Context) error {
	for _, s := range p.models {
		for {
			_, err := os.Stat(s.cfg.Path)
			if err == nil || s.cfg.Dummy { // a shape has a name or a file that is there already
				break
			}
			if !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("model %s: %w", s.cfg.Path, err)
			}
			if p.miss(s.cfg.Path) {
				p.log.Warn("the model is not there yet: waiting, not ready, until it is; is the path right, and is its volume mounted?", "path", s.cfg.Path)
			}
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(fileEvery):
			}
		}
	}
	p.miss("")
	return nil
}

// miss records which file is missing, and reports whether that has changed.
func (p *Pool) miss(path string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	news := p.missing != path
	p.missing = path
	return news
}

// Load loads the models in their order, as far as the device has memory. The
// first must fit. The others are loaded at their first request.
func (p *Pool) Load() error {
	for i, s := range p.models {
		err := p.load(s)
		var oom *device.OutOfMemoryError
		if i > 0 && errors.As(err, &oom) {
			p.log.Info("model waits to be asked for", "model", s.cfg.Name, "why", err)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Use is the engine of a model, which is not unloaded until release is called;
// an empty name means the default model. One that is not loaded is loaded
// first.
func (p *Pool) Use(ctx context.Context, name string) (e *Engine, release func(), err error) {
	s := p.slot(name)
	if s == nil {
		return nil, nil, &UnknownModelError{name, p.Names()}
	}
	for {
		p.mu.Lock()
		switch {
		case p.draining:
			p.mu.Unlock()
			return nil, nil, ErrDraining
		case s.engine != nil:
			s.users++
			s.used = time.Now()
			e := s.engine
			p.mu.Unlock()
			return e, func() { p.release(s) }, nil
		case s.loading != nil:
			loading := s.loading
			p.mu.Unlock()
			select {
			case <-ctx.Done():
				return nil, nil, context.Cause(ctx)
			case <-loading:
			}
		default:
			p.mu.Unlock()
			if err := p.loadEvicting(s); err != nil {
				return nil, nil, err
			}
		}
	}
}

func (p *Pool) slot(name string) *slot {
	for _, s := range p.models {
		if name == "" || s.cfg.Name == name {
			return s
		}
	}
	return nil
}

func (p *Pool) release(s *slot) {
	p.mu.Lock()
	s.users--
	s.used = time.Now()
	p.mu.Unlock()
}

// loadEvicting loads a model, and unloads idle ones while there is no room.
func (p *Pool) loadEvicting(s *slot) error {
	for {
		err := p.load(s)
		var oom *device.OutOfMemoryError
		if !errors.As(err, &oom) {
			return err
		}
		if !p.evict(s) {
			return fmt.Errorf("the model %q cannot be loaded beside those in use: %w", s.cfg.Name, err)
		}
	}
}

// load loads a model unless another goroutine does.
func (p *Pool) load(s *slot) error {
	p.mu.Lock()
	if s.engine != nil || s.loading != nil || p.draining {
		p.mu.Unlock()
		return nil
	}
	s.loading = make(chan struct{})
	p.mu.Unlock()

	cfg := s.cfg
	cfg.Progress = func(done float64) { p.mu.Lock(); s.done = done; p.mu.Unlock() }
	e, err := Open(cfg)

	p.mu.Lock()
	defer p.mu.Unlock()
	close(s.loading)
	s.loading, s.done = nil, 0
	if err != nil {
		return err
	}
	i := e.Info()
	p.log.Info("model is loaded", "model", i.Model, "architecture", i.Architecture, "backend", i.Backend, "quantization", i.Quantization,
		"weights_mib", i.WeightBytes>>20, "kv_cache", i.KVCache, "kv_mib", i.KVBytes>>20, "kv_tokens", i.KVTokens, "max_sequence", i.MaxSequence, "sequences_that_fit", i.KVTokens/max(1, i.MaxSequence), "deterministic", i.Deterministic, "took", i.LoadTook.Round(time.Millisecond))
	ctx, stop := context.WithCancel(context.Background())
	s.engine, s.stop, s.ended, s.used = e, stop, make(chan struct{}), time.Now()
	go func(ended chan struct{}) { e.Run(ctx); close(ended) }(s.ended)
	if p.draining {
		e.Drain()
	}
	return nil
}

// evict unloads the idle model that was used longest ago, and reports whether
// there was one.
func (p *Pool) evict(not *slot) bool {
	p.mu.Lock()
	var oldest *slot
	for _, s := range p.models {
		if s != not && s.engine != nil && s.users == 0 && (oldest == nil || s.used.Before(oldest.used)) {
			oldest = s
		}
	}
	if oldest == nil {
		p.mu.Unlock()
		return false
	}
	e, stop, ended := oldest.engine, oldest.stop, oldest.ended
	oldest.engine = nil
	p.mu.Unlock()
	p.log.Info("model is unloaded to make room", "model", oldest.cfg.Name, "for", not.cfg.Name)
	stop()
	<-ended
	e.Close()
	return true
}

// Loaded are the engines of the models that are loaded.
func (p *Pool) Loaded() (engines []*Engine) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.models {
		if s.engine != nil {
			engines = append(engines, s.engine)
		}
	}
	return engines
}

// Ready returns an error if a request for the default model would not be
// computed now.
func (p *Pool) Ready() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.models[0]
	switch {
	case p.draining:
		return ErrDraining
	case p.missing != "":
		return fmt.Errorf("%w: %s is not there yet", ErrLoading, p.missing)
	case s.engine == nil && s.loading != nil:
		return fmt.Errorf("%w: %.0f%%", ErrLoading, s.done*100)
	case s.engine == nil && len(p.loadedLocked()) == 0:
		return ErrLoading
	}
	for _, e := range p.loadedLocked() {
		if d := e.Stalled(); d > StalledAfter {
			return fmt.Errorf("the engine of %s has not finished a step for %s", e.info.Model, d.Round(time.Second))
		}
	}
	return nil
}

// StalledAfter is how long a step may take before an engine counts as hanging.
const StalledAfter = 20 * time.Second

func (p *Pool) loadedLocked() (engines []*Engine) {
	for _, s := range p.models {
		if s.engine != nil {
			engines = append(engines, s.engine)
		}
	}
	return engines
}

// Memory is how much of the device is claimed. It returns false if memory is
// not accounted for.
func (p *Pool) Memory() (device.Usage, bool) {
	if g := p.models[0].cfg.GPU; g != nil {
		free, err := g.Free()
		return device.Usage{Used: g.Total - free, Total: g.Total}, err == nil
	}
	d := p.models[0].cfg.Device
	if d == nil {
		return device.Usage{}, false
	}
	u, err := d.Usage()
	return u, err == nil
}

// GPU is the UUID of the GPU that computes; empty where none does.
func (p *Pool) GPU() string {
	if g := p.models[0].cfg.GPU; g != nil {
		return g.UUID
	}
	return ""
}

// Drain refuses new requests. Those under way end.
func (p *Pool) Drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining = true
	for _, e := range p.loadedLocked() {
		e.Drain()
	}
}

// Close ends what is still computed and unloads all models.
func (p *Pool) Close() {
	p.Drain()
	for _, s := range p.models {
		p.mu.Lock()
		loading := s.loading
		p.mu.Unlock()
		if loading != nil {
			<-loading
		}
		p.mu.Lock()
		e, stop, ended := s.engine, s.stop, s.ended
		s.engine = nil
		p.mu.Unlock()
		if e != nil {
			stop()
			<-ended
			e.Close()
		}
	}
}
