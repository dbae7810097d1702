package scenarios

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Objective is one promise, written on one line of the gate and kept as it was
// written. ParseObjective holds the grammar.
type Objective struct {
	Source string // the text of the gate, as written

	// Stat is the statistic over a distribution: p50 … p99.9, mean, min, max;
	// empty for metrics that are one number.
	Stat string
	// Quantile of Stat in (0,1) when Stat is a percentile, else 0.
	Quantile float64
	// Metric is the name of one of Metrics. A Distribution has a Stat.
	Metric string
	// Arg is the argument of a metric that takes one, of the kind that its row says.
	Arg string
	// Class, Scenario and Stage narrow the samples; empty means all of them.
	Class           string
	Scenario, Stage string
	// During narrows them to requests that met a fault of this kind, Outside to
	// those that met none.
	During    string
	Outside   bool
	Op        string  // <=, <, >=, >, ==
	Threshold float64 // in Unit
	Unit      string  // s, ratio, per_second, tokens_per_second, usd, count
	// Than names the other requests if the objective compares two metrics; the
	// threshold is then the ratio of the two.
	Than Than
	// WhereSupported: the objective is left out for a service that is seen to lack
	// what the metric measures.
	WhereSupported bool
}

// Than names the requests that an objective compares with. An empty field has the
// value that the objective itself has. The zero Than belongs to an objective that
// compares with a number.
type Than struct{ Class, Scenario, Stage string }

// Reference is the objective about the requests that o compares with.
func (o Objective) Reference() Objective {
	r := o
	r.Than = Than{}
	if o.Than.Class != "" {
		r.Class = o.Than.Class
	}
	if o.Than.Scenario != "" {
		r.Scenario, r.Stage = o.Than.Scenario, o.Than.Stage
	}
	return r
}

// ObjectiveError says what is wrong with an objective, and where in its text.
type ObjectiveError struct {
	Source string
	Column int // counted from 1, in bytes
	Text   string
}

func (e *ObjectiveError) Error() string {
	return fmt.Sprintf("objective %s, column %d: %s", quoted(e.Source), e.Column, e.Text)
}

// ParseObjective reads one objective. Blanks between its words are free, and
// blanks elsewhere are not allowed. The grammar:
//
//	objective = metric [ "of" class ] [ "in" scope ] [ when ] op threshold [ where ]
//	metric    = stat "(" name ")" | name "(" name ")" | name
//	stat      = "mean" | "min" | "max" | "p" number
//	class     = name
//	scope     = name [ "/" name ]
//	when      = "during" name | "outside" "faults"
//	op        = "<=" | "<" | ">=" | ">" | "==" | "within"
//	threshold = duration | ratio | rate | dollars | count | ratio than
//	than      = "of" "that" [ "of" class ] [ "in" scope ]
//	duration  = number unit { number unit }
//	unit      = "h" | "m" | "s" | "ms" | "us" | "ns"
//	where     = "where" "supported"
//	ratio     = number [ "%" ]
//	rate      = number [ "/s" | "/m" | "/h" ]
//	dollars   = "$" number
//	count     = digits
//	number    = digits [ "." digits ]
//	digits    = digit { digit }
//	name      = ( letter | digit ) { letter | digit | "-" | "_" }
//
// within is <= of an alert, whose scope may be a kind of fault too: the one
// scenario that injects it. A class is one of a scenario's classes; a scope is a
// scenario, or a stage of one; when names a kind of fault; than compares a
// percentile, goodput or output_tokens_per_second with that of other requests, of
// another class or scope; where says that a service which does not have what the
// metric is of need not keep the promise. Which threshold a metric
// takes, whether it takes a stat or an argument, and how far it can be narrowed,
// is in Metrics. A promise that could not be broken (error_rate <= 100%) or kept
// (lost < 0) is refused.
func ParseObjective(src string) (Objective, error) {
	p := objectiveParser{src: src}
	o := Objective{Source: src}
	metric := p.metric(&o)
	p.scope(&o, metric)
	p.op(&o, metric)
	p.threshold(&o, metric)
	if p.err != nil {
		return Objective{}, p.err
	}
	return o, nil
}

