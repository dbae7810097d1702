package engine

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/launchgate/launchgate/reference-server/device"
)

const mebi = 1 << 20

// budget is a device with so many MiB, shared by all that open the same path.
func budget(t *testing.T, path string, total int64) *device.Device {
	t.Helper()
	d, err := device.Open(path, total*mebi)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// When another process takes the device's memory, the engine goes on. Answers
// that fit continue, others are refused with the reason, and when the process
// is gone there is room again.
func TestNeighbourTakesTheMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "device.json")
	d := budget(t, path, 64)
	e := running(t, Config{Device: d, KVBytes: 32 * mebi, MaxBatch: 8})
	u, err := d.Usage()
	if err != nil || u.Used < e.info.WeightBytes {
		t.Fatalf("%+v %v, and the weights alone are %d", u, err, e.info.WeightBytes)
	}
	ballast, err := budget(t, path, 64).Claim("ballast", u.Free())
	if err != nil {
		t.Fatal(err)
	}
	claimed := e.Stats().KVClaimed // may still be 0, because no step is in the statistics yet
	prompt := make([]int32, 900)
	for i := range prompt {
		prompt[i] = int32(i%4000 + 3)
	}
	if _, last := answer(t, submit(t, e, Request{Prompt: prompt, MaxTokens: 4})); !errors.Is(last.Err, ErrNoMemory) {
		t.Errorf("a request that cannot fit ended with %+v", last)
	}
	var all sync.WaitGroup
	for i := range 8 {
		s := submit(t, e, Request{Prompt: []int32{int32(i + 5), 6, 7}, MaxTokens: 100, IgnoreEOS: true})
		all.Go(func() {
			if _, last := answer(t, s); last.Err != nil || last.Usage.Output != 100 {
				t.Errorf("%+v", last)
			}
		})
	}
	all.Wait()
	st := e.Stats()
	if st.OutOfMemory == 0 || st.Preemptions == 0 || st.KVClaimed < claimed {
		t.Errorf("%+v", st)
	}
	if err := ballast.Release(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * denialLast)
	if _, last := answer(t, submit(t, e, Request{Prompt: prompt, MaxTokens: 4, IgnoreEOS: true})); last.Err != nil || last.Usage.Output != 4 {
		t.Errorf("after the neighbour has gone: %+v", last)
	}
}

func TestModelThatDoesNotFit(t *testing.T) {
	_, err := Open(Config{Path: defaultModel, Device: budget(t, filepath.Join(t.TempDir(), "d.json"), 8)})
	var oom *device.OutOfMemoryError
	if !errors.As(err, &oom) || !strings.Contains(err.Error(), "8 MiB") {
		t.Errorf("%v", err)
	}
}

// Three models share a device that holds two. Each answers. Loading it unloads
// the least recently used model, but never one in use.
func TestModelsShareADevice(t *testing.T) {
	d := budget(t, filepath.Join(t.TempDir(), "d.json"), 36)
	var configs []Config
	for _, name := range []string{"a", "b", "c"} {
		configs = append(configs, Config{Path: defaultModel, Name: name, Device: d, KVBytes: 2 * mebi, MaxBatch: 2})
	}
	p, err := NewPool(configs, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Ready(); !errors.Is(err, ErrLoading) {
		t.Errorf("before the load: %v", err)
	}
	if err := p.Load(); err != nil {
		t.Fatal(err)
	}
	if err := p.Ready(); err != nil || len(p.Loaded()) != 2 {
		t.Fatalf("%d models are loaded, %v", len(p.Loaded()), err)
	}
	use := func(name string) (*Engine, func()) {
		t.Helper()
		e, release, err := p.Use(context.Background(), name)
		if err != nil {
			t.Fatal(err)
		}
		if _, last := answer(t, submit(t, e, Request{Prompt: []int32{5, 6}, MaxTokens: 3, IgnoreEOS: true})); last.Err != nil || e.Info().Model != name {
			t.Errorf("%s: %+v", e.Info().Model, last)
		}
		return e, release
	}
	loaded := func() (names string) {
		for _, e := range p.Loaded() {
			names += e.Info().Model
		}
		return names
	}
	_, releaseB := use("b")
	_, releaseA := use("a")
	releaseB()
	_, releaseC := use("c") // b was used before a, which is in use anyway
	if got := loaded(); got != "ac" {
		t.Errorf("loaded are %s, want ac", got)
	}
	if _, _, err := p.Use(context.Background(), "b"); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a third while two are in use: %v", err)
	}
	releaseA()
	releaseC()
	_, release := use("b")
	release()
	if got := loaded(); got != "bc" {
		t.Errorf("loaded are %s, want bc", got)
	}
	var unknown *UnknownModelError
	if _, _, err := p.Use(context.Background(), "x"); !errors.As(err, &unknown) || len(unknown.Served) != 3 {
		t.Errorf("%v", err)
	}
	p.Drain()
	if _, _, err := p.Use(context.Background(), "b"); !errors.Is(err, ErrDraining) {
		t.Errorf("while draining: %v", err)
	}
	p.Close()
	if u, _ := d.Usage(); u.Used != 0 {
		t.Errorf("%d bytes are still claimed", u.Used)
	}
}

func TestPoolOfEqualNames(t *testing.T) {
	if _, err := NewPool([]Config{{Path: "x/a.gguf"}, {Path: "y/a.gguf"}}, nil); err == nil {
		t.Error("two models of one name were taken")
	}
}

// The server waits for a missing model file: it is not ready, and says which
// file is missing. Any other problem with the file is an error.
func TestMissingFilesAreWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "later.gguf")
	p, err := NewPool([]Config{{Path: path, KVBytes: 2 * mebi, MaxBatch: 2}}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	waited := make(chan error, 1)
	go func() { waited <- p.WaitForFiles(t.Context()) }()
	for err := p.Ready(); !strings.Contains(err.Error(), path); err = p.Ready() {
		if !errors.Is(err, ErrLoading) {
			t.Fatalf("while it waits: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
	whole, err := filepath.Abs(defaultModel)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(whole, path); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
	if err := p.Load(); err != nil {
		t.Fatal(err)
	}
	if err := p.Ready(); err != nil {
		t.Error(err)
	}

	for name, at := range map[string]string{"a wait that is ended": path + ".never", "a folder that is a file": filepath.Join(path, "model.gguf")} {
		p, err := NewPool([]Config{{Path: at}}, slog.New(slog.NewTextHandler(io.Discard, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := p.WaitForFiles(ctx); err == nil || errors.Is(err, context.DeadlineExceeded) != (name == "a wait that is ended") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
