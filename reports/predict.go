package reports

import (
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/launchgate/launchgate/capacity/model"
	"github.com/launchgate/launchgate/internal/words"
)

// Prediction is what launchgate predict tells.
type Prediction struct {
	Language Language         `json:"-"`
	Model    string           `json:"model"` // the file
	Gate     string           `json:"gate"`
	Replicas int              `json:"replicas"`
	Stages   []model.Forecast `json:"stages"`
}

// measureName is how a measure is called, and how its values are written.
func measureName(l Language, name string) (title string, write func(float64) string) {
	milliseconds := func(v float64) string { return l.Word(seconds(v)) }
	switch name {
	case model.TTFT50:
		return "TTFT p50", milliseconds
	case model.TTFT95:
		return "TTFT p95", milliseconds
	case model.TPOT50:
		return "TPOT p50", milliseconds
	case model.TPOT95:
		return "TPOT p95", milliseconds
	case model.Goodput:
		return l.say("latency.goodput"), perSecondText
	}
	return l.say("capacity.header.tokens"), digits
}

// PredictionTerminal tells a forecast to a person at a terminal.
func PredictionTerminal(w io.Writer, p Prediction) error {
	l := p.Language
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", l.say("predict.title", p.Replicas))
	for _, st := range p.Stages {
		if st.Refused != "" {
			fmt.Fprintf(&b, "\n%s\n  %s\n", words.Harmless(st.Stage), l.say("predict.refused", st.Refused))
			continue
		}
		fmt.Fprintf(&b, "\n%s  %s\n", words.Harmless(st.Stage), perSecondText(st.Rate))
		for _, name := range model.Measures {
			if band, ok := st.Measures[name]; ok {
				title, write := measureName(l, name)
				fmt.Fprintf(&b, "  %s  %s  %s\n", pad(title, 10), padLeft(write(band.Best), 10), l.say("predict.band", write(band.Low), write(band.High)))
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// ModelTerminal tells how well a model explains what was held out.
func ModelTerminal(w io.Writer, l Language, m model.Model, file string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", modelLine(l, m))
	for _, h := range m.HeldOut {
		fmt.Fprintf(&b, "%s  %s\n", words.Harmless(h.Stage), perSecondText(h.Rate))
		for _, name := range model.Measures {
			measured, ok := h.Measured[name]
			if !ok {
				continue
			}
			title, write := measureName(l, name)
			fmt.Fprintf(&b, "  %s  %s\n", pad(title, 10), l.say("model.held", write(measured), write(h.Forecast[name]), ratioText(h.Forecast[name]/measured)))
		}
	}
	for _, why := range m.LeftOut {
		fmt.Fprintf(&b, "%s\n", l.say("model.left", words.Harmless(why)))
	}
	fmt.Fprintf(&b, "\n%s\n", l.say("model.written", file))
	_, err := io.WriteString(w, b.String())
	return err
}

// modelLine says what kind of engine a model has.
func modelLine(l Language, m model.Model) string {
	kind := l.say("model.slots")
	if m.Engine.Kind == model.Batch {
		kind = l.say("model.batch")
	}
	if m.Range.Limit {
		return l.say("model.limit", kind, m.Engine.Limit)
	}
	return l.say("model.nolimit", kind, m.Range.Together)
}

// ratioText is how far a forecast is from what was measured.
func ratioText(ratio float64) string {
	if math.IsNaN(ratio) || math.IsInf(ratio, 0) {
		return "–"
	}
	return fmt.Sprintf("%+.1f %%", 100*(ratio-1))
}
