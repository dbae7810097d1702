package durability

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/scenarios"
)

// keeper is a service with background responses. A response is complete when it has
// been asked for twice.
type keeper struct {
	mu      sync.Mutex
	records map[string]map[string]any
	asked   map[string]int
	// Each test replaces some of these.
	accept func(n int, id string) (string, int)                       // another id, or a status
	answer func(n, asked int, o map[string]any) (map[string]any, int) // another record, or a status
}

func (k *keeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	o, status := map[string]any{}, http.StatusOK
	if r.Method == http.MethodPost {
		var q struct {
			Background, Store bool
			Metadata          map[string]string
			Input             []client.Message
			MaxTokens         int `json:"max_output_tokens"`
		}
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || !q.Background || !q.Store || len(q.Input) != 1 || q.MaxTokens != 5 || q.Metadata["launchgate_record"] == "" {
			http.Error(w, fmt.Sprintf("not a background response: %+v %v", q, err), http.StatusTeapot)
			return
		}
		// Writes may come in another order than they were due in; the mark holds the
		// number.
		n, _ := strconv.Atoi(strings.Split(q.Metadata["launchgate_record"], "/")[1])
		id := fmt.Sprintf("resp_%d", n)
		if k.accept != nil {
			id, status = k.accept(n, id)
		}
		o = map[string]any{"id": id, "status": "queued", "background": true, "metadata": q.Metadata, "number": n, "asked": q.Input[0].Content}
		if status == http.StatusOK {
			k.records[id] = o
		}
	} else {
		id := r.URL.Path[len("/v1/responses/"):]
		found, has := k.records[id]
		if !has {
			status = http.StatusNotFound
		} else {
			o = found
			if k.asked[id]++; k.asked[id] > 1 {
				o["status"], o["output"] = "completed", []any{map[string]any{"content": []any{map[string]any{"text": "a dog"}}}}
				o["usage"] = map[string]any{"output_tokens": 5}
			}
			if k.answer != nil {
				o, status = k.answer(o["number"].(int), k.asked[id], o)
			}
		}
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(o)
}

// play writes records for a while, reads them back, and returns the rows of both.
func play(t *testing.T, k *keeper, within time.Duration) (writes, reads []recording.Request) {
	t.Helper()
	k.records, k.asked = map[string]map[string]any{}, map[string]int{}
	return playOn(t, k, within, false)
}

func playOn(t *testing.T, k http.Handler, within time.Duration, usage bool) (writes, reads []recording.Request) {
	t.Helper()
	srv := httptest.NewServer(k)
	defer srv.Close()
	c, err := client.New(client.Config{BaseURL: srv.URL, Model: "m"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := scenarios.Scenario{Name: "s", Durability: &scenarios.Durability{
		Every: scenarios.Duration(5 * time.Millisecond), MaxTokens: 5, Timeout: scenarios.Duration(2 * time.Second), Within: scenarios.Duration(within), Usage: usage}}
	var mu sync.Mutex
	w := New(recording.NewClock(), s, c, func(r recording.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.Scenario != "s" || r.Due == 0 || r.End < r.Sent {
			t.Errorf("a row is %+v", r)
		}
		if r.Kind == recording.KindWrite {
			writes = append(writes, r)
		} else {
			reads = append(reads, r)
		}
	})
	stop := make(chan struct{})
	time.AfterFunc(200*time.Millisecond, func() { close(stop) })
	w.Write(t.Context(), stop)
	due, ok := w.ReadBack(t.Context())
	if !ok || due != int64(len(writes)) || due < 8 {
		t.Fatalf("%d writes were due, %d rows, %v", due, len(writes), ok)
	}
	bySeq := func(a, b recording.Request) int { return int(a.Seq - b.Seq) }
	slices.SortFunc(writes, bySeq)
	slices.SortFunc(reads, bySeq)
	return writes, reads
}

func TestRecordsAreWrittenAndReadBack(t *testing.T) {
	as := func(o map[string]any, with map[string]any) map[string]any {
		other := map[string]any{}
		for _, from := range []map[string]any{o, with} {
			for k, v := range from {
				other[k] = v
			}
		}
		return other
	}
	for _, tt := range []struct {
		name  string
		k     *keeper
		third string // the result of reading the third record
		acked bool   // whether the third was acknowledged
	}{
		{"all are there when they are complete", &keeper{}, "", true},
		{"lost", &keeper{answer: func(n, _ int, o map[string]any) (map[string]any, int) {
			if n == 3 {
				return map[string]any{"error": map[string]any{"message": "there is no response"}}, 404
			}
			return o, 200
		}}, recording.ErrorGone, true},
		{"another is in its place", &keeper{answer: func(n, _ int, o map[string]any) (map[string]any, int) {
			if n == 3 {
				o = as(o, map[string]any{"metadata": map[string]string{"launchgate_record": "of somebody else"}})
			}
			return o, 200
		}}, recording.ErrorGone, true},
		{"failed after it was acknowledged", &keeper{answer: func(n, _ int, o map[string]any) (map[string]any, int) {
			if n == 3 {
				o = as(o, map[string]any{"status": "failed", "error": map[string]any{"message": "out of memory"}})
			}
			return o, 200
		}}, recording.ErrorTruncated, true},
		{"complete and empty", &keeper{answer: func(n, asked int, o map[string]any) (map[string]any, int) {
			if n == 3 && asked > 1 {
				o = as(o, map[string]any{"output": []any{}})
			}
			return o, 200
		}}, recording.ErrorTruncated, true},
		{"ended by max_output_tokens before it had so many", &keeper{answer: func(n, asked int, o map[string]any) (map[string]any, int) {
			if n == 3 && asked > 1 {
				o = as(o, map[string]any{"status": "incomplete", "incomplete_details": map[string]any{"reason": "max_output_tokens"}, "usage": map[string]any{"output_tokens": 4}})
			}
			return o, 200
		}}, recording.ErrorTruncated, true},
		{"ended by max_output_tokens", &keeper{answer: func(n, asked int, o map[string]any) (map[string]any, int) {
			if n == 3 && asked > 1 {
				o = as(o, map[string]any{"status": "incomplete", "incomplete_details": map[string]any{"reason": "max_output_tokens"}})
			}
			return o, 200
		}}, "", true},
		{"cannot be read for the moment", &keeper{answer: func(n, asked int, o map[string]any) (map[string]any, int) {
			if n == 3 && asked < 3 {
				return map[string]any{}, 503
			}
			return o, 200
		}}, "", true},
		{"never complete", &keeper{answer: func(n, _ int, o map[string]any) (map[string]any, int) {
			if n == 3 {
				o = as(o, map[string]any{"status": "in_progress"})
			}
			return o, 200
		}}, recording.ErrorTimeout, true},
		{"not taken in", &keeper{accept: func(n int, id string) (string, int) {
			if n == 3 {
				return id, 503
			}
			return id, 200
		}}, "", false},
		{"taken in without an id", &keeper{accept: func(n int, id string) (string, int) {
			if n == 3 {
				return "", 200
			}
			return id, 200
		}}, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			patience := 20 * time.Second
			if tt.third == recording.ErrorTimeout { // the read waits for all of the patience
				patience = 2 * time.Second
			}
			writes, reads := play(t, tt.k, patience)
			if acked := writes[3].OK() && writes[3].Record != ""; acked != tt.acked {
				t.Errorf("the third write is %+v", writes[3])
			}
			if want := len(writes); tt.acked && len(reads) != want || !tt.acked && len(reads) != want-1 {
				t.Fatalf("%d writes and %d reads", len(writes), len(reads))
			}
			for _, r := range reads {
				want := ""
				if r.Seq == 3 {
					want = tt.third
				}
				if r.Error != want || r.Record == "" || r.Kind != recording.KindRead {
					t.Errorf("record %d: %q (%s), want %q: %+v", r.Seq, r.Error, r.ErrorText, want, r)
				}
			}
		})
	}
}

// A record that holds its words in another order, or the text of another record, is
// found by the one with the same question; a service that answers otherwise each time is
// not accused.
func TestAlteredRecordsAreFound(t *testing.T) {
	text := func(o map[string]any) string {
		return strings.TrimPrefix(o["asked"].(string), "Tell me a story about ")
	}
	holding := func(o map[string]any, text string) (map[string]any, int) {
		o = maps.Clone(o)
		o["output"] = []any{map[string]any{"content": []any{map[string]any{"text": text}}}}
		return o, 200
	}
	for _, tt := range []struct {
		name   string
		answer func(n int, o map[string]any) (map[string]any, int)
		want   string
	}{
		{"as they were", func(_ int, o map[string]any) (map[string]any, int) { return holding(o, text(o)) }, ""},
		{"in another order", func(n int, o map[string]any) (map[string]any, int) {
			if n == 3 {
				all := strings.Fields(text(o))
				slices.Reverse(all)
				return holding(o, strings.Join(all, " "))
			}
			return holding(o, text(o))
		}, "holds the characters of its answer in another order"},
		{"of another question", func(n int, o map[string]any) (map[string]any, int) {
			if n == 3 {
				return holding(o, "a dog that has 0 friends.")
			}
			return holding(o, text(o))
		}, "holds the text of a record with another question"},
		{"another text each time", func(n int, o map[string]any) (map[string]any, int) {
			all := strings.Fields(text(o))
			return holding(o, strings.Join(append(all[n&3%len(all):], all[:n&3%len(all)]...), " "))
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := &keeper{answer: func(n, asked int, o map[string]any) (map[string]any, int) {
				if asked < 2 {
					return o, 200
				}
				return tt.answer(n, o)
			}}
			_, reads := play(t, k, 20*time.Second)
			for _, r := range reads {
				if altered := tt.want != "" && r.Seq == 3; altered != (r.Error == recording.ErrorGone) || altered && !strings.Contains(r.Why().String(), tt.want) {
					t.Errorf("record %d: %q (%s)", r.Seq, r.Error, r.ErrorText)
				}
			}
		})
	}
}

// If the gate asks for it, every second record is the usage of an answer. The service
// loses the third, keeps another number for the fifth, acknowledges no seventh, and
// does not answer about the ninth.
func TestUsageIsReadBack(t *testing.T) {
	k := &keeper{records: map[string]map[string]any{}, asked: map[string]int{}}
	mux := http.NewServeMux()
	mux.Handle("/v1/responses", k)
	mux.Handle("/v1/responses/", k)
	var mu sync.Mutex
	kept := map[string]int{}
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		var q struct{ Messages []client.Message }
		var n int
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		} else if _, err := fmt.Sscanf(q.Messages[0].Content, "Tell me a story about a dog that has %d friends.", &n); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		id := fmt.Sprintf("req_%d", n)
		switch n {
		case 3:
		case 5:
			kept[id] = 1
		default:
			kept[id] = 5
		}
		if n != 7 {
			w.Header().Set("X-Request-Id", id)
		}
		fmt.Fprint(w, `{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":5}}`)
	})
	mux.HandleFunc("GET /v1/usage/{id}", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		tokens, has := kept[r.PathValue("id")]
		switch {
		case r.PathValue("id") == "req_9": // as a service without such a path answers
			http.NotFound(w, r)
			return
		case !has:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"error":{"code":"usage_not_found","message":"none"}}`)
			return
		}
		fmt.Fprintf(w, `{"id":%q,"usage":{"completion_tokens":%d}}`, r.PathValue("id"), tokens)
	})
	writes, reads := playOn(t, mux, 20*time.Second, true)
	if writes[7].OK() || writes[7].Error != recording.ErrorProtocol || len(reads) != len(writes)-1 {
		t.Errorf("%d writes, %d reads, and the seventh is %+v", len(writes), len(reads), writes[7])
	}
	for _, r := range reads {
		want := map[int64]string{3: recording.ErrorGone, 5: recording.ErrorTruncated, 9: recording.ErrorStatus}[r.Seq]
		class := []string{"", ofUsage}[r.Seq%2]
		if r.Error != want || r.Class != class || writes[r.Seq].Class != class {
			t.Errorf("record %d of %q: %q (%s), want %q", r.Seq, r.Class, r.Error, r.ErrorText, want)
		}
	}
}

// An id that is issued twice is noticed: its content is that of one of the two records.
func TestAnIDThatRepeats(t *testing.T) {
	writes, reads := play(t, &keeper{accept: func(n int, id string) (string, int) {
		if n == 4 {
			id = "resp_3"
		}
		return id, 200
	}}, 20*time.Second)
	if writes[3].Record != writes[4].Record {
		t.Errorf("%s and %s", writes[3].Record, writes[4].Record)
	}
	// The network decides which of the two came last and is kept.
	if gone := []string{reads[3].Error, reads[4].Error}; !slices.Contains(gone, recording.ErrorGone) || !slices.Contains(gone, "") {
		t.Errorf("%+v\n%+v", reads[3], reads[4])
	}
}

// A service that hangs cannot hold the run for longer than its patience, and even then
// there is a row for each record.
func TestAServiceThatHangsIsGivenUp(t *testing.T) {
	k := &keeper{records: map[string]map[string]any{}, asked: map[string]int{}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			<-r.Context().Done()
			return
		}
		k.ServeHTTP(w, r)
	}))
	defer srv.Close()
	c, err := client.New(client.Config{BaseURL: srv.URL, Model: "m"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := scenarios.Scenario{Name: "s", Durability: &scenarios.Durability{
		Every: scenarios.Duration(5 * time.Millisecond), MaxTokens: 5, Timeout: scenarios.Duration(300 * time.Millisecond), Within: scenarios.Duration(300 * time.Millisecond)}}
	var mu sync.Mutex
	acked, read := 0, 0
	w := New(recording.NewClock(), s, c, func(r recording.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.Kind == recording.KindRead && r.Error == recording.ErrorTimeout:
			read++
		case r.OK():
			acked++
		}
	})
	stop := make(chan struct{})
	time.AfterFunc(300*time.Millisecond, func() { close(stop) })
	w.Write(t.Context(), stop)
	began := time.Now()
	if _, ok := w.ReadBack(t.Context()); !ok || time.Since(began) > 5*time.Second {
		t.Errorf("read back: %v, after %s", ok, time.Since(began))
	}
	if acked == 0 || read != acked {
		t.Errorf("%d were acknowledged, and %d rows say that they could not be read", acked, read)
	}
}

// A run that is cancelled has no final read.
func TestAReadThatIsBrokenOff(t *testing.T) {
	c, err := client.New(client.Config{BaseURL: "http://127.0.0.1:1", Model: "m"})
	if err != nil {
		t.Fatal(err)
	}
	s := scenarios.Scenario{Name: "s", Durability: &scenarios.Durability{Within: scenarios.Duration(time.Minute), Timeout: scenarios.Duration(time.Second)}}
	w := New(recording.NewClock(), s, c, func(recording.Request) {})
	w.acknowledged = []recording.Request{{Record: "resp_1"}}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, ok := w.ReadBack(ctx); ok {
		t.Error("it says that all was read")
	}
}
