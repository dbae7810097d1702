package reports

import (
	"math"
	"strconv"
	"strings"
	"unicode"

	"github.com/launchgate/launchgate/internal/words"
)

// value writes a number with its unit and three significant digits.
func value(v float64, unit string) words.Sentence {
	switch unit {
	case "s":
		return seconds(v)
	case "ratio":
		return percent(v)
	case "per_second":
		return words.Say("unit.per_second", digits(v))
	case "tokens_per_second":
		return words.Say("unit.tokens_per_second", digits(v))
	case "usd":
		if v != 0 && math.Abs(v) < 0.1 {
			return words.Verbatim("$" + strconv.FormatFloat(v, 'g', 3, 64))
		}
		return words.Verbatim("$" + strconv.FormatFloat(v, 'f', 2, 64))
	case "watts":
		return words.Say("unit.watts", digits(v))
	case "bytes":
		return words.Verbatim(bytesOf(v))
	}
	return words.Verbatim(digits(v))
}

func seconds(v float64) words.Sentence {
	switch a := math.Abs(v); {
	case a == 0:
		return words.Verbatim("0 s")
	case a < 0.0009995:
		return words.Verbatim(digits(v*1e6) + " µs")
	case a < 0.9995:
		return words.Verbatim(digits(v*1e3) + " ms")
	case a < 99.95:
		return words.Verbatim(digits(v) + " s")
	case a < 3600:
		whole := math.Round(a)
		if int(whole)%60 == 0 {
			return words.Say("unit.minutes.whole", sign(v), strconv.Itoa(int(whole)/60))
		}
		return words.Say("unit.minutes", sign(v), strconv.Itoa(int(whole)/60), strconv.Itoa(int(whole)%60))
	}
	whole := math.Round(math.Abs(v) / 60)
	return words.Say("unit.hours", sign(v), strconv.Itoa(int(whole)/60), strconv.Itoa(int(whole)%60))
}

func sign(v float64) string {
	if v < 0 {
		return "−"
	}
	return ""
}

func percent(v float64) words.Sentence { return words.Say("unit.percent", digits(v*100)) }

// digits keeps three significant digits, and all of them left of the point.
func digits(v float64) string {
	a := math.Abs(v)
	decimals := 0
	switch {
	case v == math.Trunc(v) && a < 1e15:
		return sign(v) + grouped(strconv.FormatFloat(a, 'f', 0, 64))
	case a < 0.001:
		return sign(v) + strconv.FormatFloat(a, 'g', 2, 64)
	case a < 0.01:
		decimals = 4
	case a < 1:
		decimals = 3
	case a < 10:
		decimals = 2
	case a < 100:
		decimals = 1
	}
	s := strconv.FormatFloat(a, 'f', decimals, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return sign(v) + grouped(s)
}

// grouped puts a comma before every third digit of the whole part.
func grouped(s string) string {
	whole, rest, point := strings.Cut(s, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if point {
		return whole + "." + rest
	}
	return whole
}

func count(n int64) string { return digits(float64(n)) }

var byteUnits = []string{"B", "KiB", "MiB", "GiB", "TiB"}

func bytesOf(v float64) string {
	i := 0
	for ; math.Abs(v) >= 1024 && i < len(byteUnits)-1; i++ {
		v /= 1024
	}
	return digits(v) + " " + byteUnits[i]
}

// clock writes a moment of the run: 1:23.4.
func clock(v float64) string {
	tenths := int64(math.Round(v * 10))
	s := strconv.FormatInt(tenths/600, 10) + ":"
	if tenths%600 < 100 {
		s += "0"
	}
	s += strconv.FormatInt(tenths%600/10, 10)
	if tenths%10 != 0 {
		s += "." + strconv.FormatInt(tenths%10, 10)
	}
	return s
}

// printable makes text of unknown origin safe for one line of a terminal or of
// Markdown: no escape sequences, no line breaks, nothing that turns the
// direction of writing.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r == '\r' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return '�'
		}
		return r
	}, s)
}