// String writes the objective in its canonical form, which parses to the same
// promise.
func (o Objective) String() string {
	var b strings.Builder
	switch {
	case o.Stat != "":
		fmt.Fprintf(&b, "%s(%s)", o.Stat, o.Metric)
	case o.Arg != "":
		fmt.Fprintf(&b, "%s(%s)", o.Metric, o.Arg)
	default:
		b.WriteString(o.Metric)
	}
	narrow(&b, o.Class, o.Scenario, o.Stage)
	if o.During != "" {
		b.WriteString(" during " + o.During)
	}
	if o.Outside {
		b.WriteString(" outside faults")
	}
	fmt.Fprintf(&b, " %s %s", o.Op, Quantity(o.Threshold, o.Unit))
	if o.Than != (Than{}) {
		b.WriteString(" of that")
		narrow(&b, o.Than.Class, o.Than.Scenario, o.Than.Stage)
	}
	if o.WhereSupported {
		b.WriteString(" where supported")
	}
	return b.String()
}

// narrow writes which requests are meant.
func narrow(b *strings.Builder, class, scenario, stage string) {
	if class != "" {
		b.WriteString(" of " + class)
	}
	if scenario != "" {
		b.WriteString(" in " + scenario)
	}
	if stage != "" {
		b.WriteString("/" + stage)
	}
}

// MarshalText writes the objective as it was written.
func (o Objective) MarshalText() ([]byte, error) {
	if o.Source == "" {
		return []byte(o.String()), nil
	}
	return []byte(o.Source), nil
}

// UnmarshalText reads an objective with ParseObjective.
func (o *Objective) UnmarshalText(text []byte) error {
	parsed, err := ParseObjective(string(text))
	*o = parsed
	return err
}

// Quantity writes a value in a unit of Metrics as a threshold is written.
func Quantity(value float64, unit string) string {
	switch unit {
	case UnitSeconds:
		return Duration(math.Round(value * float64(time.Second))).String()
	case UnitRatio:
		return percent(value)
	case UnitPerSecond, UnitTokensPerSecond:
		return plain(value) + "/s"
	case UnitUSD:
		return "$" + plain(value)
	default:
		return plain(value)
	}
}

// percent shifts the decimal digits of a ratio, so that 0.07 is 7% and not
// 7.000000000000001%.
func percent(ratio float64) string {
	mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(ratio, 'e', -1, 64), "e")
	power, _ := strconv.Atoi(exponent)
	shifted, _ := strconv.ParseFloat(mantissa+"e"+strconv.Itoa(power+2), 64)
	if back, err := parseScaled(plain(shifted), -2); err == nil && back == ratio {
		return plain(shifted) + "%"
	}
	return plain(ratio)
}

// objectiveParser reads an objective from left to right. The first error
// sticks, and nothing is read after it.
type objectiveParser struct {
	src string
	pos int
	err *ObjectiveError
}

func (p *objectiveParser) fail(pos int, format string, args ...any) {
	if p.err == nil {
		p.err = &ObjectiveError{Source: p.src, Column: pos + 1, Text: fmt.Sprintf(format, args...)}
	}
}

func (p *objectiveParser) blanks() {
	for p.pos < len(p.src) && (p.src[p.pos] == ' ' || p.src[p.pos] == '\t') {
		p.pos++
	}
}

// word reads letters, digits, '-', '_' and, where a stat may stand, '.'.
func (p *objectiveParser) word(more string) (word string, at int) {
	p.blanks()
	at = p.pos
	for p.pos < len(p.src) && (isNameByte(p.src[p.pos]) || strings.IndexByte(more, p.src[p.pos]) >= 0) {
		p.pos++
	}
	return p.src[at:p.pos], at
}

func (p *objectiveParser) accept(text string) bool {
	p.blanks()
	if !strings.HasPrefix(p.src[p.pos:], text) {
		return false
	}
	p.pos += len(text)
	return true
}

// rest shows what stands where something else was expected.
func (p *objectiveParser) rest() string {
	p.blanks()
	if p.pos == len(p.src) {
		return "the end"
	}
	return quoted(p.src[p.pos:])
}

