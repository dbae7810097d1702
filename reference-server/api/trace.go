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

// startSpan begins a request's span. It is a child of the client's span if the
// client sent a traceparent. Spans have the parameters, the model and the usage
// under OpenTelemetry's names for generative AI. They never have the text.
// Without a tracer provider they cost almost nothing.
func startSpan(r *http.Request, a answer) (context.Context, trace.Span) {
	ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	return otel.Tracer("github.com/launchgate/launchgate/reference-server").Start(ctx, a.operation(),
		trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attribute.String("gen_ai.operation.name", a.operation()), attribute.String("gen_ai.response.id", a.id)))
}

// endSpan records how the request ended.
func endSpan(span trace.Span, a answer, status string) {
	span.SetAttributes(attribute.String("gen_ai.response.model", a.model), attribute.String("launchgate.status", status))
	if status != "ok" {
		span.SetStatus(codes.Error, status)
	}
	span.End()
}

// spanUsage records the usage of the answer.
func spanUsage(ctx context.Context, u engine.Usage) {
	trace.SpanFromContext(ctx).SetAttributes(attribute.Int("gen_ai.usage.input_tokens", u.Prompt),
		attribute.Int("gen_ai.usage.output_tokens", u.Output), attribute.Int("launchgate.cached_tokens", u.Cached))
}

// spanFirstToken marks the first token.
func spanFirstToken(ctx context.Context) { trace.SpanFromContext(ctx).AddEvent("first token") }
