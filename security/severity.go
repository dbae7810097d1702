package security

import (
	"fmt"
	"math"
	"strings"
)

// weights are the weights of the CVSS 3.1 specification, section 7.4.
var weights = map[string]map[string]float64{
	"AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2},
	"AC": {"L": 0.77, "H": 0.44},
	"PR": {"N": 0.85, "L": 0.62, "H": 0.27}, // if the scope is unchanged
	"UI": {"N": 0.85, "R": 0.62},
	"C":  {"H": 0.56, "L": 0.22, "N": 0},
	"I":  {"H": 0.56, "L": 0.22, "N": 0},
	"A":  {"H": 0.56, "L": 0.22, "N": 0},
}

var changedPR = map[string]float64{"N": 0.85, "L": 0.68, "H": 0.5}

// Score is the base score of a CVSS 3.1 vector, such as
// CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N.
func Score(vector string) (float64, error) {
	rest, ok := strings.CutPrefix(vector, "CVSS:3.1/")
	if !ok {
		return 0, fmt.Errorf("found %q, expected a vector that begins with CVSS:3.1/", vector)
	}
	is := map[string]string{}
	for part := range strings.SplitSeq(rest, "/") {
		name, value, _ := strings.Cut(part, ":")
		if _, twice := is[name]; twice {
			return 0, fmt.Errorf("%s: found %s twice", vector, name)
		}
		is[name] = value
	}
	w := map[string]float64{}
	for name, of := range weights {
		value, known := of[is[name]]
		if !known {
			return 0, fmt.Errorf("%s: found %q for %s, which has no such value", vector, is[name], name)
		}
		w[name] = value
	}
	if is["S"] != "U" && is["S"] != "C" || len(is) != 8 {
		return 0, fmt.Errorf("%s: expected the eight base metrics AV, AC, PR, UI, S, C, I and A", vector)
	}
	changed := is["S"] == "C"
	if changed {
		w["PR"] = changedPR[is["PR"]]
	}
	lost := 1 - (1-w["C"])*(1-w["I"])*(1-w["A"])
	impact := 6.42 * lost
	if changed {
		impact = 7.52*(lost-0.029) - 3.25*math.Pow(lost-0.02, 15)
	}
	if impact <= 0 {
		return 0, nil
	}
	score := impact + 8.22*w["AV"]*w["AC"]*w["PR"]*w["UI"]
	if changed {
		score *= 1.08
	}
	return roundUp(min(score, 10)), nil
}

// roundUp is the Roundup of the specification: up to one decimal, without
// floating-point errors.
func roundUp(v float64) float64 {
	whole := int64(math.Round(v * 100_000))
	if whole%10_000 == 0 {
		return float64(whole) / 100_000
	}
	return float64(whole/10_000+1) / 10
}
