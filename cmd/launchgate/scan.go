package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/scenarios"
	"github.com/launchgate/launchgate/security"
)

// scanFlags are the flags of launchgate scan besides those of the target.
type scanFlags struct {
	runFlags
	scan scenarios.Scan
	fail string // the severity at which the scan fails
}

func scanCommand(out, errOut io.Writer, code *int, c *console) *cobra.Command {
	f := scanFlags{runFlags: runFlags{console: c}}
	cmd := &cobra.Command{
		Use:   "scan [GATE.yaml | NAME]",
		Short: "Look for security flaws in a service and in its deployment files",
		Long: `Scan runs the security scan of a gate (its scan: section) without the gate's load.
Without a gate it scans the service named by --target, or the bundled service. Each
check runs its control first and ends as safe, flaw or unproven. Anything that could
not be examined is never safe. Checks that may harm the service run only with
--allow-disruptive.

Scan only services that you are permitted to scan. Requests carry the User-Agent
launchgate-scan and the header X-Launchgate-Scan. The run folder holds scan.jsonl,
results.sarif, report.html and junit.xml. If Go programs were scanned, it also holds
sbom.cdx.json.`,
		Example: `  launchgate scan
  launchgate scan --target https://llm.example.com --api-key-env KEY --other-key-env OTHER
  launchgate scan --target http://127.0.0.1:8000 --only open-doors,authentication
  launchgate scan --target http://127.0.0.1:8000 --manifests k8s/ --nginx nginx.conf`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			gate, err := f.scanGate(args)
			if err != nil {
				return err
			}
			if !slices.Contains(scenarios.Severities, f.fail) {
				return fmt.Errorf("found %q for --fail-on, expected one of %s", f.fail, strings.Join(scenarios.Severities, ", "))
			}
			f.merge(&gate)
			if err := f.apply(&gate, cmd.Flags().Changed("seed")); err != nil {
				return err
			}
			if f.dryRun {
				printScan(out, gate)
				return nil
			}
			ctx, cancel := f.limited(cmd.Context())
			defer cancel()
			*code, err = runGate(ctx, gate, nil, f.runFlags, out, errOut)
			return err
		},
	}
	f.targetFlags(cmd)
	cmd.Flags().StringVar(&f.out, "out", "", "the run `folder` to make (default runs/<time>-<gate>)")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "print which checks would run and do nothing")
	cmd.Flags().StringVar(&f.fail, "fail-on", "high", "the lowest `severity` (critical, high, medium, low) of a finding that fails the scan, if the gate has no objective about security")
	s := &f.scan
	cmd.Flags().StringSliceVar(&s.Only, "only", nil, "run only these `checks`")
	cmd.Flags().StringSliceVar(&s.Skip, "skip", nil, "leave out these `checks`")
	cmd.Flags().BoolVar(&s.AllowDisruptive, "allow-disruptive", false, "also run the checks that may harm the service")
	cmd.Flags().StringVar(&s.OtherKeyEnv, "other-key-env", "", "the environment `VARIABLE` with the key of another tenant")
	cmd.Flags().StringVar(&s.ExpiredKeyEnv, "expired-key-env", "", "the environment `VARIABLE` with a key that has expired")
	cmd.Flags().StringVar(&s.RevokedKeyEnv, "revoked-key-env", "", "the environment `VARIABLE` with a key that was revoked")
	cmd.Flags().StringVar(&s.Usage, "usage", "", "the `path`, with {id}, from which the usage of an answer is read (default "+scenarios.DefaultUsage+")")
	cmd.Flags().StringVar(&s.SystemCanary, "system-canary", "", "a `word` of the service's own system prompt that no user may see")
	cmd.Flags().StringSliceVar(&s.Addresses, "address", nil, "another `URL` of the service that strangers can reach")
	cmd.Flags().StringSliceVar(&s.Logs, "logs", nil, "a `file` or folder of the service's logs")
	cmd.Flags().StringVar(&s.Manifests, "manifests", "", "a `file` or folder of Kubernetes manifests")
	cmd.Flags().StringVar(&s.Nginx, "nginx", "", "a `file` or folder of nginx configuration")
	cmd.Flags().StringVar(&s.Gateway, "gateway", "", "a `file` with the configuration of the bundled gateway")
	cmd.Flags().StringSliceVar(&s.Secrets, "secrets", nil, "a `file` or folder with keys, ledgers or logs")
	cmd.Flags().StringSliceVar(&s.Binaries, "binary", nil, "a deployed Go `program`")
	cmd.Flags().StringVar(&s.Vulnerabilities, "vulnerabilities", "", "the `folder` or URL of a Go vulnerability database")
	cmd.Flags().StringVar(&s.Waivers, "waivers", "", "a `file` of findings that do not count for a limited time")
	return cmd
}

