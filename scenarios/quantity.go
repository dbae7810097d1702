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

// String writes the offset as a duration, with a minus where it goes back.
func (o Offset) String() string {
	if o < 0 {
		return "-" + Duration(-o).String()
	}
	return Duration(o).String()
}

// MarshalText writes the offset as UnmarshalText reads it.
func (o Offset) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads an offset such as 90s or -90s.
func (o *Offset) UnmarshalText(text []byte) error {
	size, back := strings.CutPrefix(string(text), "-")
	parsed, err := parseDuration(size)
	if back {
		parsed = -parsed
	}
	*o = Offset(parsed)
	return err
}

// maxRate bounds a rate to what one client machine could conceivably send.
const maxRate = 100_000

// String writes the rate per second.
func (r Rate) String() string { return plain(float64(r)) + "/s" }

// MarshalText writes the rate as UnmarshalText reads it.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a rate such as 8/s or 90/m, or 0.
func (r *Rate) UnmarshalText(text []byte) error {
	parsed, err := parseRate(string(text))
	*r = Rate(parsed)
	return err
}

func parseRate(s string) (float64, error) {
	rate, err := parsePerSecond(s)
	if err == nil && rate != 0 && !strings.Contains(s, "/") {
		return 0, fmt.Errorf("found %s without a unit, expected a rate such as %s/s or %s/m", quoted(s), s, s)
	}
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

// sizeUnits are the units a size is written in, the largest first.
var sizeUnits = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// String writes the size in the largest unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if int64(s)%u.bytes == 0 && s != 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return "0B"
}

// MarshalText writes the size as UnmarshalText reads it.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

var sizePattern = regexp.MustCompile(`^[0-9]{1,12}(B|KiB|MiB|GiB)$`)

// UnmarshalText reads a size such as 64KiB, 16MiB or 2GiB.
func (s *Size) UnmarshalText(text []byte) error {
	if !sizePattern.Match(text) {
		return fmt.Errorf("found %s, expected a size in bytes such as 64KiB, 16MiB or 2GiB", quoted(string(text)))
	}
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(string(text), u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n > math.MaxInt64/u.bytes {
			return fmt.Errorf("found %s, expected a smaller size", quoted(string(text)))
		}
		*s = Size(n * u.bytes)
		return nil
	}
	return nil
}

// String writes the share in percent.
func (s Share) String() string { return plain(math.Round(float64(s)*1e10)/1e8) + "%" }

// MarshalText writes the share as UnmarshalText reads it.
func (s Share) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

var sharePattern = regexp.MustCompile(`^[0-9]{1,3}(\.[0-9]{1,6})?%$`)

// UnmarshalText reads a share such as 20%.
func (s *Share) UnmarshalText(text []byte) error {
	number, _ := strings.CutSuffix(string(text), "%")
	f, err := parseScaled(number, -2)
	if err != nil || !sharePattern.Match(text) {
		return fmt.Errorf("found %s, expected a share such as 20%%", quoted(string(text)))
	}
	*s = Share(f)
	return nil
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
