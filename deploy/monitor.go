package deploy

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/launchgate/launchgate/deploy/monitoring"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Prometheus is the name of its process, and of the program.
const Prometheus = "prometheus"

const alertsEvery = 200 * time.Millisecond // how often Prometheus is asked which alerts fire

// monitor is a real Prometheus that scrapes every process of the deployment and
// evaluates the rules of deploy/monitoring. Without the program, or if the gate
// asks for no monitoring, none is started and absent has the reason.
type monitor struct {
	process *process // nil: there is none
	url     string
	targets int
	drill   bool           // windows are shortened
	absent  words.Sentence // why there is none
}

// Unwatched is the reason why a deployment is not monitored; empty if Prometheus
// monitors it.
func Unwatched(spec scenarios.Monitoring) words.Sentence {
	if spec.Disabled {
		return words.Say("target.local has its monitoring disabled")
	}
	if _, err := exec.LookPath(Prometheus); err != nil {
		return words.Say("there is no prometheus on the PATH of this machine, so no alert can fire")
	}
	return words.Sentence{}
}

func newMonitor(spec scenarios.Monitoring, port int, scraped []Scraped, dir string) (*monitor, error) {
	if why := Unwatched(spec); !why.IsZero() {
		return &monitor{absent: why}, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := monitoring.Write(dir, spec.Shorten); err != nil {
		return nil, err
	}
	var gateways, replicas []targetGroup
	for _, s := range scraped {
		if s.Name == Gateway {
			gateways = append(gateways, targetGroup{Targets: []string{s.Address}})
		} else {
			replicas = append(replicas, targetGroup{Targets: []string{s.Address}, Labels: map[string]string{"replica": s.Name}})
		}
	}
	for name, groups := range map[string][]targetGroup{"gateways.json": gateways, "replicas.json": replicas} {
		b, err := json.Marshal(groups)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return nil, err
		}
	}
	return &monitor{
		url: "http://" + Loopback(port), targets: len(scraped), drill: spec.Shorten > 1,
		process: &process{name: Prometheus, argv: []string{Prometheus, "--config.file", filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path", filepath.Join(dir, "data"),
			"--web.listen-address", Loopback(port), "--log.level", "warn"}},
	}, nil
}

// targetGroup is an entry of a Prometheus file of targets.
type targetGroup struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels,omitempty"`
}

// watched says what watches the deployment, or why nothing does.
func (m *monitor) watched() words.Sentence {
	if m.process == nil {
		return m.absent
	}
	return words.Say("Prometheus at %s", m.url)
}

// ready reports whether the rules are evaluated, and in a drill whether every
// process was scraped: an alert over nothing never fires. Production's windows
// are so long that nobody has to wait for the first scrape.
func (m *monitor) ready(ctx context.Context) bool {
	if m.process == nil {
		return true
	}
	if !m.drill {
		names, _, err := m.firing(ctx)
		return err == nil && len(names) > 0
	}
	var answer struct {
		Data struct {
			ActiveTargets []struct{ Health string }
		}
	}
	if askJSON(ctx, m.url+"/api/v1/targets?state=active", &answer) != nil {
		return false
	}
	up := 0
	for _, t := range answer.Data.ActiveTargets {
		if t.Health == "up" {
			up++
		}
	}
	return up == m.targets
}

// firing reports for every alert whether it fires, in the order of the rules.
func (m *monitor) firing(ctx context.Context) (names []string, fires map[string]bool, err error) {
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, State string }
			}
		}
	}
	if err := askJSON(ctx, m.url+"/api/v1/rules?type=alert", &answer); err != nil {
		return nil, nil, err
	}
	fires = map[string]bool{}
	for _, g := range answer.Data.Groups {
		for _, r := range g.Rules {
			names = append(names, r.Name)
			fires[r.Name] = fires[r.Name] || r.State == "firing"
		}
	}
	return names, fires, nil
}

// watch reports the alerts, and when one begins or stops firing.
func (m *monitor) watch(ctx context.Context, tell func(Event)) {
	if m.process == nil {
		tell(Event{At: time.Now(), Name: "monitoring", Value: 0, Text: m.absent})
		return
	}
	known := false
	last := map[string]bool{}
	for sleep(ctx, alertsEvery) {
		names, fires, err := m.firing(ctx)
		if err != nil || len(names) == 0 {
			continue // Prometheus is starting
		}
		if !known {
			known = true
			tell(Event{At: time.Now(), Name: "monitoring", Value: 1, Names: names})
		}
		for _, name := range names {
			if fires[name] == last[name] {
				continue
			}
			last[name] = fires[name]
			value := 0.0
			if fires[name] {
				value = 1
			}
			tell(Event{At: time.Now(), Name: "alert", Subject: name, Value: value})
		}
	}
}

func askJSON(ctx context.Context, url string, into any, secret ...string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	for _, s := range secret { // of a replica
		req.Header.Set("X-Launchgate-Secret", s)
	}
	resp, err := statusClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return words.Errorf("%s answers %s", url, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
