package security

import (
	"bytes"
	"fmt"
	"os"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/launchgate/launchgate/internal/recording"
)

// Waivers are findings that somebody accepts. A waiver is valid until the end of its
// day of expiry; this is decided when the recording is judged.
type Waivers []struct {
	Fingerprint string `yaml:"fingerprint"`
	Check       string `yaml:"check"` // must match the finding, so that a copied line does not hide another one
	Reason      string `yaml:"reason"`
	Owner       string `yaml:"owner"`
	Expires     string `yaml:"expires"`
}

const maxWaivers = 1 << 20 // limit of the file's size

// ReadWaivers reads a file of waivers; without a name there are none.
func ReadWaivers(file string) (Waivers, error) {
	if file == "" {
		return nil, nil
	}
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the waivers of the scan: %w", err)
	}
	if len(src) > maxWaivers {
		return nil, fmt.Errorf("%s: found %d bytes, expected a list of waivers of at most %d", file, len(src), maxWaivers)
	}
	var w Waivers
	if len(bytes.TrimSpace(src)) == 0 {
		return nil, nil
	}
	if err := yaml.UnmarshalWithOptions(src, &w, yaml.DisallowUnknownField()); err != nil {
		return nil, fmt.Errorf("%s: expected a list of {fingerprint, check, reason, owner, expires}: %w", file, err)
	}
	for i, one := range w {
		switch {
		case one.Fingerprint == "" || one.Check == "":
			return nil, fmt.Errorf("%s: waiver %d has no fingerprint or no check, expected those of the finding", file, i+1)
		case one.Reason == "" || one.Owner == "":
			return nil, fmt.Errorf("%s: the waiver of %s has no reason or no owner, expected both", file, one.Fingerprint)
		}
		if _, err := time.Parse(time.DateOnly, one.Expires); err != nil {
			return nil, fmt.Errorf("%s: the waiver of %s expires on %q, expected a day such as 2027-03-31", file, one.Fingerprint, one.Expires)
		}
	}
	return w, nil
}

// of is the waiver of a finding; nil if there is none.
func (w Waivers) of(check, fingerprint string) *recording.Waiver {
	for _, one := range w {
		if one.Check == check && one.Fingerprint == fingerprint {
			return &recording.Waiver{Reason: one.Reason, Owner: one.Owner, Expires: one.Expires}
		}
	}
	return nil
}
