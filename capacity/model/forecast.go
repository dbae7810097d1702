package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
)

// Load is what is forecast: stages that follow one another, and their requests.
type Load struct {
	Stages []Span
	// Draw draws the requests, in the order of their due times.
	Draw func(seed uint64) []Ask
	// Good reports whether a request met every limit; nil if there are none.
	Good func(*recording.Request) bool
}

// Span is a stage of a load.
type Span struct {
	Name          string
	From, Seconds float64
}

// Band is a forecast: the value that is most likely, and the band that holds what is
// measured in 95 of 100 cases.
type Band struct {
	Best float64 `json:"best"`
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// Forecast is what a stage would show.
type Forecast struct {
	Stage    string          `json:"stage"`
	Rate     float64         `json:"rate_per_second"`
	Measures map[string]Band `json:"measures"`
	Together int             `json:"requests_at_once_per_replica"` // the 99th percentile
	Refused  string          `json:"refused,omitempty"`            // why nothing is forecast
}

const (
	draws      = 24
	lengthRoom = 1.2  // how far lengths may go beyond those of the recordings
	moreAtOnce = 1.15 // and how many more requests may be served at once
)

// Forecast forecasts a load on a number of replicas. A stage beyond what was calibrated
// is refused, with the reason; so are those after it, which inherit its backlog.
func (m Model) Forecast(load Load, replicas int) ([]Forecast, error) {
	if replicas < 1 || replicas > mostReplicas {
		return nil, fmt.Errorf("found %d replicas, expected from 1 to %d", replicas, mostReplicas)
	}
	all := make([]Forecast, len(load.Stages))
	values := make([]map[string][][]float64, len(load.Stages)) // by measure: of each engine, the draws
	for i, st := range load.Stages {
		all[i] = Forecast{Stage: st.Name, Measures: map[string]Band{}}
		values[i] = map[string][][]float64{}
	}
	noise := rand.New(rand.NewPCG(3, 4))
	for n := range uint64(draws) {
		asks := load.Draw(n + 1)
		if n == 0 {
			if why := m.lengthsBeyond(asks); why != "" {
				for i := range all {
					all[i].Refused = why
				}
				return all, nil
			}
		}
		for k, e := range m.engines() {
			if k > 0 && n >= draws/3 {
				break // the variants are for the influence of single stages
			}
			answers := e.Serve(asks, replicas, rand.New(rand.NewPCG(n, 11)))
			simulated := rows(asks, answers)
			for i, st := range load.Stages {
				for name, v := range measure(simulated, st.From, st.Seconds, load.Good) {
					of := values[i][name]
					for len(of) <= k {
						of = append(of, nil)
					}
					of[k] = append(of[k], v)
					values[i][name] = of
				}
				if k == 0 {
					all[i].Rate += rateIn(asks, st) / draws
					all[i].Together = max(all[i].Together, togetherIn(asks, answers, st))
				}
			}
			if load.Good != nil && k == 0 {
				m.scaled(simulated, noise)
				for i, st := range load.Stages {
					v := measure(simulated, st.From, st.Seconds, load.Good)[Goodput]
					values[i]["scaled "+Goodput] = append(values[i]["scaled "+Goodput], []float64{v})
				}
			}
		}
	}
	refused := ""
	for i := range all {
		if refused == "" {
			refused = m.beyond(all[i])
		}
		if all[i].Refused = refused; refused != "" {
			continue
		}
		for _, name := range Measures {
			if of := values[i][name]; len(of) > 0 && name != Goodput {
				all[i].Measures[name] = m.band(name, of)
			}
		}
		if of := values[i][Goodput]; len(of) > 0 {
			all[i].Measures[Goodput] = spreadOf(of[0], values[i]["scaled "+Goodput])
		}
	}
	return all, nil
}

// band combines chance (which requests are drawn), the influence of single stages on the
// parameters (the jackknife over the variants) and the errors of forecasts of held-out
// stages. With few stages these are known badly, which Student's factor allows for.
func (m Model) band(name string, of [][]float64) Band {
	best, chance := logMoments(name, of[0])
	var means []float64
	for _, draws := range of[1:] {
		mean, _ := logMoments(name, draws)
		means = append(means, mean)
	}
	middle, jack := 0.0, 0.0
	for _, v := range means {
		middle += v / float64(len(means))
	}
	for _, v := range means {
		jack += (v - middle) * (v - middle)
	}
	if n := float64(len(means)); n > 0 {
		jack *= (n - 1) / n
	}
	known := m.Errors[name]
	half := student(len(m.HeldOut)-1) * math.Sqrt(chance+jack+known*known)
	return Band{unscale(name, best), unscale(name, best-half), unscale(name, best+half)}
}

func logMoments(name string, values []float64) (mean, variance float64) {
	for _, v := range values {
		mean += scale(name, v) / float64(len(values))
	}
	for _, v := range values {
		variance += math.Pow(scale(name, v)-mean, 2) / float64(max(len(values)-1, 1))
	}
	return mean, variance
}

// spreadOf is a band of draws whose latencies were scaled by the model's errors.
func spreadOf(plain []float64, scaled [][]float64) Band {
	var all []float64
	for _, s := range scaled {
		all = append(all, s...)
	}
	slices.Sort(all)
	plain = slices.Sorted(slices.Values(plain))
	b := Band{quantile(plain, 0.5), quantile(all, 0.025), quantile(all, 0.975)}
	b.Low, b.High = min(b.Low, plain[0]), max(b.High, plain[len(plain)-1])
	return b
}

// scaled multiplies the latencies of requests by errors as large as those of held-out
// forecasts.
func (m Model) scaled(requests []recording.Request, rng *rand.Rand) {
	wide := student(len(m.HeldOut)-1) / 1.96
	waits := math.Exp(wide * max(m.Errors[TTFT50], m.Errors[TTFT95]) * rng.NormFloat64())
	paces := math.Exp(wide * max(m.Errors[TPOT50], m.Errors[TPOT95]) * rng.NormFloat64())
	stretch(requests, waits, paces)
}

// stretch multiplies the times until the first token, and those after it. The errors of
// short latencies count as those of somewhat longer ones (small), and so do these.
func stretch(requests []recording.Request, waits, paces float64) {
	for i := range requests {
		r := &requests[i]
		wait := stretched(r.FirstToken-r.Due, waits, small(TTFT50))
		answer := stretched(r.LastToken-r.FirstToken, paces, small(TPOT50)*float64(max(0, r.OutputTokens-1)))
		end := float64(r.End - r.LastToken)
		r.FirstToken = r.Due + wait
		r.FirstOutput, r.FirstByte = r.FirstToken, r.FirstToken
		r.LastToken = r.FirstToken + answer
		r.LastVisible, r.End = r.LastToken, r.LastToken+time.Duration(end)
	}
}

// stretched multiplies a latency by a factor that was found with so many seconds added.
func stretched(latency time.Duration, by, added float64) time.Duration {
	return time.Duration(max(0, (latency.Seconds()+added)*by-added) * float64(time.Second))
}

// student is the factor of a 95 % interval for so many degrees of freedom.
func student(freedom int) float64 {
	table := []float64{12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23}
	if freedom < 1 {
		return table[0]
	}
	if freedom <= len(table) {
		return table[freedom-1]
	}
	return 1.96 + 2.7/float64(freedom)
}

func rateIn(asks []Ask, st Span) float64 {
	n := 0
	for _, a := range asks {
		if a.Due >= st.From && a.Due < st.From+st.Seconds {
			n++
		}
	}
	return float64(n) / st.Seconds
}

// togetherIn is how many requests a replica serves at once in a stage: the 99th
// percentile over its requests.
func togetherIn(asks []Ask, answers []Answer, st Span) int {
	var all []float64
	for i, a := range asks {
		if a.Due >= st.From && a.Due < st.From+st.Seconds {
			all = append(all, float64(answers[i].Together))
		}
	}
	if len(all) == 0 {
		return 0
	}
	return int(math.Ceil(quantile(ascending(all), 0.99)))
}

func (m Model) lengthsBeyond(asks []Ask) string {
	var prompt, output []float64
	for _, a := range asks {
		prompt, output = append(prompt, float64(a.Prompt)), append(output, float64(a.Output))
	}
	for _, of := range []struct {
		what   string
		values []float64
		seen   [2]int
	}{{"prompts", prompt, m.Range.Prompt}, {"answers", output, m.Range.Output}} {
		if len(of.values) == 0 {
			return "the load has no requests"
		}
		low, high := quantile(ascending(of.values), 0.05), quantile(of.values, 0.95)
		if low < float64(of.seen[0])/lengthRoom-1 || high > float64(of.seen[1])*lengthRoom+1 {
			return fmt.Sprintf("nine in ten %s have from %.0f to %.0f tokens, and those of the recordings from %d to %d; record such ones too, and calibrate again", of.what, low, high, of.seen[0], of.seen[1])
		}
	}
	return ""
}

// beyond is why a stage is not forecast; empty if it is.
func (m Model) beyond(f Forecast) string {
	if m.Range.Limit || float64(f.Together) <= math.Ceil(moreAtOnce*float64(m.Range.Together)) {
		return ""
	}
	return fmt.Sprintf("a replica would serve %d requests at once, and in the recordings it served at most %d; how fast it is with more is not known: record a higher rate, and calibrate again", f.Together, m.Range.Together)
}
