package deploy

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/launchgate/launchgate/internal/words"
)

// front is the gateway as the rest of the deployment sees it: where it listens,
// its admission of requests if it has one, and its last status of the replicas.
type front struct {
	url       string
	status    string     // the URL of its status
	admission *admission // nil: the gateway only balances

	mu   sync.Mutex
	last Status
}

// Status is the gateway's report of its replicas.
type Status struct {
	Replicas []ReplicaStatus `json:"replicas"`
}

// ReplicaStatus is one replica as the gateway sees it.
type ReplicaStatus struct {
	Name     string `json:"name"`
	URL      string `json:"url"`
	Ready    bool   `json:"ready"`
	InFlight int    `json:"in_flight"`
	// How often the gateway stopped routing to it, and when it last did.
	Outages int       `json:"outages"`
	OutAt   time.Time `json:"out_at"`
	// Counts since the gateway started: answers that ended, and those of them that
	// were errors. The median is the duration in seconds of the last successful
	// answers since the replica became ready; Timed is their number.
	Answered int     `json:"answered"`
	Failed   int     `json:"failed"`
	Median   float64 `json:"median"`
	Timed    int     `json:"timed"`
}

// Ready counts the replicas the gateway would route to.
func (s Status) Ready() (n int) {
	for _, r := range s.Replicas {
		if r.Ready {
			n++
		}
	}
	return n
}

// URL is the gateway's address.
func (f *front) URL() string { return f.url }

// Status is the last status that the gateway reported.
func (f *front) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// InFlight is how many streams run through each replica now, as the gateway
// counts them.
func (f *front) InFlight(ctx context.Context) (map[string]int, error) {
	st, err := f.ask(ctx)
	if err != nil {
		return nil, err
	}
	streams := make(map[string]int, len(st.Replicas))
	for _, r := range st.Replicas {
		streams[r.Name] = r.InFlight
	}
	return streams, nil
}

var statusClient = &http.Client{Timeout: 2 * time.Second}

func (f *front) ask(ctx context.Context) (Status, error) {
	return askStatus(ctx, f.status)
}

func askStatus(ctx context.Context, url string) (Status, error) {
	var st Status
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return st, err
	}
	resp, err := statusClient.Do(req)
	if err != nil {
		return st, words.Errorf("gateway status: %s", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return st, words.Errorf("gateway status: %s", err)
	}
	return st, json.Unmarshal(body, &st)
}

// tellChanges reports the differences between two statuses.
func (f *front) tellChanges(st Status, onEvent func(Event)) {
	f.mu.Lock()
	old := f.last
	f.last = st
	f.mu.Unlock()
	now := time.Now()
	for i, r := range st.Replicas {
		known := i < len(old.Replicas)
		out := known && r.Outages > old.Replicas[i].Outages // it may already be back
		if out {
			onEvent(Event{At: r.OutAt, Name: "replica_ready", Subject: r.Name, Value: 0})
		}
		switch {
		case r.Ready && (!known || out || !old.Replicas[i].Ready):
			onEvent(Event{At: now, Name: "replica_ready", Subject: r.Name, Value: 1})
		case !r.Ready && !out && (!known || old.Replicas[i].Ready):
			onEvent(Event{At: now, Name: "replica_ready", Subject: r.Name, Value: 0})
		}
	}
	if len(old.Replicas) == 0 || old.Ready() != st.Ready() {
		onEvent(Event{At: now, Name: "replicas_ready", Value: float64(st.Ready())})
	}
}

func answersReady(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/ready", nil)
	if err != nil {
		return false
	}
	resp, err := statusClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}
