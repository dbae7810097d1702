//go:build linux

// Command golden is the server that the client is tested against: its streams have
// every chunk at a planned time, and it records when it really wrote each. So the
// client's measurements can be compared with the truth. It is a test program and no
// part of the product. It implements just enough HTTP/1.1 and OpenAI API to be cheap
// beside the client on two cores.
//
//	golden -first 100ms -every 50ms
//
// It prints its address and serves until it is killed. A POST with "stream": true
// streams max_tokens chunks; X-Launchgate-Replica names the stream. A POST without it,
// and any GET, is answered at once and whole. GET /record returns what was written
// since the last GET /record, GET /count how many requests were answered since the last
// GET /count.
package main

import (
	"bufio"
	"container/heap"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Record is the answer of /record. Times are nanoseconds: the wall clock at the
// server's start plus its monotonic clock.
type Record struct {
	Streams []Stream `json:"streams"`
	// TimerP99 is the p99 by which a sleeping thread was woken late meanwhile. It tells
	// how quiet the machine was.
	TimerP99 int64 `json:"timer_p99_ns"`
}

// Stream is the record of one stream.
type Stream struct {
	ID      string  `json:"id"`
	Planned []int64 `json:"planned_ns"` // of each content chunk
	Written []int64 `json:"written_ns"` // taken right before each write; shorter if the client went away
}

func main() {
	log.SetFlags(0)
	var p plan
	listen := flag.String("listen", "127.0.0.1:0", "address")
	flag.DurationVar(&p.first, "first", 100*time.Millisecond, "until the first chunk")
	flag.DurationVar(&p.every, "every", 50*time.Millisecond, "between chunks")
	flag.Float64Var(&p.jitter, "jitter", 0.3, "part of every gap that is random")
	flag.Parse()
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprintf(os.Stdout, "http://%s\n", l.Addr())
	s := newServer(p)
	go s.writer.run()
	go s.quiet.watch()
	for {
		c, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go s.serve(c.(*net.TCPConn))
	}
}

// base is when the server started; now is base plus the time since then.
var base = time.Now()

func now() int64 { return base.UnixNano() + int64(time.Since(base)) }

// plan says when chunks are written.
type plan struct {
	first, every time.Duration
	jitter       float64
}

// times draws the times of a stream; the same number of a stream gives the same times.
func (p plan) times(id, n int) []int64 {
	random := rand.New(rand.NewPCG(uint64(id), 0))
	at, times := now(), make([]int64, n)
	gap := p.first
	for k := range times {
		at += int64(float64(gap) * (1 + p.jitter*(random.Float64()-0.5)))
		times[k], gap = at, p.every
	}
	return times
}

type server struct {
	plan     plan
	writer   *writer
	quiet    quiet
	answered atomic.Int64

	mu      sync.Mutex
	streams []*stream // since the last record
	next    int
}

func newServer(p plan) *server {
	return &server{plan: p, writer: &writer{fresh: make(chan *stream, 1024)}}
}

// question is the part of a request that is read.
type question struct {
	Stream              bool `json:"stream"`
	MaxTokens           int  `json:"max_tokens"`
	MaxCompletionTokens int  `json:"max_completion_tokens"` // its newer name
}

// serve answers a connection's requests, one after the other.
func (s *server) serve(c *net.TCPConn) {
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	in := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return // the client has gone
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		var q question
		if len(body) > 0 && json.Unmarshal(body, &q) != nil {
			return
		}
		switch {
		case r.URL.Path == "/record":
			err = whole(c, s.record())
		case r.URL.Path == "/v1/models":
			_, err = c.Write(modelsAnswer)
		case r.URL.Path == "/count":
			_, err = c.Write(answer(fmt.Sprintf(`{"answered":%d}`, s.answered.Swap(0))))
		case q.Stream:
			err = s.stream(c, raw, max(1, q.MaxTokens, q.MaxCompletionTokens))
			s.answered.Add(1)
		default:
			_, err = c.Write(wholeAnswer)
			s.answered.Add(1)
		}
		if err != nil {
			return
		}
	}
}

func (s *server) stream(c *net.TCPConn, raw syscall.RawConn, n int) error {
	st := &stream{raw: raw, done: make(chan error, 1)}
	st.attempt = st.try
	s.mu.Lock()
	id := s.next
	s.next++
	s.streams = append(s.streams, st)
	s.mu.Unlock()
	st.id = "golden-" + strconv.Itoa(id)
	st.planned, st.written = s.plan.times(id, n), make([]int64, 0, n)
	if _, err := fmt.Fprintf(c, streamHead, st.id, roleChunk); err != nil {
		return err
	}
	s.writer.fresh <- st
	if err := <-st.done; err != nil {
		return err
	}
	_, err := c.Write(fmt.Appendf(nil, "%s%s%s0\r\n\r\n", framed(finishEvent), framed(fmt.Sprintf(usageEvent, n, n+9)), framed("data: [DONE]\n\n")))
	return err
}

