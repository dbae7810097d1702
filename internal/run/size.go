package run

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// measuredAtOnce is how many requests are in flight when the speed is measured, if the
// load does not say how many shall be; mostMeasured is the most.
const (
	measuredAtOnce = 4
	mostMeasured   = 256
	// measuredTwice: each of the places sends so many requests, so that the first,
	// which all begin together, do not decide alone.
	measuredTwice = 2
	// Numbers of the first questions of both measurements. None is asked twice, nor in
	// the warm-up: a cache of whole answers would be measured.
	speedFrom   = 1 << 20
	answersFrom = 1 << 21
)

// size measures how fast the service answers, and replaces what the load says relative
// to that by numbers: max_tokens for how long an answer shall last, and a rate for how
// many requests shall be in flight. The recorded gate has these numbers.
func (c *conductor) size(ctx context.Context) error {
	if !slices.ContainsFunc(c.Gate.Scenarios, scenarios.Scenario.Sized) {
		return nil
	}
	all := slices.Clone(c.Gate.Scenarios)
	type sized struct {
		speed  scenarios.Speed
		answer time.Duration
	}
	known := map[string]sized{} // by what is asked
	for i, s := range all {
		if !s.Sized() || !c.Gate.Plays(s.Name, c.Focus) {
			continue
		}
		key, err := json.Marshal([]any{s.Workload, s.Classes, s.Vary, s.InFlight()})
		if err != nil {
			return err
		}
		found, ok := known[string(key)]
		if !ok {
			if found.speed, _, err = c.measure(ctx, s, speedFrom); err != nil {
				return err
			}
			if _, found.answer, err = c.measure(ctx, s.WithAnswers(found.speed), answersFrom); err != nil {
				return err
			}
			known[string(key)] = found
		}
		all[i] = s.WithAnswers(found.speed).WithRates(found.answer)
		text := words.Say("the first token after %s, then a token every %s; answers of %s last %s on average; %s", found.speed.First.Round(10*time.Microsecond).String(),
			found.speed.Token.Round(time.Microsecond).String(), lengths(all[i]), found.answer.Round(100*time.Microsecond).String(), rates(s, all[i]))
		c.say("measured for %s: %s", s.Name, text)
		c.observe(recording.Observation{At: c.clock.Now(), Name: recording.ObsSized, Subject: s.Name, Value: found.answer.Seconds(), Text: text})
	}
	c.Gate.Scenarios = all
	src, err := scenarios.Marshal(c.Gate)
	if err != nil {
		return err
	}
	if _, err := scenarios.Parse("gate.yaml", src); err != nil {
		return words.Errorf("the load that follows from the measured speed cannot be sent: %s", err)
	}
	return c.rec.Gate(src)
}

// lengths says how many tokens the answers of a scenario may have, by class.
func lengths(s scenarios.Scenario) words.Sentence {
	var all []string
	for _, part := range s.Mix() {
		if n := part.Workload.MaxTokens.String(); !slices.Contains(all, n) {
			all = append(all, n)
		}
	}
	return words.Say("up to %s tokens", strings.Join(all, ", "))
}

// rates says the rates that replace numbers in flight.
func rates(before, after scenarios.Scenario) words.Sentence {
	var all []string
	for i, st := range before.Stages {
		if st.InFlight > 0 {
			all = append(all, fmt.Sprintf("%s %s", st.Name, after.Stages[i].Rate))
		}
	}
	if len(all) == 0 {
		return words.Say("the rates are the gate's")
	}
	return words.Say("the rates: %s", strings.Join(all, ", "))
}

// measure sends requests like those of a scenario, as many at once as shall be under
// way, and returns how fast they were answered. Its first question has the number from.
func (c *conductor) measure(ctx context.Context, s scenarios.Scenario, from int) (v scenarios.Speed, answer time.Duration, err error) {
	atOnce := min(max(s.InFlight(), measuredAtOnce), mostMeasured)
	rows := c.ask(ctx, s, from, measuredTwice*atOnce, atOnce)
	if ctx.Err() != nil {
		return v, 0, ctx.Err()
	}
	var firsts, tokens, answers []time.Duration
	var sum time.Duration
	for i := range rows {
		took, ok := rows[i].ServiceLatency()
		if !ok {
			continue
		}
		answers, sum = append(answers, took), sum+took
		first, streamed := rows[i].ServiceTTFT()
		n := time.Duration(rows[i].OutputTokens)
		switch {
		case streamed && n > 1:
			firsts, tokens = append(firsts, first), append(tokens, (took-first)/(n-1))
		case !streamed && n > 0: // the time to first token is not known
			firsts, tokens = append(firsts, 0), append(tokens, took/n)
		}
	}
	if len(answers) == 0 {
		return v, 0, words.Errorf("how fast the service answers %s is not known: none of %d requests was answered: %s", s.Name, len(rows), rows[0].Why())
	}
	if len(tokens) == 0 {
		return v, 0, words.Errorf("how fast the service answers %s is not known: it does not tell how many tokens its answers have; write max_tokens and a rate in place of answer and in_flight", s.Name)
	}
	middle := func(all []time.Duration) time.Duration { slices.Sort(all); return all[len(all)/2] }
	return scenarios.Speed{First: middle(firsts), Token: middle(tokens)}, sum / time.Duration(len(answers)), nil
}
