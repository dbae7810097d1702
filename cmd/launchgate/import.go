package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/internal/interchange"
	"github.com/launchgate/launchgate/internal/version"
	"github.com/launchgate/launchgate/reports"
	"github.com/launchgate/launchgate/scenarios"
)

func importCommand(out io.Writer, code *int) *cobra.Command {
	var dir, gateFile, scenario string
	var objectives []string
	var lang reports.Language
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Judge what another load generator measured",
		Long: `Import makes a run folder of a file of AIPerf (profile_export.jsonl),
GuideLLM (benchmarks.json), inference-perf (per_request_lifecycle_metrics.json),
MLPerf Endpoints (events.jsonl) or vllm bench (--save-result --save-detailed), and judges it by the objectives
given or by those of a gate. What the file does not say, such as when requests were due,
is unproven. docs/interchange.md says what each file has.`,
		Example: `  launchgate import --objective "p95(service_ttft) <= 500ms" result.json
  launchgate import --gate gate.yaml --scenario steady benchmarks.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			into := interchange.Into{Dir: dir, Scenario: scenario, Version: version.Short(), Command: os.Args}
			for _, text := range objectives {
				o, err := scenarios.ParseObjective(text)
				if err != nil {
					return err
				}
				into.Objectives = append(into.Objectives, o)
			}
			if gateFile != "" {
				gate, err := scenarios.Load(gateFile)
				if err != nil {
					return err
				}
				into.Gate = &gate
			} else if scenario != "" {
				return fmt.Errorf("found --scenario %s without the --gate that it is of", scenario)
			}
			in, err := interchange.Read(args[0])
			if err != nil {
				return err
			}
			if into.Dir == "" {
				into.Dir = freshFolder("imported")
			}
			if err := in.Write(into); err != nil {
				return err
			}
			fmt.Fprintf(out, "%s: %d requests of %s\n", args[0], len(in.Requests), in.Tool)
			for _, c := range in.Checks {
				fmt.Fprintf(out, "  %s: %.4g s here, %.4g s in the file\n", c.Name, c.Own, c.Tool)
			}
			v, err := judgeDir(into.Dir, lang)
			if err != nil {
				return err
			}
			*code = v.ExitCode
			return reports.Terminal(out, v.report, into.Dir, isTerminal(out))
		},
	}
	cmd.Flags().StringVar(&dir, "out", "", "the run `folder` to make (default runs/<time>-imported)")
	cmd.Flags().StringVar(&gateFile, "gate", "", "judge by the objectives of this gate's `file`")
	cmd.Flags().StringVar(&scenario, "scenario", "", "with --gate, the `scenario` that the load belongs to (default its first)")
	cmd.Flags().StringArrayVar(&objectives, "objective", nil, "judge by this `objective` too, such as \"p95(service_ttft) <= 500ms\" (may be repeated)")
	languageFlag(cmd, &lang)
	return cmd
}