// maxObjective is well above what the grammar can fill with sense.
const maxObjective = 1000

const percentile = "p50, p95, p99.9 or any other percentile"

// metric reads stat(metric), metric(argument) or metric.
func (p *objectiveParser) metric(o *Objective) Metric {
	if len(p.src) > maxObjective {
		p.fail(0, "found %d bytes, expected an objective of at most %d", len(p.src), maxObjective)
		return Metric{}
	}
	first, at := p.word(".")
	if first == "" {
		p.fail(at, "found %s, expected a metric; %s", p.rest(), oneOf("", metricNames(anyMetric)))
		return Metric{}
	}
	var inner string
	innerAt := p.pos
	brackets := p.accept("(")
	if brackets {
		inner, innerAt = p.word("")
		if !p.accept(")") {
			p.fail(p.pos, "found %s, expected )", p.rest())
		}
	}
	metric, known := MetricOf(first)
	switch {
	case known && metric.Distribution:
		p.fail(at, "%s has a value for every request, expected a statistic of it, such as p95(%s)", first, first)
	case known:
		o.Metric = first
		p.argument(o, metric, brackets, inner, innerAt)
	case brackets:
		metric = p.statistic(o, first, at, inner, innerAt)
	default:
		p.fail(at, "unknown metric %s; %s", quoted(first), oneOf(first, metricNames(anyMetric)))
	}
	return metric
}

func anyMetric(Metric) bool      { return true }
func distribution(m Metric) bool { return m.Distribution }
func single(m Metric) bool       { return !m.Distribution }
func ofTime(m Metric) bool       { return m.Bound == BoundRate }

func (p *objectiveParser) argument(o *Objective, m Metric, brackets bool, arg string, at int) {
	switch {
	case m.Arg == NoArg && brackets:
		p.fail(at, "%s takes no argument, expected %s", m.Name, m.Example)
	case m.Arg != NoArg && !isName(arg):
		p.fail(at, "%s needs a %s, as in %s", m.Name, m.Arg, m.Example)
	case m.Arg == Latency && !slices.Contains(m.Of, arg):
		p.fail(at, "found %s of %s; %s", m.Name, quoted(arg), oneOf(arg, m.Of))
	case m.Arg == Severity && !slices.Contains(Severities, arg):
		p.fail(at, "unknown severity %s; %s", quoted(arg), oneOf(arg, Severities))
	}
	o.Arg = arg
}

func (p *objectiveParser) statistic(o *Objective, stat string, at int, name string, nameAt int) Metric {
	metric, known := MetricOf(name)
	switch {
	case !known:
		p.fail(nameAt, "unknown metric %s; %s", quoted(name), oneOf(name, metricNames(distribution)))
	case !metric.Distribution:
		p.fail(at, "%s is one number and has no %s, expected %s", name, stat, metric.Example)
	}
	o.Metric, o.Stat = name, stat
	if stat == "mean" || stat == "min" || stat == "max" {
		return metric
	}
	digits, isPercentile := strings.CutPrefix(stat, "p")
	percent, err := parseNumber(digits)
	switch {
	case !isPercentile || err != nil:
		p.fail(at, "unknown statistic %s, expected mean, min, max, %s", quoted(stat), percentile)
	case percent <= 0 || percent >= 100:
		p.fail(at, "found %s, expected a percentile above 0 and below 100; max is the largest value", stat)
	default:
		o.Stat = "p" + plain(percent)
		o.Quantile, _ = parseScaled(plain(percent), -2)
	}
	return metric
}

