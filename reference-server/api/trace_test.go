package api

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/launchgate/launchgate/reference-server/engine"
)

// A request becomes one span below its client's. The span has the usage and no
// text.
func TestSpans(t *testing.T) {
	seen := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(seen))
	before := otel.GetTracerProvider()
	otel.SetTracerProvider(provider)
	t.Cleanup(func() { otel.SetTracerProvider(before); _ = provider.Shutdown(context.Background()) })
	srv, _, _ := serving(t, engine.Config{})
	req, _ := http.NewRequest(http.MethodPost, srv.URL+"/v1/chat/completions", strings.NewReader(ask+"}"))
	req.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	srv.Close() // waits for the handler
	spans := seen.GetSpans()
	if len(spans) != 1 {
		t.Fatalf("%d spans", len(spans))
	}
	s := spans[0]
	if s.SpanContext.TraceID().String() != "0af7651916cd43dd8448eb211c80319c" || s.Parent.SpanID().String() != "b7ad6b7169203331" || s.Name != "chat" {
		t.Errorf("%s %s", s.Name, s.SpanContext.TraceID())
	}
	var tokens int64
	for _, a := range s.Attributes {
		if a.Key == "gen_ai.usage.output_tokens" {
			tokens = a.Value.AsInt64()
		}
		if strings.Contains(a.Value.String(), "sea") {
			t.Errorf("the span tells what was said: %v", a)
		}
	}
	if tokens != 24 || len(s.Events) != 1 || s.Events[0].Name != "first token" {
		t.Errorf("%d tokens, events %v", tokens, s.Events)
	}
}
