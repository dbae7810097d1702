package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/capacity/model"
	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/run"
	"github.com/launchgate/launchgate/internal/version"
	"github.com/launchgate/launchgate/loadgen"
	"github.com/launchgate/launchgate/loadgen/prompt"
	"github.com/launchgate/launchgate/reports"
	"github.com/launchgate/launchgate/scenarios"
)

func calibrateCommand(out io.Writer) *cobra.Command {
	var file, scenario string
	var lang reports.Language
	cmd := &cobra.Command{
		Use:   "calibrate RUN...",
		Short: "Fit a model of a service to recorded runs, for predict and plan",
		Long: `Calibrate fits a model of a service to run folders of it, and writes it to a file. The
model simulates how the service batches and queues requests. It needs at least three
stages of open-loop load at different rates, without faults; 30 seconds each are
enough. The highest should be past what the service can take.

Each stage is also forecast by a model that does not know it. The errors of these
forecasts stand in the file, and make the bands of predict
(docs/capacity-planning.md).`,
		Example: `  launchgate calibrate --out model.json runs/A
  launchgate calibrate --out model.json runs/A runs/B`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			m, err := calibrate(args, scenario)
			if err != nil {
				return err
			}
			if err := reports.Replace(file, func(w io.Writer) error { return printJSON(w, m) }); err != nil {
				return err
			}
			return reports.ModelTerminal(out, lang, m, file)
		},
	}
	cmd.Flags().StringVar(&file, "out", "model.json", "the `file` to write")
	cmd.Flags().StringVar(&scenario, "scenario", "", "use only this `scenario` of the runs (default: all with the workload of the first)")
	languageFlag(cmd, &lang)
	return cmd
}

func calibrate(dirs []string, scenario string) (model.Model, error) {
	var stages []model.Recorded
	var left []string
	var service model.Service
	var of *scenarios.Scenario
	var first []byte
	known := map[time.Time]string{}
	for i, dir := range dirs {
		gate, rec, err := openRun(dir)
		if err != nil {
			return model.Model{}, err
		}
		if before, twice := known[rec.Environment.StartedAt]; twice {
			return model.Model{}, fmt.Errorf("%s: found the recording of %s again, expected each once: a stage would be held out and fitted at the same time", dir, before)
		}
		known[rec.Environment.StartedAt] = dir
		v, err := checklist.Judge(gate, rec)
		if err != nil {
			return model.Model{}, err
		}
		if !v.Client.Valid {
			return model.Model{}, fmt.Errorf("%s: the client was the bottleneck, so its latencies are not those of the service: %s", dir, v.Client.Why)
		}
		this := model.Served(rec, gate)
		if i == 0 {
			service = this
		} else if why := service.Same(this); why != "" {
			return model.Model{}, fmt.Errorf("%s: %s", dir, why)
		}
		wanted := gate
		wanted.Scenarios = nil
		for _, s := range gate.Scenarios {
			if scenario != "" && s.Name != scenario || len(s.Faults) > 0 {
				continue
			}
			asked, err := model.Workload(s)
			if err != nil {
				return model.Model{}, err
			}
			if of == nil {
				of, first = &s, asked
			}
			if !bytes.Equal(asked, first) {
				left = append(left, s.Name+": its requests ask for something else than those of "+of.Name)
				continue
			}
			wanted.Scenarios = append(wanted.Scenarios, s)
		}
		read, not, err := model.Read(wanted, rec)
		if err != nil {
			return model.Model{}, err
		}
		stages, left = append(stages, read...), append(left, not...)
	}
	if of == nil {
		return model.Model{}, errors.New("found no scenario without faults in these runs, expected at least one")
	}
	m, err := model.Calibrate(stages, service, *of)
	if err != nil && len(left) > 0 {
		return m, fmt.Errorf("%w. Left out: %s", err, strings.Join(left, "; "))
	}
	m.LeftOut, m.Version, m.MadeAt = left, version.Short(), time.Now().UTC().Truncate(time.Second)
	return m, err
}

func readModel(file string) (model.Model, error) {
	f, err := os.Open(file)
	if err != nil {
		return model.Model{}, err
	}
	defer f.Close()
	return model.Parse(file, io.LimitReader(f, maxModelFile))
}

const maxModelFile = 64 << 20