// scope reads "of class", "in scenario" or "in scenario/stage", and "during
// kind" or "outside faults", where they are.
func (p *objectiveParser) scope(o *Objective, m Metric) {
	before := p.pos
	word, at := p.word("")
	next := func() {
		before = p.pos
		word, at = p.word("")
	}
	if p.err == nil && word == "of" {
		if m.Scope < ByStage {
			p.fail(before, "%s is not of a class of requests, expected %s", m.Name, m.Example)
		}
		o.Class = p.name("the name of a class")
		next()
	}
	if p.err == nil && word == "in" {
		if m.Scope == WholeRun {
			p.fail(before, "%s is of the whole run and cannot be narrowed, expected %s", m.Name, m.Example)
		}
		if o.Scenario, o.Stage = p.place(); o.Stage != "" && m.Scope < ByStage {
			p.fail(at, "%s is of a whole scenario, expected %s without a stage", m.Name, o.Scenario)
		}
		next()
	}
	if p.err == nil && (word == "during" || word == "outside") {
		if !m.OfRequests() {
			p.fail(before, "%s is not counted request by request and cannot be narrowed to faults, expected %s", m.Name, m.Example)
		}
		if word == "during" {
			o.During = p.name("a kind of fault")
		} else {
			o.Outside = true
			if of := p.name("faults"); of != "faults" {
				p.fail(p.pos-len(of), "found %s, expected faults", quoted(of))
			}
		}
		next()
	}
	if word == "within" && m.Arg == AlertArg {
		p.pos = at
		return
	}
	if p.err == nil && word != "" {
		p.fail(at, "found %s, expected of, in, during, outside or one of %s", quoted(word), strings.Join(ops, " "))
	}
}

// place reads a scenario, or a stage of one.
func (p *objectiveParser) place() (scenario, stage string) {
	scenario = p.name("the name of a scenario")
	if p.accept("/") {
		stage = p.name("the name of a stage")
	}
	return scenario, stage
}

func (p *objectiveParser) name(what string) string {
	name, at := p.word("")
	if !isName(name) {
		p.fail(at, "found %s, expected %s", p.rest(), what)
	}
	return name
}

var ops = []string{"<=", "<", ">=", ">", "=="} // the longer of two first

func (p *objectiveParser) op(o *Objective, m Metric) {
	p.blanks()
	at := p.pos
	for _, op := range ops {
		if p.accept(op) {
			o.Op = op
			break
		}
	}
	switch {
	case o.Op == "" && m.Arg == AlertArg && p.accept("within "):
		o.Op = "<="
	case o.Op == "":
		p.fail(at, "found %s, expected one of %s", p.rest(), strings.Join(ops, " "))
	case o.Op == "==" && m.Unit != UnitCount && m.Unit != UnitRatio:
		p.fail(at, "%s is measured and never equals a number exactly, expected <= or >=", m.Name)
	}
}

func (p *objectiveParser) threshold(o *Objective, m Metric) {
	if p.err != nil {
		return
	}
	p.blanks()
	limit, where, has := strings.Cut(p.src[p.pos:], "where")
	if o.WhereSupported = has; has {
		p.where(p.pos+len(limit), strings.Trim(where, " \t"), m)
	}
	if ratio, _, compares := strings.Cut(limit, "of"); compares {
		p.than(o, m, ratio, p.pos+len(limit))
		return
	}
	value, err := parseThreshold(strings.TrimRight(limit, " \t"), m)
	if err != nil {
		p.fail(p.pos, "%v", err)
		return
	}
	o.Threshold, o.Unit = value, m.Unit
	if text := vacuous(*o); text != "" {
		p.fail(p.pos, "%s %s %s %s", m.Name, o.Op, Quantity(value, m.Unit), text)
	}
}

