package scenarios

import (
	"cmp"
	"errors"
	"fmt"
)

// Ask lets a command line win over what the gate says of its target; what is
// empty changes nothing. The key and the authority are of a service that is
// already there.
func (t *Target) Ask(model, apiKeyEnv, caFile string) error {
	or := func(to *string, from string) {
		if from != "" {
			*to = from
		}
	}
	if k := t.Kubernetes; k != nil {
		or(&k.Model, model)
		or(&k.APIKeyEnv, apiKeyEnv)
		or(&k.CAFile, caFile)
		return nil
	}
	if e := t.Endpoint; e != nil {
		or(&e.Model, model)
		or(&e.APIKeyEnv, apiKeyEnv)
		or(&e.CAFile, caFile)
		return nil
	}
	if apiKeyEnv != "" || caFile != "" {
		return errors.New("--api-key-env and --ca-file are for a service that is already there: give its --target too")
	}
	if model != "" {
		t.Local.Model = model
	}
	return nil
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
