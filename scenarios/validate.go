package scenarios

import (
	"fmt"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The words a gate is written with.
const (
	APIChat         = "chat"
	APICompletions  = "completions"
	ArrivalsPoisson = "poisson"
	ArrivalsEven    = "constant"
	VictimBusiest   = "busiest"
	VictimRandom    = "random"
)

// Bounds of a gate. Past them a value is a slip of the finger, not a plan.
const (
	maxText         = 10_000  // bytes of a description or a file name
	maxPrompt       = 1 << 20 // bytes; the whole file holds no more
	maxReplicas     = 100     // processes on one machine
	maxPort         = 65535
	maxThreads      = 1024      // of one replica
	maxWarmup       = 10_000    // requests
	maxTokens       = 1_000_000 // of one answer
	maxStage        = Duration(7 * 24 * time.Hour)
	maxTimeout      = Duration(time.Hour) // of one request
	maxRequests     = 100_000_000         // of one scenario
	maxMinStreams   = 10_000              // on one replica
	minProbe        = Duration(5 * time.Millisecond)
	maxProbeOfFault = Duration(250 * time.Millisecond) // RTO is known to within one interval
	maxProbe        = Duration(time.Minute)
	maxConsecutive  = 100
)

// Validate checks a gate that was made or changed in Go. Parse has checked what
// it returns.
func Validate(g Gate) error { return check(g).asError() }

// check finds everything that a resolved gate cannot mean.
func check(g Gate) Problems {
	c := &checker{}
	c.name("name", g.Name)
	c.length("description", g.Description, maxText)
	c.target(g.Target)
	c.between("warmup.requests", g.Warmup.Requests, 1, maxWarmup)
	if len(g.Scenarios) == 0 {
		c.add("scenarios", "found none, expected at least one scenario")
	}
	names := make(map[string]int)
	for i, s := range g.Scenarios {
		path := fmt.Sprintf("scenarios[%d]", i)
		c.unique(names, path+".name", s.Name, i)
		c.scenario(path, s)
	}
	c.objectives(g)
	return c.problems
}

type checker struct{ problems Problems }

func (c *checker) add(path, format string, args ...any) {
	c.problems = append(c.problems, Problem{Path: path, Text: fmt.Sprintf(format, args...)})
}

func (c *checker) name(path, name string) {
	if !isName(name) {
		c.add(path, "found %s, expected a name of up to %d letters, digits, - and _, beginning with a letter or digit", quoted(name), maxName)
	}
}

// unique checks the names of scenarios or stages, which objectives refer to.
func (c *checker) unique(seen map[string]int, path, name string, i int) {
	c.name(path, name)
	if first, doubled := seen[name]; doubled {
		c.add(path, "found %s a second time (first as number %d), expected another name", quoted(name), first+1)
		return
	}
	seen[name] = i
}

func (c *checker) between(path string, n, least, most int) {
	if n < least || n > most {
		c.add(path, "found %d, expected a number from %d to %d", n, least, most)
	}
}

func (c *checker) lasts(path string, d, least, most Duration) {
	switch {
	case d <= 0 && least <= 1:
		c.add(path, "found %v, expected a duration above 0, such as 30s", d)
	case d < least || d > most:
		c.add(path, "found %v, expected a duration from %v to %v", d, least, most)
	}
}

func (c *checker) word(path, found string, known ...string) {
	if !slices.Contains(known, found) {
		c.add(path, "found %s; %s", quoted(found), oneOf(found, known))
	}
}

func (c *checker) length(path, text string, most int) {
	if len(text) > most {
		c.add(path, "found %d bytes, expected at most %d", len(text), most)
	}
}

func (c *checker) target(t Target) {
	switch {
	case t.Local != nil && t.Endpoint != nil:
		c.add("target", "found both local and endpoint, expected one of them")
	case t.Local != nil:
		c.local(*t.Local)
	case t.Endpoint != nil:
		c.endpoint(*t.Endpoint)
	default:
		c.add("target", "found neither, expected local (the bundled service) or endpoint (one that is already there)")
	}
}

func (c *checker) local(l Local) {
	c.between("target.local.replicas", l.Replicas, 1, maxReplicas)
	c.between("target.local.nodes", l.Nodes, 0, l.Replicas)
	c.between("target.local.threads", l.Threads, 0, maxThreads)
	c.between("target.local.port", l.Port, 0, maxPort)
	c.length("target.local.model", l.Model, maxText)
	c.lasts("target.local.ready_timeout", l.ReadyTimeout, 1, maxTimeout)
}

var (
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	headerName   = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
)

// endpoint never repeats what it finds where a key could have been pasted:
// errors end up in the logs of CI jobs.
func (c *checker) endpoint(e Endpoint) {
	u, err := url.Parse(e.URL)
	switch {
	case err != nil && strings.Contains(e.URL, "@"):
		c.add("target.endpoint.url", "found what is no URL, expected one such as http://127.0.0.1:8000")
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		c.add("target.endpoint.url", "found %s, expected a URL such as http://127.0.0.1:8000", quoted(e.URL))
	case u.User != nil:
		c.add("target.endpoint.url", "found a user or password in the URL, expected none; name the variable that holds the key in api_key_env")
	case u.RawQuery != "" || u.Fragment != "":
		c.add("target.endpoint.url", "found a query or fragment in the URL, expected none, as in http://127.0.0.1:8000")
	}
	if e.APIKeyEnv != "" && !variableName.MatchString(e.APIKeyEnv) {
		c.add("target.endpoint.api_key_env", "expected the name of an environment variable, such as OPENAI_API_KEY, and not the key itself")
	}
	c.length("target.endpoint.model", e.Model, maxText)
	for name, value := range e.Headers {
		path := "target.endpoint.headers." + name
		switch {
		case !headerName.MatchString(name):
			c.add(path, "found the header %s, expected letters, digits and -", quoted(name))
		case slices.Contains([]string{"authorization", "api-key", "x-api-key", "cookie", "proxy-authorization"}, strings.ToLower(name)):
			c.add(path, "found a header that holds a secret, expected none: gates are kept in run folders; name the variable that holds the key in api_key_env")
		case strings.ContainsAny(value, "\r\n\x00"):
			c.add(path, "found a line break in the value of a header, expected one line")
		}
	}
}

func (c *checker) scenario(path string, s Scenario) {
	c.length(path+".description", s.Description, maxText)
	c.workload(path+".workload", s.Workload)
	if len(s.Stages) == 0 {
		c.add(path+".stages", "found none, expected at least one stage of load")
	}
	names := make(map[string]int)
	for i, stage := range s.Stages {
		path := fmt.Sprintf("%s.stages[%d]", path, i)
		c.unique(names, path+".name", stage.Name, i)
		c.stage(path, stage)
	}
	if n := s.offered(); n > maxRequests {
		c.add(path+".stages", "found load of %.0f requests, expected at most %d in a scenario", n, maxRequests)
	}
	for i, f := range s.Faults {
		c.fault(fmt.Sprintf("%s.faults[%d]", path, i), f, s.Duration())
	}
	if s.Probe != nil {
		c.probe(path+".probe", *s.Probe, len(s.Faults) > 0)
	}
}

func (c *checker) workload(path string, w Workload) {
	c.word(path+".api", w.API, APIChat, APICompletions)
	for i, prompt := range w.Prompts {
		path := fmt.Sprintf("%s.prompts[%d]", path, i)
		if strings.TrimSpace(prompt) == "" {
			c.add(path, "found an empty prompt, expected a text")
		}
		c.length(path, prompt, maxPrompt)
	}
	c.length(path+".system", w.System, maxPrompt)
	if w.System != "" && w.API == APICompletions {
		c.add(path+".system", "found a system prompt, expected none: api completions has no roles")
	}
	c.between(path+".max_tokens", w.MaxTokens, 1, maxTokens)
	if t := w.Temperature; t != nil && !(*t >= 0 && *t <= 2) {
		c.add(path+".temperature", "found %v, expected a number from 0 to 2", *t)
	}
	c.lasts(path+".timeout", w.Timeout, 1, maxTimeout)
}

func (c *checker) stage(path string, s Stage) {
	c.lasts(path+".for", s.For, 1, maxStage)
	c.word(path+".arrivals", s.Arrivals, ArrivalsEven, ArrivalsPoisson)
	if s.To == nil {
		c.rate(path+".rate", s.Rate, false)
		return
	}
	// A ramp may start or end at rest, but it goes somewhere.
	c.rate(path+".rate", s.Rate, true)
	c.rate(path+".to", *s.To, true)
	if s.Rate == *s.To {
		c.add(path+".to", "found %v, the rate the stage begins with, expected another one to ramp to, or none", *s.To)
	}
}

func (c *checker) rate(path string, r Rate, ramp bool) {
	switch f := float64(r); {
	case math.IsNaN(f) || f < 0 || f == 0 && !ramp:
		c.add(path, "found %v, expected a rate above 0, such as 8/s", r)
	case f > maxRate:
		c.add(path, "found %v, expected at most %d/s, more than one client can send", r, maxRate)
	}
}

var replicaName = regexp.MustCompile(`^replica-[0-9]{1,4}$`)

func (c *checker) probe(path string, p Probe, measuresRTO bool) {
	most := maxProbe
	if measuresRTO {
		most = maxProbeOfFault
	}
	c.lasts(path+".every", p.Every, minProbe, most)
	c.between(path+".consecutive", p.Consecutive, 1, maxConsecutive)
	c.between(path+".max_tokens", p.MaxTokens, 1, maxTokens)
	c.lasts(path+".timeout", p.Timeout, 1, maxTimeout)
}

// objectives checks that each names what the gate has. A gate that promises
// nothing would pass whatever happens.
func (c *checker) objectives(g Gate) {
	if len(g.Objectives) == 0 {
		c.add("objectives", "found none, expected at least one, such as error_rate <= 5%%")
	}
	seen := make(map[string]int)
	for i, o := range g.Objectives {
		path := fmt.Sprintf("objectives[%d]", i)
		if _, err := ParseObjective(o.String()); err != nil {
			c.add(path, "%v", err)
			continue
		}
		if first, doubled := seen[o.String()]; doubled {
			c.add(path, "found %s a second time (first as number %d), expected it once", quoted(o.String()), first+1)
		}
		seen[o.String()] = i
		c.scope(path, o, g.Scenarios)
	}
}

func (c *checker) scope(path string, o Objective, scenarios []Scenario) {
	if o.Scenario != "" {
		i := slices.IndexFunc(scenarios, func(s Scenario) bool { return s.Name == o.Scenario })
		if i < 0 {
			c.add(path, "unknown scenario %s; %s", quoted(o.Scenario), oneOf(o.Scenario, namesOf(scenarios, scenarioName)))
			return
		}
		scenarios = scenarios[i : i+1]
		stages := namesOf(scenarios[0].Stages, stageName)
		if o.Stage != "" && !slices.Contains(stages, o.Stage) {
			c.add(path, "unknown stage %s of %s; %s", quoted(o.Stage), o.Scenario, oneOf(o.Stage, stages))
		}
	}
	if m, _ := metricOf(o.Metric); m.Arg == FaultArg {
		c.injected(path, o, scenarios)
	}
}

// injected checks that a scenario the objective is about injects its fault.
func (c *checker) injected(path string, o Objective, scenarios []Scenario) {
	var kinds []string
	for _, s := range scenarios {
		for _, f := range s.Faults {
			if !slices.Contains(kinds, f.Kind) && slices.Contains(FaultKinds, f.Kind) {
				kinds = append(kinds, f.Kind)
			}
		}
	}
	if slices.Contains(kinds, o.Arg) {
		return
	}
	who := "no scenario injects"
	if o.Scenario != "" {
		who = o.Scenario + " does not inject"
	}
	if len(kinds) == 0 {
		c.add(path, "%s %s, expected it among the faults of a scenario", who, o.Arg)
		return
	}
	c.add(path, "%s %s; %s", who, o.Arg, oneOf(o.Arg, kinds))
}

func scenarioName(s Scenario) string { return s.Name }
func stageName(s Stage) string       { return s.Name }

func namesOf[T any](items []T, name func(T) string) []string {
	names := make([]string, len(items))
	for i, item := range items {
		names[i] = name(item)
	}
	return names
}
