package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/chaos"
	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/deploy/targets"
	"github.com/launchgate/launchgate/internal/run"
	"github.com/launchgate/launchgate/internal/version"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen"
	"github.com/launchgate/launchgate/loadgen/prompt"
	"github.com/launchgate/launchgate/reports"
	"github.com/launchgate/launchgate/scenarios"
)

// runFlags are the flags of launchgate run.
type runFlags struct {
	target    string
	model     string
	apiKeyEnv string
	caFile    string
	tokenizer string
	out       string
	seed      uint64
	focus     []string
	dryRun    bool
	workers   workersFlags
	live      string
	lang      reports.Language
	asJSON    bool
	set       []string
	labels    []string
	timeout   time.Duration
	*console
	baselineFlags
	github *gitHubStep // nil: the run is not a step of GitHub Actions
}

func runCommand(out, errOut io.Writer, code *int, c *console) *cobra.Command {
	f := runFlags{console: c}
	cmd := &cobra.Command{
		Use:   "run [GATE.yaml | NAME | -]",
		Short: "Play a gate and judge the service (./gate.yaml by default, or the quick gate)",
		Long: `Run deploys the gate's target (or drives the one named with --target), plays the
gate's scenarios, and judges the result. The run folder holds the recording, the
verdict and report.html. You can judge it again with launchgate judge.

Without an argument, run plays ./gate.yaml if there is one, or else the ready-made
gate quick. The argument - reads the gate from standard input.

Ctrl-C stops the load, reverts the fault and stops the service. Run still writes a
report, which is marked incomplete.`,
		Example: `  launchgate run
  launchgate run --dry-run my-gate.yaml
  launchgate run --target http://127.0.0.1:8000 --model llama --api-key-env KEY my-gate.yaml
  launchgate run --focus burst my-gate.yaml`,
		Args: cobra.MaximumNArgs(1),
		RunE: toldToGitHub(&f, out, func(cmd *cobra.Command, args []string) error {
			gate, err := f.gate(args)
			if err != nil {
				return err
			}
			if len(gate.Matrix) > 0 {
				*code, err = runMatrix(cmd.Context(), gate, args, f, out, errOut)
				return err
			}
			if err := f.apply(&gate, cmd.Flags().Changed("seed")); err != nil {
				return err
			}
			if selects, err := gate.Selects(f.focus); err != nil {
				return err
			} else if !selects {
				return fmt.Errorf("--focus %s matches no scenario and no objective of %s, so nothing would be played; see --dry-run", strings.Join(f.focus, ", "), gate.Name)
			}
			if _, err := f.workers.elsewhere(gate); err != nil {
				return err
			}
			if f.workers.n > 0 && extends(gate) {
				return errors.New("found --workers and a stage with extend; workers get all of their load before the run, so leave one of them out")
			}
			unable := chaos.Unable(gate, targets.PlanFor(gate))
			for _, why := range unable {
				fmt.Fprintln(f.remarks(errOut), "launchgate:", f.lang.Word(words.Say("this fault cannot be injected here, so the gate cannot pass: %s", why)))
			}
			if ready := playable(f.target); len(unable) > 0 && len(ready) > 0 {
				fmt.Fprintln(f.remarks(errOut), "launchgate:", f.lang.Word(words.Say("ready-made gates whose faults can all be injected here: %s", strings.Join(ready, ", "))))
			}
			if f.target != "" && len(args) == 1 {
				if own, err := gateOf(args, scenarios.Given{Environment: os.LookupEnv}); err == nil && targets.PlanFor(own).About().RunsBuild {
					fmt.Fprintln(f.remarks(errOut), "launchgate:", f.lang.Word(words.Say("--target replaces the gate's own target; its replicas, models, gateway and keys are not used")))
				}
			}
			if f.baseline == "" && (cmd.Flags().Changed("pairs") || cmd.Flags().Changed("block")) {
				return errors.New("--pairs and --block are of a comparison: give the --baseline to compare with too")
			}
			var material *prompt.Material
			var plans []*loadgen.Plan
			if f.dryRun || f.baseline == "" {
				if material, err = prompt.Gather(gate); err != nil {
					return err
				}
				plans = plansOf(gate, material)
			}
			for _, remark := range remarksOn(material, plans) {
				fmt.Fprintln(f.remarks(errOut), "launchgate:", f.lang.Word(remark))
			}
			if f.baseline == "" { // a comparison uses another load and has no absolute bounds
				for _, why := range tooFew(gate, plans) {
					fmt.Fprintln(f.remarks(errOut), "launchgate:", f.lang.Word(words.Say("this objective can fail but cannot be proven: %s", why)))
				}
			}
			if f.dryRun {
				printPlan(out, f.lang, gate, plans, f.focus)
				return nil
			}
			ctx, cancel := f.limited(cmd.Context())
			defer cancel()
			if f.baseline != "" {
				if f.live != "" {
					return errors.New("--live shows one run, and --baseline compares two; leave one of them out")
				}
				*code, err = runBaseline(ctx, gate, f, out, errOut)
				return err
			}
			*code, err = runGate(ctx, gate, material, f, out, errOut)
			return err
		}),
	}
	f.targetFlags(cmd)
	cmd.Flags().StringVar(&f.out, "out", "", "the run `folder` to make (default runs/<time>-<gate>)")
	cmd.Flags().StringArrayVar(&f.focus, "focus", nil, "play only the parts of the gate that match this `regexp` (like Ginkgo's focus; may be repeated). The parts that are not played are unproven")
	f.workers.add(cmd)
	cmd.Flags().StringVar(&f.live, "live", "", "serve the report on this `HOST:PORT` while the run goes on, such as 127.0.0.1:7070")
	f.baselineFlags.add(cmd)
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "print the plan and do nothing")
	return cmd
}

