package gateway

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// Without a ledger a background response is in one replica; whichever it is, it
// is found, and one that was never there is not.
func TestBackgroundResponsesAreFoundInTheirReplica(t *testing.T) {
	has := func(id string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(strings.TrimSuffix(r.URL.Path, "/cancel"), "/"+id) {
				http.NotFound(w, r)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(r.Method + " " + r.URL.Path))
		}
	}
	a, b := newBackend(t, has("resp_a")), newBackend(t, has("resp_b"))
	srv, g := front(t, a, b)
	waitReady(t, g, 2)
	get := func(method, path string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequest(method, srv.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var text strings.Builder
		if _, err := io.Copy(&text, resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp, text.String()
	}
	for range 3 {
		for _, want := range []string{"GET /v1/responses/resp_a", "GET /v1/responses/resp_b", "DELETE /v1/responses/resp_b", "POST /v1/responses/resp_a/cancel"} {
			method, path, _ := strings.Cut(want, " ")
			if resp, body := get(method, path); resp.StatusCode != 200 || body != want || resp.Header.Get(HeaderReplica) == "" {
				t.Errorf("%s: %s %s %v", want, resp.Status, body, resp.Header)
			}
		}
	}
	if resp, body := get("GET", "/v1/responses/resp_c"); resp.StatusCode != 404 || !strings.Contains(body, "resp_c") {
		t.Errorf("%s %s", resp.Status, body)
	}
	b.Close()
	if resp, _ := get("GET", "/v1/responses/resp_a"); resp.StatusCode != 200 {
		t.Errorf("what another replica has: %s", resp.Status)
	}
	if resp, body := get("GET", "/v1/responses/resp_b"); resp.StatusCode != 503 {
		t.Errorf("what the lost replica had may come back with it: %s %s", resp.Status, body)
	}
}
