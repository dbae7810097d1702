package main

import (
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/reference-server/gateway"
)

const headerLimit = 64 << 10

// Headers and idle connections are bounded over TLS and in clear.
func TestListenIsBounded(t *testing.T) {
	certified := httptest.NewUnstartedServer(nil)
	certified.StartTLS()
	defer certified.Close()
	for name, certificate := range map[string]*tls.Config{"http": nil, "https": {Certificates: certified.TLS.Certificates}} {
		t.Run(name, func(t *testing.T) {
			l, err := gateway.Listen("127.0.0.1:0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), certificate, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
			defer client.CloseIdleConnections()
			for size, want := range map[int]int{1 << 10: http.StatusOK, 2 * headerLimit: http.StatusRequestHeaderFieldsTooLarge} {
				req, err := http.NewRequest(http.MethodGet, name+"://"+l.Addr().String(), nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("X-Long", strings.Repeat("x", size))
				resp, err := client.Do(req)
				if err != nil {
					t.Fatalf("%d bytes of headers: %v", size, err)
				}
				resp.Body.Close()
				if resp.StatusCode != want {
					t.Errorf("%d bytes of headers: %s, want %d", size, resp.Status, want)
				}
			}
		})
	}
}
