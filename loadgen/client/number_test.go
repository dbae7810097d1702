package client

import (
	"net/http/httptest"
	"testing"

	"github.com/launchgate/launchgate/internal/recording"
)

// A row has the number of its connection and its place on it.
func TestConnectionsAreNumbered(t *testing.T) {
	srv := httptest.NewServer(sse(good))
	defer srv.Close()
	c := made(Config{BaseURL: srv.URL, Model: "m"})
	defer c.Close()
	type place struct{ connection, on int32 }
	ask := func(way Connection) place {
		p := prompt
		p.Connection = way
		row := c.Do(t.Context(), p, recording.NewClock(), 1)
		if !row.OK() {
			t.Fatal(row.ErrorText)
		}
		return place{row.Connection, row.OnConnection}
	}
	for i, tt := range []struct {
		way  Connection
		want place
	}{{Connection{}, place{1, 1}}, {Connection{}, place{1, 2}}, {Connection{New: true}, place{2, 1}}, {Connection{New: true}, place{3, 1}}, {Connection{}, place{1, 3}}} {
		if got := ask(tt.way); got != tt.want {
			t.Errorf("request %d is %+v, want %+v", i, got, tt.want)
		}
	}
}