// scanGate is the gate whose scan is made. Without a gate it is one for the
// bundled service or for the target.
func (f scanFlags) scanGate(args []string) (scenarios.Gate, error) {
	if len(args) == 1 {
		return one(f.gate(args))
	}
	if len(f.set) > 0 {
		return scenarios.Gate{}, errors.New("found --set without a gate, expected the gate that has the variables or keys")
	}
	gate := scenarios.Gate{Name: "scan", Description: "A security scan.", Target: scenarios.Target{Local: &scenarios.Local{}}}
	if f.target != "" {
		gate.Target = scenarios.Target{Endpoint: against(f.target)}
	}
	return gate, nil
}

// merge reduces a gate to its scan. Flags win over the gate.
func (f scanFlags) merge(gate *scenarios.Gate) {
	s := scenarios.Scan{}
	if gate.Scan != nil {
		s = *gate.Scan
	}
	for _, text := range []struct{ from, into *string }{
		{&f.scan.OtherKeyEnv, &s.OtherKeyEnv}, {&f.scan.ExpiredKeyEnv, &s.ExpiredKeyEnv}, {&f.scan.RevokedKeyEnv, &s.RevokedKeyEnv},
		{&f.scan.Usage, &s.Usage}, {&f.scan.SystemCanary, &s.SystemCanary},
	} {
		if *text.from != "" {
			*text.into = *text.from
		}
	}
	for _, file := range []struct{ from, into *string }{
		{&f.scan.Manifests, &s.Manifests}, {&f.scan.Nginx, &s.Nginx}, {&f.scan.Gateway, &s.Gateway}, {&f.scan.Waivers, &s.Waivers}, {&f.scan.Vulnerabilities, &s.Vulnerabilities},
	} {
		if *file.from != "" {
			*file.into = whole(*file.from)
		}
	}
	for _, list := range []struct{ from, into *[]string }{
		{&f.scan.Only, &s.Only}, {&f.scan.Skip, &s.Skip}, {&f.scan.Addresses, &s.Addresses},
	} {
		if len(*list.from) > 0 {
			*list.into = *list.from
		}
	}
	for _, files := range []struct{ from, into *[]string }{
		{&f.scan.Logs, &s.Logs}, {&f.scan.Secrets, &s.Secrets}, {&f.scan.Binaries, &s.Binaries},
	} {
		for i, file := range *files.from {
			if i == 0 {
				*files.into = nil
			}
			*files.into = append(*files.into, whole(file))
		}
	}
	s.AllowDisruptive = s.AllowDisruptive || f.scan.AllowDisruptive
	gate.Scan, gate.Scenarios, gate.Profiles = &s, nil, nil
	gate.Objectives = slices.DeleteFunc(gate.Objectives, func(o scenarios.Objective) bool {
		m, _ := scenarios.MetricOf(o.Metric)
		return m.Needs != scenarios.NeedsScan
	})
	if len(gate.Objectives) == 0 {
		gate.Objectives = []scenarios.Objective{scenarios.NoFindings(f.fail)}
	}
	*gate = gate.Resolved()
}

// whole is the absolute path of a file, because the run folder keeps it.
func whole(file string) string {
	if strings.Contains(file, "://") {
		return file
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return file
	}
	return path
}

// printScan prints which checks would be made.
func printScan(out io.Writer, gate scenarios.Gate) {
	made, leftOut := security.Planned(*gate.Resolved().Scan)
	for _, c := range made {
		fmt.Fprintf(out, "%-22s %s\n%-22s at most %d requests, %.0f s and %d MiB\n", c.Name, c.Asks, "", c.Cap.Requests, c.Cap.Seconds, c.Cap.Bytes>>20)
	}
	for _, c := range security.Checks {
		if why, left := leftOut[c.Name]; left {
			fmt.Fprintf(out, "%-22s left out: %s\n", c.Name, why)
		}
	}
}
