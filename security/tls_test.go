package security

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// A handshake that the service refuses is safe. It is not safe if it could not be
// tried, because the service does not answer or is gone.
func TestRefusedHandshakeIsNotAMissingOne(t *testing.T) {
	for name, tt := range map[string]struct {
		most  int           // connections until the service is gone; 0: no limit
		stall time.Duration // delay of the answer to a client that supports only old versions
		want  string
	}{
		"refuses":    {0, 0, recording.ScanSafe},
		"is silent":  {0, time.Minute, recording.ScanUnproven},
		"goes away":  {8, 0, recording.ScanUnproven},
		"goes later": {25, 0, recording.ScanUnproven},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := startFake(t)
			certificate := f.certificate(t, t.TempDir())
			config := certificate.Clone()
			config.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
				if slices.Max(h.SupportedVersions) < tls.VersionTLS12 && tt.stall > 0 {
					select {
					case <-time.After(tt.stall):
					case <-t.Context().Done():
					}
				}
				return certificate, nil
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := &http.Server{Handler: f, TLSConfig: config, ErrorLog: log.New(io.Discard, "", 0)}
			go func() { _ = server.ServeTLS(&shortLived{Listener: l, left: tt.most}, "", "") }()
			t.Cleanup(func() { server.Close() })
			var ended recording.ScanResult
			err = Run(t.Context(), Options{Scan: scenarios.Scan{Only: []string{"tls"}}, Target: Target{URL: "https://" + l.Addr().String(), Key: keyOne, CAFile: f.ca},
				Clock: recording.NewClock(), Tell: func(string) {}, Record: func(r recording.ScanResult) {
					if r.Check == "tls" {
						ended = r
					}
				}})
			if err != nil || ended.Outcome != tt.want {
				t.Errorf("tls ended as %s: %s (%v), want %s", ended.Outcome, ended.Why, err, tt.want)
			}
		})
	}
}

// shortLived is a listener that is closed after so many connections.
type shortLived struct {
	net.Listener
	left int
}

func (l *shortLived) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if l.left > 0 {
		if l.left--; l.left == 0 {
			_ = l.Listener.Close()
		}
	}
	return c, err
}
