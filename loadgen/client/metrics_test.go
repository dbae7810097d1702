package client

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The metrics are requested like the load, and a service without metrics is
// distinguished from one whose metrics could not be read.
func TestMetrics(t *testing.T) {
	const page = "# TYPE up gauge\nup 1\n"
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		none   bool
		says   string // part of the error; empty: none
	}{
		{"there", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, page) }, false, ""},
		{"at /metrics/, as of mounted applications", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/metrics" {
				http.Redirect(w, r, "/metrics/", http.StatusTemporaryRedirect)
				return
			}
			_, _ = io.WriteString(w, page)
		}, false, ""},
		{"redirected to another host", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/login", http.StatusFound)
		}, false, "302 Found"},
		{"redirected for ever", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.String(), http.StatusFound) }, false, "302 Found"},
		{"none", http.NotFound, true, "404 Not Found"},
		{"a page for people", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "<!doctype html><p>Welcome") }, true, "Welcome"},
		{"forbidden", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "operators only", http.StatusForbidden) }, false, "403 Forbidden: operators only"},
		{"broken", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, false, "GET /metrics"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "Bearer key" || r.Header.Get("X-Team") != "red" || r.URL.Query().Get("v") != "1" && r.URL.Path == "/metrics" {
					t.Errorf("%s is asked with %v", r.URL, r.Header)
				}
				tt.answer(w, r)
			}))
			defer srv.Close()
			srv.Config.ErrorLog = nil
			ca := filepath.Join(t.TempDir(), "ca.pem")
			if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
				t.Fatal(err)
			}
			c := made(Config{BaseURL: srv.URL + "/v1", Model: "m", CAFile: ca, APIKey: "key", Headers: map[string]string{"X-Team": "red"}, Query: map[string]string{"v": "1"}})
			defer c.Close()
			got, err := c.Metrics(context.Background())
			switch {
			case tt.says == "" && (err != nil || string(got) != page):
				t.Errorf("%q, %v", got, err)
			case tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)), errors.Is(err, ErrNoMetrics) != tt.none:
				t.Errorf("%q, %v; want %q", got, err, tt.says)
			}
		})
	}
	if _, err := made(Config{BaseURL: "grpc://127.0.0.1:1"}).Metrics(context.Background()); !errors.Is(err, ErrNoMetrics) {
		t.Errorf("over gRPC: %v", err)
	}
}
