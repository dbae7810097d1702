package serve

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/reports"
)

const (
	trendRuns = 20 // of a gate
	pageRuns  = 100
)

//go:embed page.html.tmpl
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// trend is the value of an objective over the last runs of its gate.
type trend struct {
	Objective string
	Last      string
	Outcome   string
	Line      template.HTML
	Says      string // for those who do not see the line
}

type gateTrends struct {
	Gate   string
	Runs   int
	Trends []trend
}

// page lists the runs and shows how each objective went. It needs no script.
func (s *Server) page(w http.ResponseWriter, _ *http.Request) {
	runs, known := s.List(), s.Gates()
	var gates []gateTrends
	for _, gate := range known {
		if t := s.trends(gate, runs); t.Runs > 0 {
			gates = append(gates, t)
		}
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, map[string]any{"Gates": gates, "Runs": runs[:min(len(runs), pageRuns)], "All": len(runs), "Known": strings.Join(known, ", "), "Now": time.Now().UTC().Format("2006-01-02 15:04:05 UTC")}); err != nil {
		refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	_, _ = w.Write(b.Bytes())
}

// trends reads the verdicts of the last runs of a gate. runs begin with the newest.
func (s *Server) trends(gate string, runs []Run) gateTrends {
	t := gateTrends{Gate: gate}
	var newest []checklist.Finding // of each objective
	values := map[string][]float64{}
	for _, r := range runs {
		if r.Gate != gate || r.State != Done {
			continue
		}
		v, err := s.verdict(r.ID)
		if err != nil {
			continue // it has none: it could not be played
		}
		for _, f := range v.Objectives {
			if _, seen := values[f.Source]; !seen {
				newest = append(newest, f)
				values[f.Source] = nil
			}
			if f.Value != nil {
				values[f.Source] = append(values[f.Source], *f.Value)
			}
		}
		if t.Runs++; t.Runs == trendRuns {
			break
		}
	}
	for _, f := range newest {
		line := values[f.Source]
		slices.Reverse(line)
		t.Trends = append(t.Trends, trend{
			Objective: f.Source, Last: reports.Measured(reports.English, f), Outcome: f.Verdict.String(),
			Line: sparkline(line, f.Threshold), Says: fmt.Sprintf("%d values, the limit is %.4g", len(line), f.Threshold),
		})
	}
	return t
}

// sparkline draws the values from the oldest to the newest, and their limit.
func sparkline(values []float64, limit float64) template.HTML {
	if len(values) == 0 {
		return ""
	}
	const width, height, edge = 160.0, 32.0, 3.0
	low, high := min(limit, slices.Min(values)), max(limit, slices.Max(values))
	if high == low {
		high = low + 1
	}
	y := func(v float64) float64 { return height - edge - (v-low)/(high-low)*(height-2*edge) }
	x := func(i int) float64 {
		if len(values) == 1 {
			return width - edge
		}
		return edge + float64(i)*(width-2*edge)/float64(len(values)-1)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg width="160" height="32" viewBox="0 0 160 32" aria-hidden="true"><path class="limit" d="M0 %.1fH160"/><polyline points="`, y(limit))
	for i, v := range values {
		fmt.Fprintf(&b, "%.1f,%.1f ", x(i), y(v))
	}
	fmt.Fprintf(&b, `"/><circle cx="%.1f" cy="%.1f" r="2.5"/></svg>`, x(len(values)-1), y(values[len(values)-1]))
	return template.HTML(b.String())
}
