package host

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/scenarios"
)

// The network between the load and a service that launchgate did not deploy can
// be broken too. That holds for every protocol and with or without /health.
func TestNetworkOfAnEndpoint(t *testing.T) {
	hold := scenarios.Duration(200 * time.Millisecond)
	tests := []struct {
		scheme string
		fault  scenarios.Fault
		seen   string
	}{
		{"http", scenarios.Fault{Kind: "network-delay", Delay: scenarios.Duration(100 * time.Millisecond)}, " more"},
		{"https", scenarios.Fault{Kind: "network-loss", Loss: 0.5}, "were lost"},
		{"https", scenarios.Fault{Kind: "network-bandwidth", Bandwidth: 16 << 10}, "a request of 6KiB"},
		{"http", scenarios.Fault{Kind: "node-partition", Cut: scenarios.CutSilent}, "itself answered"},
		{"grpc", scenarios.Fault{Kind: "node-partition", Cut: scenarios.CutReset}, "refused"},
	}
	for _, tt := range tests {
		t.Run(tt.scheme+" "+tt.fault.Kind, func(t *testing.T) {
			srv := httptest.NewUnstartedServer(http.NotFoundHandler())
			srv.Config.Protocols = new(http.Protocols)
			srv.Config.Protocols.SetHTTP1(tt.scheme != "grpc")
			srv.Config.Protocols.SetUnencryptedHTTP2(tt.scheme == "grpc")
			if srv.Start(); tt.scheme == "https" {
				srv.Close()
				srv = httptest.NewTLSServer(http.NotFoundHandler())
			}
			defer srv.Close()
			_, host, _ := strings.Cut(srv.URL, "://")
			target, err := linkedTo(scenarios.Endpoint{URL: tt.scheme + "://" + host})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = target.Stop() }()
			tt.fault.Target, tt.fault.For, tt.fault.Within = scenarios.VictimBusiest, hold, scenarios.Duration(20*time.Second)
			lines := play(t.Context(), journal(t), target, tt.fault)
			if got := states(lines); got != "declared injected in_effect held reverted gone" {
				t.Fatalf("%s: %+v", got, lines[len(lines)-1])
			}
			if got := text(lines, "in_effect"); !strings.Contains(got, tt.seen) {
				t.Errorf("seen in effect as %q, want %q in it", got, tt.seen)
			}
			if got := text(lines, "gone"); !strings.Contains(got, host+" answers") {
				t.Errorf("seen gone as %q", got)
			}
		})
	}
}

// If a narrow link is full, the fault does not hold it until a new request has
// passed behind all queued data.
func TestAFullLinkIsNotHeldForLonger(t *testing.T) {
	var target *Endpoint
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Launchgate-Padding") != "" && asked.Add(1) == 4 { // three before the fault, and the one that shows its effect
			for range 16 { // they fill the link for half a minute
				if c, err := net.Dial("tcp", target.Via()); err == nil {
					_, _ = c.Write(make([]byte, 8<<10))
					t.Cleanup(func() { c.Close() })
				}
			}
		}
	}))
	defer srv.Close()
	var err error
	if target, err = linkedTo(scenarios.Endpoint{URL: srv.URL}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = target.Stop() }()
	lines := play(t.Context(), journal(t), target, scenarios.Fault{Kind: "network-bandwidth", Bandwidth: 4 << 10, Target: scenarios.VictimBusiest,
		For: scenarios.Duration(100 * time.Millisecond), Within: scenarios.Duration(time.Minute)})
	if got := states(lines); got != "declared injected in_effect held reverted gone" {
		t.Fatalf("%s: %+v", got, lines[len(lines)-1])
	}
	if got := text(lines, "held"); !strings.Contains(got, "got no answer in 2s, and") || !strings.Contains(got, "itself answered") {
		t.Errorf("held as %q", got)
	}
}

// The number of streams in flight is not known, so no fault waits for them.
func TestStreamsOfAnEndpointAreNotWaitedFor(t *testing.T) {
	target, err := linkedTo(scenarios.Endpoint{URL: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = target.Stop() }()
	lines := play(t.Context(), journal(t), target, scenarios.Fault{Kind: "network-delay", Target: scenarios.VictimBusiest, MinStreams: 1,
		Delay: scenarios.Duration(time.Second), Within: scenarios.Duration(time.Minute)})
	if last := lines[len(lines)-1]; last.State != "failed" || !strings.Contains(last.Text.String(), "min_streams") {
		t.Errorf("%+v", last)
	}
}

// linkedTo is an existing service with a proxy in front of it.
func linkedTo(spec scenarios.Endpoint) (*Endpoint, error) {
	e, err := deploy.OpenEndpoint(spec, true)
	if err != nil {
		return nil, err
	}
	return onEndpoint(e, endpointPlan{})
}