func (s *server) record() Record {
	s.mu.Lock()
	ended := s.streams
	s.streams = nil
	s.mu.Unlock()
	r := Record{TimerP99: s.quiet.take()}
	for _, st := range ended {
		st.mu.Lock()
		r.Streams = append(r.Streams, Stream{st.id, st.planned, slices.Clone(st.written)})
		st.mu.Unlock()
	}
	return r
}

// stream is one stream that is being written.
type stream struct {
	id      string
	raw     syscall.RawConn
	attempt func(fd uintptr) bool
	planned []int64
	done    chan error
	err     error // of the last attempt

	mu      sync.Mutex
	written []int64
}

// try writes one chunk without waiting, so that a client that does not read does not
// delay the others.
func (st *stream) try(fd uintptr) bool {
	n, err := syscall.Write(int(fd), contentChunk)
	if err == nil && n < len(contentChunk) {
		err = io.ErrShortWrite
	}
	st.err = err
	return true
}

// writer is the one thread that writes chunks, in the order of their times.
type writer struct {
	fresh chan *stream
	due   queue
}

func (w *writer) run() {
	runtime.LockOSThread()
	timer := time.NewTimer(time.Hour)
	for {
		wait := time.Hour
		if len(w.due) > 0 {
			wait = time.Duration(w.due[0].at() - now())
		}
		timer.Reset(wait)
		select {
		case st := <-w.fresh:
			heap.Push(&w.due, st)
		case <-timer.C:
		}
		for len(w.due) > 0 && w.due[0].at() <= now() {
			w.write()
		}
	}
}

// write writes the chunk that is due next.
func (w *writer) write() {
	st := w.due[0]
	at := now()
	err := st.raw.Write(st.attempt)
	if err == nil {
		err = st.err
	}
	if err == nil {
		st.mu.Lock()
		st.written = append(st.written, at)
		st.mu.Unlock()
	}
	if err != nil || len(st.written) == len(st.planned) {
		heap.Pop(&w.due)
		st.done <- err
		return
	}
	heap.Fix(&w.due, 0)
}

// at is when the next chunk is due. Only the writer appends to written.
func (st *stream) at() int64 { return st.planned[len(st.written)] }

// queue is a heap of streams, the earliest first.
type queue []*stream

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at() < q[j].at() }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)        { *q = append(*q, x.(*stream)) }
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// quiet measures how late a thread is woken that only sleeps until the next of evenly
// spaced times: the control of a measurement. As with open-loop requests, a late thread
// does not shift the times.
type quiet struct {
	mu   sync.Mutex
	late []int64
}

const nap = 2 * time.Millisecond

func (q *quiet) watch() {
	runtime.LockOSThread()
	for due := time.Since(base); ; due += nap {
		if rest := due - time.Since(base); rest > 0 {
			ts := syscall.NsecToTimespec(int64(rest))
			_ = syscall.Nanosleep(&ts, nil) // a signal ends a sleep early, which does not count as late
		}
		late := max(0, time.Since(base)-due)
		q.mu.Lock()
		q.late = append(q.late, int64(late))
		q.mu.Unlock()
	}
}

func (q *quiet) take() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	late := q.late
	q.late = nil
	if len(late) == 0 {
		return 0
	}
	slices.Sort(late)
	return late[len(late)*99/100]
}

// The answers, as vLLM writes them.
const (
	streamHead   = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\nX-Launchgate-Replica: %s\r\n\r\n%s"
	eventHead    = `data: {"id":"chatcmpl-0b1f6c2a4d5e4f708192a3b4c5d6e7f8","object":"chat.completion.chunk","created":1764000000,"model":"golden","choices":[`
	roleEvent    = eventHead + `{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":null}` + "\n\n"
	contentEvent = eventHead + `{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null,"token_ids":null}]}` + "\n\n"
	finishEvent  = eventHead + `{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null}]}` + "\n\n"
	usageEvent   = eventHead + `],"usage":{"prompt_tokens":9,"completion_tokens":%d,"total_tokens":%d}}` + "\n\n"
)

var (
	roleChunk    = framed(roleEvent)
	contentChunk = []byte(framed(contentEvent))
	wholeAnswer  = answer(`{"id":"chatcmpl-0b1f6c2a4d5e4f708192a3b4c5d6e7f8","object":"chat.completion","created":1764000000,"model":"golden","choices":[{"index":0,"message":{"role":"assistant","content":"` + strings.Repeat(" word", 64) + `","refusal":null,"tool_calls":[]},"logprobs":null,"finish_reason":"length","stop_reason":null}],"usage":{"prompt_tokens":9,"completion_tokens":64,"total_tokens":73}}`)
	modelsAnswer = answer(`{"object":"list","data":[{"id":"golden","object":"model","created":1764000000,"owned_by":"launchgate"}]}`)
)

// framed is a chunk of HTTP/1.1.
func framed(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

func answer(body string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func whole(w io.Writer, r Record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = w.Write(answer(string(b)))
	return err
}
