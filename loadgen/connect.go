package loadgen

import (
	"os"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/scenarios"
)

// KeysFor collects the API keys that an endpoint and the workloads of a gate
// name: those that were issued for the run, and else those in the environment.
func KeysFor(g scenarios.Gate, e scenarios.Endpoint, issued map[string]string) map[string]string {
	keys := map[string]string{}
	find := func(variable string) {
		if key, ok := issued[variable]; ok {
			keys[variable] = key
		} else if key := os.Getenv(variable); variable != "" && key != "" {
			keys[variable] = key
		}
	}
	find(e.APIKeyEnv)
	for _, s := range g.Scenarios {
		for _, class := range s.Mix() {
			find(class.Workload.APIKeyEnv)
		}
	}
	return keys
}

// Connect makes a client of an endpoint, with the key that goes by its variable;
// via is connected to in its place, if not empty. Nothing is sent yet.
func Connect(e scenarios.Endpoint, via string, keys map[string]string) (*client.Client, error) {
	if e.APIKeyEnv != "" && keys[e.APIKeyEnv] == "" {
		return nil, words.Errorf("the environment variable %s, which is to hold the API key, is empty", e.APIKeyEnv)
	}
	growFiles()
	return client.New(client.Config{
		BaseURL: e.URL, Model: e.Model, APIKey: keys[e.APIKeyEnv], Headers: e.Headers, HTTP: e.HTTP, CAFile: e.CAFile, NewConnections: e.NewConnections, Via: via,
	})
}
