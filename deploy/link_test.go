package deploy

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// sendBack serves on a listener and sends back what it receives. wait returns
// when the listener and all accepted connections are closed.
func sendBack(on net.Listener) (wait func()) {
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := on.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { defer c.Close(); _, _ = io.Copy(c, c) })
		}
	})
	return serving.Wait
}

// echo is a link in front of a server that sends back what it receives.
func echo(t *testing.T) *Link {
	t.Helper()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	wait := sendBack(server)
	l, err := newLink(nil, "127.0.0.1:0", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.stop(); server.Close(); wait() })
	return l
}

func dial(t *testing.T, l *Link) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// Under every impairment the data arrives complete and in order, and takes as
// long as the impairment says.
func TestLinkPassesEverythingOn(t *testing.T) {
	tests := []struct {
		name        string
		impairment  Impairment
		bytes       int
		least, most time.Duration
	}{
		{"fine", Impairment{}, 4 << 20, 0, 5 * time.Second},
		{"delay", Impairment{Delay: 200 * time.Millisecond}, 100 << 10, 200 * time.Millisecond, 2 * time.Second},
		{"bandwidth", Impairment{Bandwidth: 200 << 10}, 100 << 10, 500 * time.Millisecond, 3 * time.Second}, // each way, one after the other in part
		{"loss", Impairment{Loss: 0.05}, 20 << 10, 0, 60 * time.Second},
		{"all of it", Impairment{Delay: 20 * time.Millisecond, Loss: 0.02, Bandwidth: 500 << 10}, 50 << 10, 100 * time.Millisecond, 60 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := echo(t)
			l.Begin(tt.impairment)
			sent := make([]byte, tt.bytes)
			for i := range sent {
				sent[i] = byte(rand.Uint32())
			}
			c := dial(t, l)
			began := time.Now()
			var writing sync.WaitGroup
			writing.Go(func() {
				if _, err := c.Write(sent); err != nil {
					t.Error(err)
				}
				_ = c.CloseWrite()
			})
			got, err := io.ReadAll(c)
			writing.Wait()
			if took := time.Since(began); err != nil || took < tt.least || took > tt.most {
				t.Errorf("took %s (%v), expected %s to %s", took, err, tt.least, tt.most)
			}
			if !bytes.Equal(got, sent) {
				t.Errorf("%d bytes arrived, not the %d that were sent", len(got), len(sent))
			}
			if lost, passed := l.Counts(); passed == 0 || tt.impairment.Loss == 0 && lost > 0 {
				t.Errorf("%d segments lost, %d passed", lost, passed)
			}
		})
	}
}

// Data that a silent link held back arrives when the silence ends.
func TestLinkSilent(t *testing.T) {
	l := echo(t)
	c := dial(t, l)
	say := func(text string) {
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(within time.Duration) (string, error) {
		buf := make([]byte, 100)
		_ = c.SetReadDeadline(time.Now().Add(within))
		n, err := c.Read(buf)
		return string(buf[:n]), err
	}
	say("one")
	if got, err := hear(time.Second); got != "one" {
		t.Fatal(got, err)
	}
	end := l.Begin(Impairment{Silent: true})
	say("two")
	if got, err := hear(200 * time.Millisecond); err == nil {
		t.Fatalf("%q came through", got)
	}
	end()
	if got, err := hear(time.Second); got != "two" {
		t.Fatal(got, err)
	}
}

func TestLinkReset(t *testing.T) {
	l := echo(t)
	c := dial(t, l)
	if _, err := io.WriteString(c, "one"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	end := l.Begin(Impairment{Reset: true})
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection ended with %v", err)
	}
	if c, err := net.Dial("tcp", l.Addr()); err == nil { // the kernel accepts, the link breaks it
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		_, err = c.Read(make([]byte, 1))
		c.Close()
		if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
			t.Errorf("a new connection ended with %v", err)
		}
	}
	end()
	c = dial(t, l)
	if _, err := io.WriteString(c, "two"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 3)); err != nil {
		t.Error(err)
	}
}

// Several faults on one link are all in effect, and each ends separately.
func TestImpairmentsAddUp(t *testing.T) {
	l := echo(t)
	endSlow := l.Begin(Impairment{Delay: 10 * time.Millisecond, Bandwidth: 1000})
	endWorse := l.Begin(Impairment{Delay: 5 * time.Millisecond, Bandwidth: 500, Loss: 0.5})
	if w, _, _ := l.now(); w != (Impairment{Delay: 15 * time.Millisecond, Bandwidth: 500, Loss: 0.5}) {
		t.Errorf("both together are %+v", w)
	}
	endWorse()
	endWorse()
	if w, _, _ := l.now(); w != (Impairment{Delay: 10 * time.Millisecond, Bandwidth: 1000}) {
		t.Errorf("the first alone is %+v", w)
	}
	endSlow()
	if w, _, _ := l.now(); w != (Impairment{}) {
		t.Errorf("after all it is %+v", w)
	}
}

func TestHeldProcessIsNotRestarted(t *testing.T) {
	var seen events
	p := &process{name: "sleeper", argv: []string{"sleep", "60"}, log: io.Discard, onEvent: seen.add}
	ctx := t.Context()
	done := make(chan struct{})
	go func() { p.supervise(ctx); close(done) }()
	t.Cleanup(func() { <-done })
	seen.wait(t, "process_started", 1)
	p.hold()
	first := p.current()
	if err := syscall.Kill(first.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-first.exited
	time.Sleep(100 * time.Millisecond)
	if life := p.current(); life != nil {
		t.Errorf("a held process was started, as pid %d", life.pid)
	}
	p.release()
	seen.wait(t, "process_started", 2)
}