// limited ends a context after the time of --timeout.
func (f runFlags) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	if f.timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, f.timeout, words.Errorf("it took longer than the --timeout of %s", f.timeout))
}

// playable names the ready gates whose faults can all be played here. A target
// that is not empty replaces their own targets.
func playable(target string) []string {
	var names []string
	for _, g := range scenarios.Gates() {
		if target != "" {
			g.Target = scenarios.Target{Endpoint: against(target)}
		}
		if g.Target.Kubernetes == nil && g.Breaks() && len(chaos.Unable(g, targets.PlanFor(g))) == 0 {
			names = append(names, g.Name)
		}
	}
	return names
}

// extends reports whether a stage of the gate may be extended.
func extends(gate scenarios.Gate) bool {
	return slices.ContainsFunc(gate.Scenarios, func(s scenarios.Scenario) bool {
		return slices.ContainsFunc(s.Stages, func(st scenarios.Stage) bool { return st.Extend > 0 })
	})
}

// tooFew lists the objectives for which the gate's load is too small.
func tooFew(gate scenarios.Gate, plans []*loadgen.Plan) []words.Sentence {
	return checklist.TooFew(gate, func(o scenarios.Objective) (int64, bool) { return loadgen.RequestsOf(gate, plans, o) })
}

// plansOf returns the loads of a gate's scenarios, as they will be played.
func plansOf(gate scenarios.Gate, material *prompt.Material) []*loadgen.Plan {
	var plans []*loadgen.Plan
	for _, s := range gate.Scenarios {
		plans = append(plans, loadgen.NewPlan(s, run.SeedFor(gate, s.Name), material))
	}
	return plans
}

