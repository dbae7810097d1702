package scenarios

import (
	"cmp"
	"errors"
	"fmt"
)

// Ask lets a command line win over what the gate says of its target; what is
// empty changes nothing. The key, the authority and the tokenizer are of a service that
// is already there.
func (t *Target) Ask(model, apiKeyEnv, caFile, tokenizer string) error {
	or := func(to *string, from string) {
		if from != "" {
			*to = from
		}
	}
	if k := t.Kubernetes; k != nil {
		or(&k.Model, model)
		or(&k.APIKeyEnv, apiKeyEnv)
		or(&k.CAFile, caFile)
		or(&k.Tokenizer, tokenizer)
		return nil
	}
	if e := t.Endpoint; e != nil {
		or(&e.Model, model)
		or(&e.APIKeyEnv, apiKeyEnv)
		or(&e.CAFile, caFile)
		or(&e.Tokenizer, tokenizer)
		return nil
	}
	if apiKeyEnv != "" || caFile != "" || tokenizer != "" {
		return errors.New("--api-key-env, --ca-file and --tokenizer are for a service that is already there: give its --target too")
	}
	if model != "" {
		t.Local.Model = model
	}
	return nil
}

// Tokenizer is the file that counts tokens; empty: the service counts them.
func (t Target) Tokenizer() string {
	switch {
	case t.Endpoint != nil:
		return t.Endpoint.Tokenizer
	case t.Kubernetes != nil:
		return t.Kubernetes.Tokenizer
	}
	return ""
}

// WithoutKeys is the target without the keys that only some scenarios ask with.
func (t Target) WithoutKeys() Target {
	if t.Local != nil {
		local := *t.Local
		local.Gateway.Keys = nil
		t.Local = &local
	}
	return t
}

// ReplicaName is what the replicas of target.local are called, counted from 0.
func ReplicaName(i int) string { return fmt.Sprintf("replica-%d", i) }

// replicas are the names of the replicas that the target will have; nil where the
// gate does not tell.
func (t Target) replicas() (names []string) {
	if t.Local == nil {
		return nil
	}
	for i := range min(cmp.Or(t.Local.Replicas, DefaultReplicas), maxReplicas) {
		names = append(names, ReplicaName(i))
	}
	return names
}
