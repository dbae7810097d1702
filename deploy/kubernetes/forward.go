package kubernetes

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/launchgate/launchgate/internal/words"
)

// forwarder connects this machine to pods through the API server, as kubectl
// port-forward does. Like a Service it sends every connection to the next pod
// that is ready.
//
//	client ──▶ loopback ──▶ API server ──▶ kubelet ──▶ pod
type forwarder struct {
	api      *api
	pods     *pods
	port     int
	listener net.Listener

	mu    sync.Mutex
	conns map[types.UID]httpstream.Connection // one for each pod, with many streams
	asked int                                 // number of streams so far
	next  int
	open  sync.WaitGroup
}

const portForwardProtocol = "portforward.k8s.io"

// forward listens on loopback for the port of the pods.
func forward(a *api, p *pods, port int) (*forwarder, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := newForwarder(a, p, port)
	f.listener = l
	f.open.Go(f.accept)
	return f, nil
}

func newForwarder(a *api, p *pods, port int) *forwarder {
	return &forwarder{api: a, pods: p, port: port, conns: map[types.UID]httpstream.Connection{}}
}

func (f *forwarder) addr() string { return f.listener.Addr().String() }

func (f *forwarder) accept() {
	for {
		conn, err := f.listener.Accept()
		if err != nil {
			return // the forwarder was closed
		}
		f.open.Go(func() { f.serve(conn) })
	}
}

// serve carries one connection. If no pod takes it, serve closes it, as a
// client sees it with a service without pods.
func (f *forwarder) serve(client net.Conn) {
	defer client.Close()
	pod, err := f.dialAny()
	if err != nil {
		return
	}
	defer pod.Close()
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(pod, client)
		pod.closeWrite()
	})
	_, _ = io.Copy(client, pod)
	client.Close() // ends the other direction too
	both.Wait()
}

// dialAny connects to the next pod that is ready. If that one cannot be
// reached, it tries another.
func (f *forwarder) dialAny() (*stream, error) {
	ready := f.pods.serving()
	f.mu.Lock()
	f.next++
	first := f.next
	f.mu.Unlock()
	err := words.Errorf("no pod of %s is ready", f.pods.selector)
	for i := range ready {
		var s *stream
		if s, err = f.dial(ready[(first+i)%len(ready)], f.port); err == nil {
			return s, nil
		}
	}
	return nil, err
}

// dial connects to a port of a pod.
func (f *forwarder) dial(pod *corev1.Pod, port int) (*stream, error) {
	conn, err := f.connection(pod)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.asked++
	id := strconv.Itoa(f.asked)
	f.mu.Unlock()
	headers := http.Header{}
	headers.Set("port", strconv.Itoa(port))
	headers.Set("requestID", id)
	headers.Set("streamType", "error")
	failed, err := conn.CreateStream(headers)
	if err != nil {
		f.forget(pod.UID, conn)
		return nil, err
	}
	_ = failed.Close() // nothing is written to it
	headers.Set("streamType", "data")
	data, err := conn.CreateStream(headers)
	if err != nil {
		f.forget(pod.UID, conn)
		return nil, err
	}
	s := &stream{Stream: data, conn: conn, failed: failed}
	f.open.Go(func() { // it ends with the stream, or with the connection
		if reason, err := io.ReadAll(failed); err == nil && len(reason) > 0 {
			_ = data.Reset() // nobody listens on the port, or the pod is gone
		}
	})
	return s, nil
}

func (f *forwarder) connection(pod *corev1.Pod) (httpstream.Connection, error) {
	f.mu.Lock()
	conn := f.conns[pod.UID]
	f.mu.Unlock()
	if conn != nil {
		select {
		case <-conn.CloseChan():
			f.forget(pod.UID, conn)
		default:
			return conn, nil
		}
	}
	transport, upgrader, err := spdy.RoundTripperFor(f.api.config)
	if err != nil {
		return nil, err
	}
	at, err := url.Parse(f.api.config.Host)
	if err != nil {
		return nil, err
	}
	at = at.JoinPath("api/v1/namespaces", pod.Namespace, "pods", pod.Name, "portforward")
	conn, _, err = spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport, Timeout: 10 * time.Second}, http.MethodPost, at).Dial(portForwardProtocol)
	if err != nil {
		return nil, words.Errorf("port-forward to %s: %s", pod.Name, f.api.explain(err))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if other := f.conns[pod.UID]; other != nil { // another goroutine was quicker
		_ = conn.Close()
		return other, nil
	}
	f.conns[pod.UID] = conn
	return conn, nil
}

func (f *forwarder) forget(uid types.UID, conn httpstream.Connection) {
	_ = conn.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conns[uid] == conn {
		delete(f.conns, uid)
	}
}

// close ends every connection.
func (f *forwarder) close() {
	if f.listener != nil {
		f.listener.Close()
	}
	f.mu.Lock()
	conns := f.conns
	f.conns = map[types.UID]httpstream.Connection{}
	f.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close()
	}
	f.open.Wait()
}

// stream is a connection to a port of a pod.
type stream struct {
	httpstream.Stream
	conn   httpstream.Connection
	failed httpstream.Stream
}

func (s *stream) closeWrite() { _ = s.Stream.Close() }

// Close ends both directions.
func (s *stream) Close() error {
	err := errors.Join(s.Reset(), s.failed.Reset())
	s.conn.RemoveStreams(s.Stream, s.failed)
	return err
}

// netConn makes a stream usable as a net.Conn for an HTTP client that makes one
// request.
type netConn struct{ *stream }

func (netConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (netConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (netConn) SetDeadline(time.Time) error      { return nil }
func (netConn) SetReadDeadline(time.Time) error  { return nil }
func (netConn) SetWriteDeadline(time.Time) error { return nil }

// ask makes a GET request to a port of a pod, and returns the body of a 200.
func (f *forwarder) ask(ctx context.Context, pod *corev1.Pod, port int, path string) ([]byte, error) {
	_, status, b, err := f.fetch(ctx, pod, port, path)
	if err == nil && status != http.StatusOK {
		err = words.Errorf("%s answers %s", pod.Name, strconv.Itoa(status)+" "+http.StatusText(status))
	}
	return b, err
}

// fetch makes a GET request to a port of a pod.
func (f *forwarder) fetch(ctx context.Context, pod *corev1.Pod, port int, path string) (http.Header, int, []byte, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		s, err := f.dial(pod, port)
		if err != nil {
			return nil, err
		}
		return netConn{s}, nil
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+strconv.Itoa(port)+path, nil)
	if err != nil {
		return nil, 0, nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	return resp.Header, resp.StatusCode, b, err
}
