package loadgen

import (
	"fmt"
	"os"

	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/scenarios"
)

// Connect makes a client of an endpoint, with the key that the environment
// holds for it; via is connected to in its place, if not empty. Nothing is sent
// yet.
func Connect(e scenarios.Endpoint, via string) (*client.Client, error) {
	key := ""
	if e.APIKeyEnv != "" {
		if key = os.Getenv(e.APIKeyEnv); key == "" {
			return nil, fmt.Errorf("the environment variable %s, which is to hold the API key, is empty", e.APIKeyEnv)
		}
	}
	growFiles()
	return client.New(client.Config{
		BaseURL: e.URL, Model: e.Model, APIKey: key, Headers: e.Headers, HTTP: e.HTTP, CAFile: e.CAFile, NewConnections: e.NewConnections, Via: via,
	})
}
