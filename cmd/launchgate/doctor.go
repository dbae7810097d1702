package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/chaos"
	"github.com/launchgate/launchgate/deploy/targets"
	"github.com/launchgate/launchgate/internal/version"
	"github.com/launchgate/launchgate/reports"
	"github.com/launchgate/launchgate/scenarios"
)

// examined is one thing that this machine may have.
type examined struct {
	What  string `json:"what"`
	Has   bool   `json:"has"`
	Found string `json:"found"`
	// Costs is what cannot be done without it.
	Costs string `json:"costs,omitempty"`
}

func doctorCommand(out io.Writer) *cobra.Command {
	var asJSON bool
	var lang reports.Language
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine can do, and what each missing part costs",
		Long: `Doctor looks at what launchgate needs on this machine: the bundled server, root, a GPU,
Prometheus, a cluster, and what each fault needs. It changes nothing and sends nothing.
An endpoint that already runs can be tested without any of these.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			all := examine(lang)
			if asJSON {
				return printJSON(out, map[string]any{"version": version.Short(), "os": runtime.GOOS, "arch": runtime.GOARCH, "cores": runtime.NumCPU(), "checks": all})
			}
			missing := 0
			for _, e := range all {
				mark := "yes"
				if !e.Has {
					mark, missing = "no", missing+1
				}
				fmt.Fprintf(out, "%-4s %-26s %s\n", mark, e.What, e.Found)
				if !e.Has {
					fmt.Fprintf(out, "%-4s %-26s without it: %s\n", "", "", e.Costs)
				}
			}
			_, err := fmt.Fprintf(out, "\n%d of %d are here; launchgate run --target URL needs none of them\n", len(all)-missing, len(all))
			return err
		},
	}
	languageFlag(cmd, &lang)
	jsonFlag(cmd, &asJSON, "what was found")
	return cmd
}

// examine looks at everything.
func examine(lang reports.Language) []examined {
	all := []examined{bundledServer(), {
		What: "root", Has: os.Geteuid() == 0, Found: fmt.Sprintf("user id %d", os.Geteuid()),
		Costs: "no network namespaces, netem, cgroups and mounts, so the faults below that need them cannot be injected",
	}, device(), program("prometheus", "the bundled service is not monitored, so objectives about alerts are unproven"),
		program("ssh-keygen", "statements of a checklist cannot be signed or verified"), cluster()}
	for _, k := range chaos.Kinds {
		gate := scenarios.Gate{
			Name: "doctor", Target: scenarios.Target{Local: &scenarios.Local{}},
			Scenarios: []scenarios.Scenario{{Name: "s", Stages: []scenarios.Stage{{Name: "m", For: scenarios.Duration(time.Minute), Rate: 1}},
				Faults: []scenarios.Fault{{Kind: k.Name, At: scenarios.Duration(time.Second)}}}},
		}.Resolved()
		e := examined{What: "fault " + k.Name, Has: true, Found: "can be injected into the bundled service"}
		for _, why := range chaos.Unable(gate, targets.PlanFor(gate)) {
			e.Has, e.Found = false, lang.Word(why)
			e.Costs = "objectives about it are unproven, so a gate with this fault cannot pass"
		}
		all = append(all, e)
	}
	return all
}

// bundledServer is the reference-server beside this program.
func bundledServer() examined {
	e := examined{What: "reference-server", Costs: "target.local, launchgate up and the ready-made gates without --target cannot be used; put the program of the same release beside launchgate"}
	path, err := serverProgram()
	if err == nil {
		_, err = os.Stat(path)
	}
	if e.Has = err == nil; e.Has {
		e.Found = path
	} else {
		e.Found = err.Error()
	}
	return e
}

// device is an NVIDIA GPU with its driver.
func device() examined {
	found, _ := filepath.Glob("/dev/nvidia[0-9]*")
	return examined{What: "GPU", Has: len(found) > 0, Found: fmt.Sprintf("%d devices of an NVIDIA driver", len(found)),
		Costs: "the bundled service computes on the CPU, and nothing is known of power and device memory"}
}

func program(name, costs string) examined {
	path, err := exec.LookPath(name)
	return examined{What: name, Has: err == nil, Found: cmp.Or(path, "not on the PATH"), Costs: costs}
}

// cluster is whether kubectl would know one.
func cluster() examined {
	e := examined{What: "cluster", Costs: "target.kubernetes cannot be used; make lab-up starts a cluster of one node here"}
	path := os.Getenv("KUBECONFIG")
	if home, err := os.UserHomeDir(); path == "" && err == nil {
		path = filepath.Join(home, ".kube", "config")
	}
	for _, file := range filepath.SplitList(path) {
		if _, err := os.Stat(file); err == nil {
			e.Has, e.Found = true, "configured in "+file
			return e
		}
	}
	if os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		e.Has, e.Found = true, "this is a pod of one"
		return e
	}
	e.Found = "no kubeconfig in KUBECONFIG or ~/.kube/config"
	return e
}
