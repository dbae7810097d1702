package api

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/launchgate/launchgate/reference-server/engine"
)

// startSpan begins a request's span, as a child of the client's where it sent a
// traceparent. Spans say what was asked of which model and what it took, by
// OpenTelemetry's names for generative AI; never what was said. Without a
// tracer provider they cost next to nothing.
func startSpan(r *http.Request, a answer) (context.Context, trace.Span) {
	ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	return otel.Tracer("github.com/launchgate/launchgate/reference-server").Start(ctx, a.operation(),
		trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attribute.String("gen_ai.operation.name", a.operation()), attribute.String("gen_ai.response.id", a.id)))
}

// endSpan notes how the request ended.
func endSpan(span trace.Span, a answer, status string) {
	span.SetAttributes(attribute.String("gen_ai.response.model", a.model), attribute.String("launchgate.status", status))
	if status != "ok" {
		span.SetStatus(codes.Error, status)
	}
	span.End()
}

// spanUsage notes what the answer took.
func spanUsage(ctx context.Context, u engine.Usage) {
	trace.SpanFromContext(ctx).SetAttributes(attribute.Int("gen_ai.usage.input_tokens", u.Prompt),
		attribute.Int("gen_ai.usage.output_tokens", u.Output), attribute.Int("launchgate.cached_tokens", u.Cached))
}

// spanFirstToken marks the first token.
func spanFirstToken(ctx context.Context) { trace.SpanFromContext(ctx).AddEvent("first token") }
