package scenarios

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// Lengths says how many tokens: always the same number, or drawn for each
// request. Its zero value says nothing.
//
//	128                         always
//	uniform(64, 256)            every whole number from 64 to 256 as likely
//	lognormal(512, 300)         of mean 512 and standard deviation 300
//	lognormal(512, 300, 4096)   the same, and never above 4096
//	empirical(12, 40, 40, 900)  one of those that were seen
type Lengths struct {
	kind string // "", fixed, uniform, lognormal, empirical
	args []int
}

// Fixed is always n tokens.
func Fixed(n int) Lengths { return Lengths{"fixed", []int{n}} }

// IsZero reports whether nothing is said.
func (l Lengths) IsZero() bool { return l.kind == "" }

// maxLength bounds a length to the longest contexts there are.
const maxLength = 10_000_000

// Draw a length, at least 1.
func (l Lengths) Draw(rng *rand.Rand) int {
	switch l.kind {
	case "uniform":
		return l.args[0] + rng.IntN(l.args[1]-l.args[0]+1)
	case "lognormal":
		mean, deviation := float64(l.args[0]), float64(l.args[1])
		variance := math.Log(1 + deviation*deviation/(mean*mean))
		n := math.Exp(math.Log(mean) - variance/2 + math.Sqrt(variance)*rng.NormFloat64())
		return int(min(max(math.Round(n), 1), float64(l.Max())))
	case "empirical":
		return l.args[rng.IntN(len(l.args))]
	}
	return l.args[0]
}

// Max is the longest that can be drawn.
func (l Lengths) Max() int {
	switch {
	case l.kind == "lognormal" && len(l.args) == 2:
		return maxLength
	case l.IsZero():
		return 0
	}
	return slices.Max(l.args)
}

// String writes the lengths as UnmarshalText reads them.
func (l Lengths) String() string {
	words := make([]string, len(l.args))
	for i, n := range l.args {
		words[i] = strconv.Itoa(n)
	}
	if l.kind == "fixed" || l.IsZero() {
		return strings.Join(words, "")
	}
	return l.kind + "(" + strings.Join(words, ", ") + ")"
}

// MarshalText writes the lengths as UnmarshalText reads them.
func (l Lengths) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// lengthsPattern is what lengths look like; UnmarshalText says what they mean.
const lengthsPattern = `^([0-9]+|(uniform|lognormal|empirical)\([0-9]+(, *[0-9]+)*\))$`

const lengthsExample = "a number of tokens, such as 128, uniform(64, 256), lognormal(512, 300) or empirical(12, 40, 900)"

// UnmarshalText reads lengths.
func (l *Lengths) UnmarshalText(text []byte) error {
	src := string(text)
	kind, list := "fixed", src
	if open := strings.IndexByte(src, '('); open >= 0 && strings.HasSuffix(src, ")") {
		kind, list = src[:open], src[open+1:len(src)-1]
	}
	var args []int
	for word := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimLeft(word, " "))
		if err != nil || n < 0 || strings.Contains(word, "+") {
			return fmt.Errorf("found %s, expected %s", quoted(src), lengthsExample)
		}
		if n < 1 || n > maxLength {
			return fmt.Errorf("found %d in %s, expected from 1 to %d tokens", n, quoted(src), maxLength)
		}
		args = append(args, n)
	}
	ok := false
	switch kind {
	case "fixed":
		ok = len(args) == 1
	case "uniform":
		if ok = len(args) == 2; ok && args[0] > args[1] {
			return fmt.Errorf("found %s, expected the smaller number first", quoted(src))
		}
	case "lognormal":
		if ok = len(args) == 2 || len(args) == 3; ok && len(args) == 3 && args[2] < args[0] {
			return fmt.Errorf("found %s, expected a highest length, the third number, above the mean, the first", quoted(src))
		}
	case "empirical":
		ok = true
	}
	if !ok {
		return fmt.Errorf("found %s, expected %s", quoted(src), lengthsExample)
	}
	*l = Lengths{kind, args}
	return nil
}
