package scenarios

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Profile is a ready set of objectives with a name.
type Profile struct {
	Name  string
	Means string
	// TTFT and TPOT are limits of the 99th percentile.
	TTFT, TPOT time.Duration
}

// profiles are the limits of MLPerf Inference's Server and Interactive
// scenarios for language models (mlcommons/inference_policies,
// inference_rules.adoc).
var profiles = mlperf([]mlperfLimits{
	{"llama-2-70b", "Llama 2 70B", 2000, 200, 450, 40},
	{"llama-3.1-8b", "Llama 3.1 8B", 2000, 100, 500, 30},
	{"llama-3.1-405b", "Llama 3.1 405B", 6000, 175, 4500, 80},
	{"deepseek-r1", "DeepSeek R1", 2000, 80, 1500, 15},
	{"mixtral-8x7b", "Mixtral 8x7B", 2000, 200, 0, 0},
})

// mlperfLimits are in milliseconds; 0 where MLPerf has no Interactive scenario.
type mlperfLimits struct {
	name, model                                  string
	ttft, tpot, interactiveTTFT, interactiveTPOT time.Duration
}

func mlperf(limits []mlperfLimits) (all []Profile) {
	for _, l := range limits {
		all = append(all, Profile{"mlperf-" + l.name + "-server", "MLPerf Inference, Server scenario, " + l.model,
			l.ttft * time.Millisecond, l.tpot * time.Millisecond})
		if l.interactiveTTFT > 0 {
			all = append(all, Profile{"mlperf-" + l.name + "-interactive", "MLPerf Inference, Interactive scenario, " + l.model,
				l.interactiveTTFT * time.Millisecond, l.interactiveTPOT * time.Millisecond})
		}
	}
	return all
}

// Profiles are the ready sets of objectives.
func Profiles() []Profile { return slices.Clone(profiles) }

// Objectives of a profile, in a scope ("", a scenario, or a stage of one).
func (p Profile) Objectives(scope string) []Objective {
	in := ""
	if scope != "" {
		in = " in " + scope
	}
	var all []Objective
	for _, src := range []string{
		fmt.Sprintf("p99(ttft)%s <= %v", in, Duration(p.TTFT)),
		fmt.Sprintf("p99(tpot)%s <= %v", in, Duration(p.TPOT)),
	} {
		o, err := ParseObjective(src)
		if err != nil {
			panic(err) // the profiles are ours, and the scope was parsed
		}
		all = append(all, o)
	}
	return all
}

// parseProfile reads "name" or "name in scope".
func parseProfile(src string) ([]Objective, error) {
	words := strings.Fields(src)
	if len(words) == 0 {
		return nil, fmt.Errorf("found nothing, expected the name of a profile, such as %s", profiles[0].Name)
	}
	i := slices.IndexFunc(profiles, func(p Profile) bool { return p.Name == words[0] })
	if i < 0 {
		var names []string
		for _, p := range profiles {
			names = append(names, p.Name)
		}
		return nil, fmt.Errorf("unknown profile %s; %s", quoted(words[0]), oneOf(words[0], names))
	}
	scope := strings.Join(words[1:], " ")
	if scope != "" {
		name, ok := strings.CutPrefix(scope, "in ")
		scenario, stage, staged := strings.Cut(name, "/")
		if !ok || !isName(scenario) || staged && !isName(stage) {
			return nil, fmt.Errorf("found %s after the profile, expected in and a scenario, as in %s in steady", quoted(scope), words[0])
		}
		scope = name
	}
	return profiles[i].Objectives(scope), nil
}

// expanded are the gate's objectives with those of its profiles, and the
// profiles that are none.
func (g Gate) expanded() (unknown []string, all []Objective) {
	all = g.Objectives
	for _, src := range g.Profiles {
		more, err := parseProfile(src)
		if err != nil {
			unknown = append(unknown, src)
		}
		for _, o := range more {
			if !slices.ContainsFunc(all, func(have Objective) bool { return have.String() == o.String() }) {
				all = append(slices.Clip(all), o)
			}
		}
	}
	return unknown, all
}

func (c *checker) profiles(given []string) {
	for i, src := range given {
		path := fmt.Sprintf("profiles[%d]", i)
		if _, err := parseProfile(src); err != nil {
			c.add(path, "%v", err)
		}
	}
}
