package scenarios

import (
	"math"
	"slices"
	"time"
)

// Sized reports whether a part of the scenario's load follows from the speed of the
// service, which the warm-up measures.
func (s Scenario) Sized() bool {
	return s.InFlight() > 0 || slices.ContainsFunc(s.Mix(), func(p Part) bool { return p.Workload.Answer > 0 })
}

// InFlight is the most that shall be in flight in a stage; 0 if no stage says it.
func (s Scenario) InFlight() (most int) {
	for _, st := range s.Stages {
		most = max(most, st.InFlight)
	}
	return most
}

// Speed is how fast a service answers, as measured.
type Speed struct {
	First time.Duration // until the first token
	Token time.Duration // between two tokens
}

// tokens is how many tokens an answer has that lasts so long.
func (v Speed) tokens(answer Duration) int {
	n := 1 + float64(time.Duration(answer)-v.First)/float64(max(v.Token, 1))
	return int(math.Round(min(max(n, 1), maxTokens)))
}

// WithAnswers is the scenario with numbers of tokens in place of how long its answers
// shall last.
func (s Scenario) WithAnswers(v Speed) Scenario {
	size := func(w Workload) Workload {
		if w.Answer > 0 {
			w.MaxTokens, w.Answer = Fixed(v.tokens(w.Answer)), 0
		}
		return w
	}
	s.Workload, s.Classes, s.Vary = size(s.Workload), slices.Clone(s.Classes), slices.Clone(s.Vary)
	for i := range s.Classes {
		s.Classes[i].Workload = size(s.Classes[i].Workload)
	}
	for i := range s.Vary {
		s.Vary[i].Values = slices.Clone(s.Vary[i].Values)
		for j := range s.Vary[i].Values {
			s.Vary[i].Values[j].Workload = size(s.Vary[i].Values[j].Workload)
		}
	}
	return s
}

// WithRates is the scenario with rates in place of how many requests shall be in
// flight, where an answer takes so long: by Little's law the mean number in flight is the
// rate times the mean time of an answer.
func (s Scenario) WithRates(answer time.Duration) Scenario {
	s.Workload.InFlight, s.Stages = 0, slices.Clone(s.Stages)
	for i, st := range s.Stages {
		if st.InFlight > 0 {
			rate := float64(st.InFlight) / max(answer, time.Microsecond).Seconds()
			s.Stages[i].Rate, s.Stages[i].InFlight = Rate(min(float64(rounded(rate)), maxRate)), 0
		}
	}
	return s
}

// rounded has three digits, so that a recorded gate can be read.
func rounded(rate float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(rate))-2)
	return math.Round(rate/unit) * unit
}
