package host

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

const (
	// HogCommand is the argument that makes this program call Hog. The address
	// of a replica and the URL of its metrics follow it.
	HogCommand = "fault-hog"

	kvFull    = 0.9  // the share of blocks in use from which the fault is in effect
	kvWanted  = 0.97 // from this share on, no further context is begun,
	hogQueue  = 4    // nor while so many wait, because the fault must not fill the queue
	hogEvery  = 50 * time.Millisecond
	askWithin = 2 * time.Second
	hogMost   = 256 // contexts at once
	fewest    = 256 // tokens of a context that is worth asking for

	// The metrics of the bundled replicas for the share of blocks in use, and
	// for the requests that wait.
	kvMetric    = "ai_kv_used_ratio"
	queueMetric = "inference_queue_size"
)

// Hog fills the KV cache of the replica at an address, from the moment it reads
// a line from lifeline until lifeline ends. It runs in a process of its own:
// when that dies, its connections close and the replica frees the blocks. Its
// requests are not part of the load and are not measured.
func Hog(address, metrics string, lifeline io.Reader) error {
	if _, err := lifeline.Read(make([]byte, 1)); err != nil {
		return nil // the fault was cancelled
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() { // it ends with the process
		_, _ = io.Copy(io.Discard, lifeline)
		stop()
	}()
	name, longest, err := longestContext(ctx, address)
	if err != nil {
		return err
	}
	var asking sync.WaitGroup
	defer asking.Wait()
	for begun := 0; ctx.Err() == nil; _ = sleep(ctx, hogEvery) {
		used, waiting, err := kvUsed(ctx, metrics)
		if err != nil || used >= kvWanted || waiting >= hogQueue || begun == hogMost {
			continue
		}
		begun++
		asking.Go(func() {
			for ctx.Err() == nil {
				if askLong(ctx, address, name, longest) != nil {
					_ = sleep(ctx, time.Second) // the replica refused, because its queue is full
				}
			}
		})
	}
	return nil
}

// longestContext is the most tokens that a sequence of the replica's first
// model may have.
func longestContext(ctx context.Context, address string) (name string, tokens int, err error) {
	var models struct {
		Data []struct {
			ID     string `json:"id"`
			Tokens int    `json:"max_model_len"`
		} `json:"data"`
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/v1/models", nil)
	if err != nil {
		return "", 0, err
	}
	asGateway(req)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&models); err != nil {
		return "", 0, words.Errorf("the models of %s: %s", address, err)
	}
	if len(models.Data) == 0 || models.Data[0].Tokens < fewest {
		return "", 0, words.Errorf("the models of %s: found %s, expected one with a max_model_len of at least %d", address, fmt.Sprintf("%+v", models.Data), fewest)
	}
	return models.Data[0].ID, models.Data[0].Tokens, nil
}

// guarded is a target whose replicas ask for a secret. The secret is empty if
// they answer everybody.
type guarded interface{ ReplicaSecret() string }

// asGateway adds the gateway's secret to a request, for replicas that answer
// only their gateway.
func asGateway(req *http.Request) {
	if secret := os.Getenv(deploy.SecretVariable); secret != "" {
		req.Header.Set("X-Launchgate-Secret", secret)
	}
}

// askLong makes the replica compute and hold one context of so many tokens. Half of
// them are the answer: a context is held while its answer is decoded, and that has to
// take long even where steps are short. The prompt's tokens are random, so that
// contexts share no cached blocks.
func askLong(ctx context.Context, address, name string, tokens int) error {
	prompt := make([]int, tokens-tokens/2)
	for i := range prompt {
		prompt[i] = 10 + rand.IntN(900) // every vocabulary has these
	}
	body, err := json.Marshal(map[string]any{"model": name, "prompt": prompt, "max_tokens": tokens / 2, "ignore_eos": true, "stream": true})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/v1/completions", bytes.NewReader(body))
	if err != nil {
		return err
	}
	asGateway(req)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return words.Errorf("status %d", resp.StatusCode)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// kvUsed returns the share of KV blocks in use and the number of waiting
// requests that a replica reports. With several models, the fullest counts.
func kvUsed(ctx context.Context, metrics string) (used, waiting float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	families, err := deploy.Scrape(ctx, metrics)
	if err != nil {
		return 0, 0, err
	}
	if families[kvMetric] == nil {
		return 0, 0, words.Errorf("%s says nothing of %s", metrics, kvMetric)
	}
	for _, m := range families[kvMetric].GetMetric() {
		used = max(used, m.GetGauge().GetValue())
	}
	for _, m := range families[queueMetric].GetMetric() {
		waiting += m.GetGauge().GetValue()
	}
	return used, waiting, nil
}

// FillCache asks a replica for contexts that are as long as its model allows.
func (l *Local) FillCache(ctx context.Context, v deploy.Victim, _ scenarios.Fault) (deploy.Effect, error) {
	p, err := prepareOnProcess(l.Local, v)
	if err != nil {
		return nil, err
	}
	h := &hogging{onProcess: p}
	all := l.Metrics()
	if i := slices.IndexFunc(all, func(s deploy.Source) bool { return s.Name == p.victim }); i >= 0 {
		h.metrics = all[i].URL
	}
	if h.before, _, err = kvUsed(ctx, h.metrics); err != nil {
		return nil, words.Errorf("ask %s how full its KV cache is: %s", p.victim, err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, HogCommand, p.target.Address(p.victim), h.metrics)
	if t, ok := p.target.(guarded); ok {
		cmd.Env = append(os.Environ(), deploy.SecretVariable+"="+t.ReplicaSecret())
	}
	h.hog, err = startChild(cmd)
	return h, err
}

type hogging struct {
	onProcess
	hog     *child
	metrics string
	before  float64
}

func (h *hogging) Undo() []deploy.Undo { return h.hog.undo() }

func (h *hogging) Inject(context.Context) (sight, error) {
	return sight{How: words.Say("pid %d asks %s for contexts as long as its model allows, with %d streams in flight", h.hog.pid, h.victim, h.streams)}, h.hog.begin()
}

func (h *hogging) SeeInEffect(ctx context.Context) (sight, error) {
	var used, queued float64
	seen, err := until(ctx, 100*time.Millisecond, func() (words.Sentence, bool) {
		now, waiting, err := kvUsed(ctx, h.metrics)
		if err != nil {
			return words.Sentence{}, false
		}
		used, queued = max(used, now), waiting
		_, alive := h.hog.stat()
		return words.Say("%.0f %% of the KV blocks of %s are held, %.0f %% before, and %.0f requests wait there", 100*now, h.victim, 100*h.before, waiting), alive && now >= kvFull
	})
	if err != nil {
		filler := words.Say("the process that fills it still runs")
		if _, alive := h.hog.stat(); !alive {
			filler = words.Say("the process that fills it has ended")
		}
		err = words.Errorf("%.0f %% of the KV blocks of %s were held at most, and %.0f %% had to be, with %.0f requests waiting (%s): a smaller target.local.kv_cache can be filled: %s", 100*used, h.victim, 100*kvFull, queued, filler, err)
	}
	return seen, err
}

func (h *hogging) Revert(context.Context) (sight, error) {
	h.hog.end()
	return sight{How: words.Say("pid %d was ended", h.hog.pid)}, nil
}

func (h *hogging) SeeGone(ctx context.Context) (sight, error) {
	return until(ctx, 100*time.Millisecond, func() (words.Sentence, bool) {
		used, _, err := kvUsed(ctx, h.metrics)
		_, alive := h.hog.stat()
		return words.Say("pid %d is gone, %.0f %% of the KV blocks are held, and the gateway routes to %s", h.hog.pid, 100*used, h.victim),
			err == nil && !alive && used < kvFull && h.target.Serving(ctx, h.victim)
	})
}