// than reads a ratio and what it is of, up to an end.
func (p *objectiveParser) than(o *Objective, m Metric, ratio string, end int) {
	value, err := parseThreshold(strings.TrimRight(ratio, " \t"), Metric{Unit: UnitRatio, Grows: true})
	switch {
	case err != nil:
		p.fail(p.pos, "%v", err)
		return
	case o.Quantile == 0 && m.Bound != BoundRate || o.Op == "==":
		p.fail(p.pos, "found what it is to be compared with, expected that with <, <=, > or >= of a percentile, %s, as in p50(ttft) of cached <= 50%% of that of fresh", strings.Join(metricNames(ofTime), " or "))
		return
	case value == 0:
		p.fail(p.pos, "found 0, expected a ratio above it, such as 50%%")
		return
	}
	whole := p.src
	p.src = p.src[:end]
	defer func() { p.src = whole }()
	p.pos += len(ratio)
	p.word("") // of
	if that, at := p.word(""); that != "that" {
		p.fail(at, "found %s, expected that, as in 50%% of that of fresh", quoted(that))
		return
	}
	word, at := p.word("")
	if word == "of" {
		o.Than.Class = p.name("the name of a class")
		word, at = p.word("")
	}
	if word == "in" {
		o.Than.Scenario, o.Than.Stage = p.place()
		word, at = p.word("")
	}
	p.blanks()
	switch {
	case p.err != nil:
	case word != "" || p.pos < len(p.src):
		p.fail(at, "found %s, expected of, in or the end", quoted(strings.TrimSpace(p.src[at:])))
	case o.Than == (Than{}):
		p.fail(at, "found the end, expected of which requests that is: of a class, or in a scenario")
	case scopesOf(*o) == scopesOf(o.Reference()):
		p.fail(at, "found the same requests again, expected those of another class or scenario")
	}
	o.Threshold, o.Unit = value, UnitRatio
}

// scopesOf are the requests that an objective is about.
func scopesOf(o Objective) Than { return Than{o.Class, o.Scenario, o.Stage} }

// where checks what stands behind "where".
func (p *objectiveParser) where(at int, condition string, m Metric) {
	switch {
	case condition != "supported":
		p.fail(at, "found where %s, expected where supported", quoted(condition))
	case !m.Optional:
		p.fail(at, "%s is of every service, expected where supported only with one of %s", m.Name, strings.Join(metricNames(func(m Metric) bool { return m.Optional }), ", "))
	}
}

// maxValue bounds thresholds that are not durations, so that a slip of the
// finger is found and every value prints and parses exactly.
const maxValue = 1e12

func parseThreshold(s string, m Metric) (value float64, err error) {
	expected := ""
	switch m.Unit {
	case UnitSeconds:
		d, err := parseDuration(s)
		return d.Seconds(), err
	case UnitRatio:
		expected = "a ratio such as 5% or 0.05"
		if number, isPercent := strings.CutSuffix(s, "%"); isPercent {
			value, err = parseScaled(number, -2)
		} else {
			value, err = parseNumber(s)
		}
		if err == nil && value > 1 && !m.Grows {
			return 0, fmt.Errorf("found %s, expected a ratio up to 100%%, such as 5%% or 0.05", quoted(s))
		}
	case UnitPerSecond:
		expected = "a rate such as 4/s or 90/m"
		value, err = parsePerSecond(s)
	case UnitTokensPerSecond:
		expected = "tokens a second, such as 100 or 100/s"
		value, err = parsePerSecond(s)
	case UnitUSD:
		expected = "dollars, such as $2.50"
		number, dollars := strings.CutPrefix(s, "$")
		if value, err = parseNumber(number); !dollars {
			err = errNotNumber
		}
	default:
		expected = "a count, such as 0"
		if value, err = parseNumber(s); strings.Contains(s, ".") {
			err = errNotNumber
		}
	}
	if err != nil || value > maxValue {
		return 0, fmt.Errorf("found %s, expected %s", quoted(s), expected)
	}
	return value, nil
}

// vacuous says of a promise that always or never holds that it does.
func vacuous(o Objective) string {
	atMost := math.Inf(1)
	if o.Than != (Than{}) {
		return ""
	}
	if m, _ := MetricOf(o.Metric); o.Unit == UnitRatio && !m.Grows {
		atMost = 1
	}
	switch {
	case o.Op == ">=" && o.Threshold == 0, o.Op == "<=" && o.Threshold >= atMost:
		return "always holds, so it promises nothing"
	case o.Op == "<" && o.Threshold == 0, o.Op == ">" && o.Threshold >= atMost:
		return "can never hold"
	}
	return ""
}

// maxName is what fits into a label, a file name and a Kubernetes object.
const maxName = 63

// namePattern is what the gate, its scenarios and its stages can be called:
// the names stand in objectives, file names and test reports.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*$`)

func isName(s string) bool { return len(s) <= maxName && namePattern.MatchString(s) }

func isNameByte(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || b == '-' || b == '_'
}