func predictCommand(out io.Writer, code *int, c *console) *cobra.Command {
	f := runFlags{console: c}
	var replicas, batch int
	cmd := &cobra.Command{
		Use:   "predict MODEL.json GATE.yaml",
		Short: "Forecast what a service would show under the load of a gate",
		Long: `Predict forecasts TTFT, TPOT, tokens per second and goodput of each stage of a gate,
from a model that calibrate made, and sends no request. Each value has a band that
holds what is measured in 95 of 100 cases.

Nothing is forecast beyond what the recordings of the model cover: longer prompts or
answers, or more requests at once than a replica ever served in them. Predict then says
why.`,
		Example: `  launchgate predict model.json my-gate.yaml
  launchgate predict --replicas 4 --batch 8 model.json my-gate.yaml`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := readModel(args[0])
			if err != nil {
				return err
			}
			gate, err := one(f.gate(args[1:]))
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("replicas") {
				replicas = m.Service.Replicas
				if gate.Target.Local != nil && m.Service.URL == "" {
					replicas = gate.Target.Local.Replicas
				}
			}
			if !cmd.Flags().Changed("batch") && gate.Target.Local != nil && gate.Target.Local.MaxBatchSize != m.Service.Settings.MaxBatchSize {
				batch = gate.Target.Local.MaxBatchSize
			}
			if batch != 0 || cmd.Flags().Changed("batch") {
				if m, err = m.WithLimit(batch); err != nil {
					return fmt.Errorf("--batch: %w", err)
				}
			}
			p := reports.Prediction{Language: f.lang, Model: args[0], Gate: gate.Name, Replicas: replicas}
			if p.Stages, err = predict(m, gate, replicas); err != nil {
				return err
			}
			for _, st := range p.Stages {
				if st.Refused != "" {
					*code = checklist.ExitUnproven
				}
			}
			if f.asJSON {
				return printJSON(out, p)
			}
			return reports.PredictionTerminal(out, p)
		},
	}
	cmd.Flags().IntVar(&replicas, "replicas", 0, "the `number` of replicas (default: that of the gate's target.local, or of the recordings)")
	cmd.Flags().IntVar(&batch, "batch", 0, "the most requests that a replica serves at once (default: that of the gate's target.local, or of the recordings)")
	cmd.Flags().StringArrayVar(&f.set, "set", nil, "set a `NAME=VALUE` of the gate, as for run")
	languageFlag(cmd, &f.lang)
	jsonFlag(cmd, &f.asJSON, "the forecast")
	return cmd
}

// predict forecasts the stages of a gate, scenario by scenario.
func predict(m model.Model, gate scenarios.Gate, replicas int) (all []model.Forecast, err error) {
	material, err := prompt.Gather(gate)
	if err != nil {
		return nil, err
	}
	for _, s := range gate.Scenarios {
		refuse := func(why string) {
			for _, st := range s.Stages {
				all = append(all, model.Forecast{Stage: s.Name + "/" + st.Name, Refused: why})
			}
		}
		if len(s.Faults) > 0 {
			refuse("faults are injected, and a model knows no faults")
			continue
		}
		if why := unlike(s); why != "" {
			refuse(why)
			continue
		}
		load, err := loadOf(m, gate, s, material)
		if err != nil {
			refuse(err.Error())
			continue
		}
		forecasts, err := m.Forecast(load, replicas)
		if err != nil {
			return nil, err
		}
		all = append(all, forecasts...)
	}
	return all, nil
}

// unlike is why the load of a scenario cannot be simulated; empty if it can.
func unlike(s scenarios.Scenario) string {
	for _, st := range s.Stages {
		switch {
		case st.Trace != nil:
			return "stage " + st.Name + " replays a trace; launchgate plan --trace forecasts one"
		case st.Users > 0:
			return "stage " + st.Name + " is a closed loop of users; only rates are forecast"
		case st.InFlight > 0:
			return "stage " + st.Name + " has in_flight in place of a rate, which is known only after the warm-up; write a rate"
		}
	}
	if s.Sized() {
		return "its workload has answer in place of max_tokens, which is known only after the warm-up; write max_tokens"
	}
	return ""
}

// loadOf is the load of a scenario: its arrivals as they are played, if the gate has a
// seed, or else drawn anew each time.
func loadOf(m model.Model, gate scenarios.Gate, s scenarios.Scenario, material *prompt.Material) (model.Load, error) {
	lengths, err := m.LengthsOf(s)
	if err != nil {
		return model.Load{}, err
	}
	own := gate
	own.Scenarios, own.Objectives = []scenarios.Scenario{s}, nil
	for _, o := range gate.Objectives {
		if (o.Scenario == "" || o.Scenario == s.Name) && o.Stage == "" {
			own.Objectives = append(own.Objectives, o)
		}
	}
	var load model.Load
	if len(own.Objectives) > 0 {
		load.Good = checklist.Good(own)
	}
	for _, st := range loadgen.NewPlan(s, 1, material).Stages {
		load.Stages = append(load.Stages, model.Span{Name: s.Name + "/" + st.Name, From: st.Start.Seconds(), Seconds: st.Duration.Seconds()})
	}
	load.Draw = func(seed uint64) (asks []model.Ask) {
		arrivals := seed
		if gate.Seed != 0 {
			arrivals = run.SeedFor(gate, s.Name)
		}
		plan := loadgen.NewPlan(s, arrivals, material)
		rng := rand.New(rand.NewPCG(seed, 21))
		for n := range plan.Requests() {
			p, o := lengths(rng)
			asks = append(asks, model.Ask{Due: plan.Due(n).Seconds(), Prompt: p, Output: o})
		}
		return asks
	}
	return load, nil
}