// targetFlags adds the flags of every command that sends load to a target.
func (f *runFlags) targetFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.target, "target", "", "the `URL` of an OpenAI-compatible service that already runs, in place of the gate's target")
	cmd.Flags().StringVar(&f.model, "model", "", "with --target, the model to request; otherwise the GGUF file or Hugging Face folder that the bundled service serves")
	cmd.Flags().StringVar(&f.apiKeyEnv, "api-key-env", "", "the environment `VARIABLE` that holds the API key")
	cmd.Flags().StringVar(&f.caFile, "ca-file", "", "the `PEM` file of the authority that signed the certificate of --target")
	cmd.Flags().StringVar(&f.tokenizer, "tokenizer", "", "with --target, the tokenizer.json `FILE` of the model, to count the tokens of prompts and answers")
	languageFlag(cmd, &f.lang)
	cmd.Flags().StringArrayVar(&f.set, "set", nil, "give a variable of the gate, ${NAME}, or any of its keys a value, as `NAME=VALUE` or scenarios.steady.stages.main.rate=8/s; may be repeated. Never a key or another secret")
	cmd.Flags().StringArrayVar(&f.labels, "label", nil, "keep this `NAME=VALUE` with the run and show it in the report, such as version=1.4; may be repeated. Commit, branch, tag and job are taken from the environment of a CI system")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 0, "end the run after this `time` as Ctrl-C does; 0 never does")
	jsonFlag(cmd, &f.asJSON, "the result")
	cmd.Flags().Uint64Var(&f.seed, "seed", 0, "the seed of arrivals, prompts and victims, in place of the gate's")
}

// languageFlag adds the flag of every command that writes text for a person.
func languageFlag(cmd *cobra.Command, l *reports.Language) {
	cmd.Flags().TextVar(l, "lang", reports.English, "the `language` of the output: en (English) or zh (Chinese)")
}

// given is what the flags complete a gate with.
func (f runFlags) given() (scenarios.Given, error) {
	set, err := pairsOf("--set", f.set)
	if err == nil && f.target != "" {
		if err = scenarios.CheckURL(f.target); err != nil {
			err = fmt.Errorf("--target: %w", err)
		}
	}
	return scenarios.Given{Against: against(f.target), Set: set, Environment: os.LookupEnv}, err
}

// gate reads the gate that the arguments name.
func (f runFlags) gate(args []string) (scenarios.Gate, error) {
	given, err := f.given()
	if err != nil {
		return scenarios.Gate{}, err
	}
	return gateOf(args, given)
}

// gateOf reads the gate that is named: a file, a ready gate, or - for standard input.
// Without a name it is ./gate.yaml if there is one, or else the quick gate.
func gateOf(args []string, given scenarios.Given) (scenarios.Gate, error) {
	name := "quick"
	if len(args) == 1 {
		name = args[0]
	} else if _, err := os.Stat(ownGate); err == nil {
		name = ownGate
	}
	if name == "-" {
		return scenarios.ReadGiven("standard input", os.Stdin, given)
	}
	if gate, ok, err := scenarios.ReadyGiven(name, given); ok {
		return gate, err
	}
	gate, err := scenarios.LoadGiven(name, given)
	if errors.Is(err, fs.ErrNotExist) && filepath.Ext(name) == "" {
		ready := gateNames()
		return gate, fmt.Errorf("found neither a file nor a ready gate %s, expected a gate's file or one of %s%s; launchgate init writes a gate to start from", name, strings.Join(ready, ", "), scenarios.DidYouMean(name, ready))
	}
	return gate, err
}

// ownGate is the gate of a project, in its folder.
const ownGate = "gate.yaml"

// against is a service that is already there, at a URL; none for no URL.
func against(url string) *scenarios.Endpoint {
	if url == "" {
		return nil
	}
	return &scenarios.Endpoint{URL: url}
}

// freshFolder names a folder by the time and the gate, and adds a number if
// another run began in the same second.
func freshFolder(what string) string {
	dir := filepath.Join("runs", time.Now().Format("20060102-150405")+"-"+what)
	for free, n := dir, 2; ; n++ {
		if _, err := os.Lstat(free); err != nil {
			return free
		}
		free = fmt.Sprintf("%s-%d", dir, n)
	}
}

