package checklist

import (
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// TooFew says of which objectives the gate's load is too little for their
// percentile or share, however well the service does. Requests tells about how
// many requests an objective is about, at the most, where that is known before the
// run. Gaps between chunks are not counted by requests, and neither is who will
// meet a fault.
func TooFew(gate scenarios.Gate, requests func(scenarios.Objective) (int64, bool)) []words.Sentence {
	var short []words.Sentence
	for _, o := range gate.Objectives {
		if m, _ := scenarios.MetricOf(o.Metric); !m.OfRequests() || o.Metric == "icl" || o.During != "" {
			continue
		}
		takes := Takes(gate, o)
		sent, known := requests(o)
		if others, ofOthers := requests(o.Reference()); ofOthers && others < sent {
			sent = others
		}
		if !known || sent >= takes {
			continue
		}
		why := words.Say("%s takes %d samples, and the stages send about %d: lengthen them, raise the rate, let the last one extend", o.Source, takes, sent)
		for _, lower := range []struct {
			stat     string
			quantile float64
		}{{"p99", 0.99}, {"p95", 0.95}, {"p90", 0.90}, {"p50", 0.50}} {
			promise := o
			promise.Quantile = lower.quantile
			if lower.quantile < o.Quantile && (o.Op == "<=" || o.Op == "<") && Takes(gate, promise) <= sent {
				why = words.Say("%s, or promise %s", why, lower.stat)
				break
			}
		}
		short = append(short, why)
	}
	return short
}
