package scenarios

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// maxDuration bounds every duration of a gate, so that sums of them and their
// floating-point seconds stay exact.
const maxDuration = 1000 * time.Hour

// String writes the duration without the zero units of time.Duration: 5m, not
// 5m0s.
func (d Duration) String() string {
	s := strings.Replace(time.Duration(d).String(), "µ", "u", 1)
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText writes the duration as UnmarshalText reads it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a duration such as 30s, 1m30s or 250ms.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := parseDuration(string(text))
	*d = Duration(parsed)
	return err
}

var durationPattern = regexp.MustCompile(`^([0-9]+(\.[0-9]+)?(h|m|s|ms|us|ns))+$`)

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if d < 0 {
		return 0, fmt.Errorf("found %s, expected a duration that is not negative", quoted(s))
	}
	if err != nil || !durationPattern.MatchString(s) {
		if _, err := strconv.ParseFloat(s, 64); err == nil {
			return 0, fmt.Errorf("found %s without a unit, expected a duration such as %ss", quoted(s), s)
		}
		return 0, fmt.Errorf("found %s, expected a duration such as 30s, 1m30s or 250ms", quoted(s))
	}
	if d > maxDuration {
		return 0, fmt.Errorf("found %s, expected at most %v", quoted(s), Duration(maxDuration))
	}
	return d, nil
}

// maxRate bounds a rate to what one client machine could conceivably send.
const maxRate = 100_000

// String writes the rate per second.
func (r Rate) String() string { return plain(float64(r)) + "/s" }

// MarshalText writes the rate as UnmarshalText reads it.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a rate such as 8/s, 90/m or 0.5.
func (r *Rate) UnmarshalText(text []byte) error {
	parsed, err := parseRate(string(text))
	*r = Rate(parsed)
	return err
}

func parseRate(s string) (float64, error) {
	rate, err := parsePerSecond(s)
	if err != nil {
		return 0, fmt.Errorf("found %s, expected a rate of requests such as 8/s, 90/m or 0.5/s", quoted(s))
	}
	if rate > maxRate {
		return 0, fmt.Errorf("found %s, expected at most %d/s, more than one client can send", quoted(s), maxRate)
	}
	return rate, nil
}

func parsePerSecond(s string) (float64, error) {
	number, unit, hasUnit := strings.Cut(s, "/")
	seconds := map[string]float64{"s": 1, "m": 60, "h": 3600}[unit]
	if !hasUnit {
		seconds = 1
	}
	value, err := parseNumber(number)
	if err != nil || seconds == 0 {
		return 0, errNotNumber
	}
	return value / seconds, nil
}

var (
	errNotNumber  = errors.New("not a number")
	numberPattern = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`)
)

// parseNumber reads a plain decimal number: no sign, exponent, hexadecimal,
// underscore, NaN or infinity, which strconv would let in.
func parseNumber(s string) (float64, error) {
	if !numberPattern.MatchString(s) {
		return 0, errNotNumber
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) {
		return 0, errNotNumber
	}
	return f, nil
}

// parseScaled reads s times ten to the power. The digits are shifted in the
// text, so that 5% is exactly the 0.05 that a person would write.
func parseScaled(s string, power int) (float64, error) {
	if _, err := parseNumber(s); err != nil {
		return 0, err
	}
	return strconv.ParseFloat(s+"e"+strconv.Itoa(power), 64)
}

// plain writes a number with the fewest digits that read back as it.
func plain(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