// apply overwrites settings of the gate with the flags.
func (f runFlags) apply(gate *scenarios.Gate, seedSet bool) error {
	if seedSet {
		gate.Seed = f.seed
	}
	if gate.Seed == 0 {
		gate.Seed = rand.Uint64N(1<<53-1) + 1 // the report shows it, so that the run can be repeated
	}
	labels, err := labelled(gate.Labels, f.labels, os.Getenv)
	if err != nil {
		return err
	}
	gate.Labels = labels
	if err := gate.Target.Ask(f.model, f.apiKeyEnv, f.caFile, f.tokenizer); err != nil {
		return err
	}
	if err := scenarios.Validate(*gate); err != nil {
		return err
	}
	return gate.CheckModels()
}

// runGate plays and judges, and returns the exit code.
func runGate(ctx context.Context, gate scenarios.Gate, material *prompt.Material, f runFlags, out, errOut io.Writer) (int, error) {
	dir := f.out
	if dir == "" {
		dir = freshFolder(gate.Name)
	}
	server, err := serverProgram()
	if err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	if f.live != "" {
		stop, err := startLive(self, f.live, dir, f.lang, errOut)
		if err != nil {
			return 0, err
		}
		defer stop()
	}
	elsewhere, err := f.workers.elsewhere(gate)
	if err != nil {
		return 0, err
	}
	screen := newScreen(errOut, f.lang, f.console)
	err = run.Run(ctx, run.Options{
		Gate: gate, Material: material, Dir: dir, Focus: f.focus, Server: server, Version: version.Short(), Command: os.Args,
		Watchdog: []string{self, watchdogName}, Workers: f.workers.n, Worker: []string{self, workerName}, Elsewhere: elsewhere,
		Judge: judgeSoFar, Undecided: undecided, Missed: missed, Tell: screen.tell,
	})
	screen.clear()
	if err != nil {
		if v, unread := judgeDir(dir, f.lang); unread == nil {
			err = errors.Join(err, f.github.judged(v, dir))
			fmt.Fprintln(f.remarks(errOut), "launchgate:", f.lang.Word(words.Say("the report says the same: %s", reportPath(dir))))
		}
		return 0, err
	}
	v, err := judgeDir(dir, f.lang)
	if err != nil {
		return 0, err
	}
	if err := f.tell(out, v, dir, f.asJSON); err != nil {
		return 0, err
	}
	if ctx.Err() != nil {
		v.ExitCode = exitInterrupted
	}
	return v.ExitCode, f.github.judged(v, dir)
}

// judgeSoFar judges the recording so far. The returned function gives nil for
// an objective that is proven or waived.
func judgeSoFar(dir string) (func(scenarios.Objective) error, error) {
	gate, rec, err := openRun(dir)
	if err != nil {
		return nil, err
	}
	v, err := checklist.Judge(gate, rec)
	if err != nil {
		return nil, err
	}
	return func(o scenarios.Objective) error {
		for _, f := range v.Objectives {
			if f.Source == o.Source && f.Verdict != checklist.Pass && !f.Waived {
				return fmt.Errorf("%s: %s", f.Verdict, f.Why)
			}
		}
		return nil
	}, nil
}

// undecided reports whether a scenario must be extended.
func undecided(dir, scenario string) (bool, error) {
	gate, rec, err := openRun(dir)
	if err != nil {
		return false, err
	}
	objectives, err := checklist.Unsettled(gate, rec, scenario)
	return len(objectives) > 0, err
}

// missed says which objective can no longer hold: the first, if there are several.
func missed(dir string) (said words.Sentence, err error) {
	gate, rec, err := openRun(dir)
	if err != nil {
		return said, err
	}
	findings, err := checklist.Missed(gate, rec)
	if len(findings) > 0 {
		said = words.Say("%s: %s", findings[0].Source, findings[0].Why)
	}
	return said, err
}

// serverProgram is the reference-server built beside this program.
func serverProgram() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	name := "reference-server"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return filepath.Join(filepath.Dir(self), name), nil
}

// remarksOn returns remarks on the load for the user, before it is sent.
func remarksOn(material *prompt.Material, plans []*loadgen.Plan) (remarks []words.Sentence) {
	if material != nil {
		remarks = material.Remarks()
	}
	for _, p := range plans {
		remarks = append(remarks, p.Idle()...)
	}
	return remarks
}
