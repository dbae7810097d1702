package interchange

import (
	"crypto/md5"
	"encoding/hex"
	"io"

	"github.com/launchgate/launchgate/checklist"
)

// writeK6 writes what k6 --summary-export does. A trend of k6 is in milliseconds.
// The objectives are checks: one that is not proven is a failed check, because k6
// has no third outcome.
func writeK6(w io.Writer, r run) error {
	trend := func(s stats) map[string]float64 {
		ms := func(v float64) float64 { return v * 1e3 }
		return map[string]float64{"avg": ms(s.mean), "min": ms(s.min()), "med": ms(s.at(0.5)), "max": ms(s.max()),
			"p(90)": ms(s.at(0.9)), "p(95)": ms(s.at(0.95)), "p(99)": ms(s.at(0.99))}
	}
	share := func(yes, all int) float64 {
		if all == 0 {
			return 0
		}
		return float64(yes) / float64(all)
	}
	checks := map[string]any{}
	proven := 0
	check := func(name string, passes bool) {
		path := "::" + name
		id := md5.Sum([]byte(path)) // as k6 names its checks
		passed, failed := 0, 1
		if passes {
			passed, failed = 1, 0
			proven++
		}
		checks[name] = map[string]any{"name": name, "path": path, "id": hex.EncodeToString(id[:]), "passes": passed, "fails": failed}
	}
	check("launchgate verdict", r.verdict.Verdict == checklist.Pass)
	for _, f := range r.verdict.Objectives {
		if !f.Waived {
			check(f.Source, f.Verdict == checklist.Pass)
		}
	}
	metrics := map[string]any{
		"http_reqs":         map[string]float64{"count": float64(len(r.requests)), "rate": float64(len(r.requests)) / r.seconds()},
		"iterations":        map[string]float64{"count": float64(len(r.requests)), "rate": float64(len(r.requests)) / r.seconds()},
		"http_req_failed":   map[string]any{"passes": r.failed, "fails": r.succeeded(), "value": share(r.failed, len(r.requests))},
		"http_req_duration": trend(r.latency),
		"checks":            map[string]any{"passes": proven, "fails": len(checks) - proven, "value": share(proven, len(checks))},
		"output_tokens":     map[string]float64{"count": r.output.sum, "rate": r.output.sum / r.seconds()},
	}
	for name, s := range map[string]stats{"http_req_waiting": r.ttft, "ttft": r.ttft, "tpot": r.tpot, "icl": r.icl} {
		if s.n() > 0 {
			metrics[name] = trend(s)
		}
	}
	root := md5.Sum(nil)
	return writeJSON(w, map[string]any{
		"metrics":    metrics,
		"root_group": map[string]any{"name": "", "path": "", "id": hex.EncodeToString(root[:]), "groups": map[string]any{}, "checks": checks},
	})
}
