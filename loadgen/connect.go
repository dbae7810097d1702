package loadgen

import (
	"os"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/loadgen/prompt"
	"github.com/launchgate/launchgate/scenarios"
)

// KeysFor collects the API keys that an endpoint and the workloads of a gate name. Keys
// issued for the run take precedence over those in the environment.
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
	for _, values := range []map[string]string{e.Headers, e.Query} {
		for _, value := range values {
			for _, name := range scenarios.Variables(value) {
				find(name)
			}
		}
	}
	for _, s := range g.Scenarios {
		for _, class := range s.Mix() {
			find(class.Workload.APIKeyEnv)
		}
	}
	return keys
}

// Connect makes a client of an endpoint, with the API key of the endpoint's variable,
// and with the variables of its headers and parameters filled in. If via is not empty,
// the client connects to it in place of the endpoint. Nothing is sent yet.
func Connect(e scenarios.Endpoint, via string, keys map[string]string) (*client.Client, error) {
	var secrets []string
	secret := func(name string, what words.Sentence) (string, error) {
		value, err := prompt.OneLine(keys[name])
		if err != nil {
			return "", words.Errorf("the environment variable %s for %s %s", name, what, err)
		}
		secrets = append(secrets, value)
		return value, nil
	}
	key := ""
	if e.APIKeyEnv != "" {
		var err error
		if key, err = secret(e.APIKeyEnv, words.Say("the API key")); err != nil {
			return nil, err
		}
	}
	expanded := func(values map[string]string, what words.Phrase) (map[string]string, error) {
		all := make(map[string]string, len(values))
		for name, value := range values {
			filled, err := scenarios.Expanded(value, func(variable string) (string, error) { return secret(variable, words.Say(what, name)) })
			if err != nil {
				return nil, err
			}
			all[name] = filled
		}
		return all, nil
	}
	headers, err := expanded(e.Headers, "the header %s")
	if err != nil {
		return nil, err
	}
	query, err := expanded(e.Query, "the parameter %s")
	if err != nil {
		return nil, err
	}
	growFiles()
	return client.New(client.Config{
		BaseURL: e.URL, Model: e.Model, APIKey: key, Headers: headers, Query: query, Fields: scenarios.Texts(e.Fields), Secrets: secrets,
		HTTP: e.HTTP, CAFile: e.CAFile, CertFile: e.CertFile, KeyFile: e.KeyFile, NewConnections: e.NewConnections, Via: via,
	})
}
