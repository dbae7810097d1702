package scenarios

import "errors"

// Ask lets a command line win over what the gate says of its target; what is
// empty changes nothing. The key and the authority are of a service that is
// already there.
func (t *Target) Ask(model, apiKeyEnv, caFile string) error {
	if e := t.Endpoint; e != nil {
		or := func(to *string, from string) {
			if from != "" {
				*to = from
			}
		}
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
