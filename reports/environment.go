package reports

import (
	"strconv"
	"strings"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// environmentPage says where and with what a run was made.
type environmentPage struct {
	Environment []pair
	Files       []pair
}

func environmentView(r Report) any {
	p := environmentPage{Environment: environment(r)}
	for _, name := range sortedKeys(r.Environment.Files) {
		p.Files = append(p.Files, pair{words.Harmless(name), r.Environment.Files[name]})
	}
	return p
}

func orUnknown(l Language, s string) string {
	if s == "" {
		return l.say("fact.unknown")
	}
	return s
}

// started is in UTC, so that the same folder reads the same everywhere.
func started(l Language, t time.Time) string {
	if t.IsZero() {
		return l.say("fact.unknown")
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

func environment(r Report) []pair {
	e, l := r.Environment, r.Language
	host := strings.TrimSpace(e.Host.CPU + " (" + e.Host.OS + "/" + e.Host.Arch + ", " + l.say("environment.cores", strconv.Itoa(e.Host.Cores)) + ")")
	list := []pair{
		{l.say("environment.version"), orUnknown(l, e.Version)},
		{l.say("environment.seed"), strconv.FormatUint(e.Seed, 10)},
		{l.say("environment.url"), orUnknown(l, e.Target.URL)},
		{l.say("environment.host"), host},
		{l.say("environment.go"), orUnknown(l, e.Host.Go)},
		{l.say("environment.command"), orUnknown(l, commandLine(e.Command))},
	}
	for _, fact := range []pair{
		{l.say("environment.protocol"), l.Word(e.Target.Protocol.Sentence)}, {l.say("environment.allowed"), l.Word(e.Target.Allowance.Sentence)}, {l.say("environment.watched"), l.Word(e.Target.Watched.Sentence)},
	} {
		if fact.Value != "" {
			list = append(list, fact)
		}
	}
	for _, said := range e.Target.Devices {
		list = append(list, pair{l.say("environment.device"), l.Word(said.Sentence)})
	}
	for _, g := range e.Host.GPUs {
		list = append(list, pair{l.say("environment.gpu", strconv.Itoa(g.Index)), gpuText(l, g)})
	}
	for _, d := range r.Verdict.Devices {
		if text := useText(l, d); text != "" {
			list = append(list, pair{l.say("environment.use", words.Harmless(d.Name)), text})
		}
	}
	if n := e.Target.Settings.MaxBatchSize; n > 0 {
		list = append(list, pair{l.say("environment.batch"), strconv.Itoa(n)})
	}
	if n := e.Target.Settings.MaxSequenceLength; n > 0 {
		list = append(list, pair{l.say("environment.sequence"), strconv.Itoa(n)})
	}
	if f := e.Target.Settings.GPUMemoryFraction; f > 0 {
		list = append(list, pair{l.say("environment.fraction"), scenarios.Share(f).String()})
	}
	if e.Host.MemoryBytes > 0 {
		list = append(list, pair{l.say("environment.memory"), bytesOf(float64(e.Host.MemoryBytes))})
	}
	return list
}

// gpuText is what is known of a GPU.
func gpuText(l Language, g recording.GPU) string {
	parts := []string{words.Harmless(g.Name), l.say("gpu.memory", bytesOf(float64(g.MemoryBytes)), bytesOf(float64(g.FreeBytes)))}
	for _, fact := range []struct {
		known bool
		said  string
	}{
		{g.Driver != "", l.say("gpu.driver", words.Harmless(g.Driver))},
		{g.CUDA != "", l.say("gpu.cuda", words.Harmless(g.CUDA))},
		{g.PowerLimitWatts > 0, l.say("gpu.power", strconv.FormatFloat(g.PowerLimitWatts, 'f', 0, 64))},
		{g.ClockMHz > 0, l.say("gpu.clock", strconv.Itoa(g.ClockMHz))},
		{g.MemoryClockMHz > 0, l.say("gpu.memory_clock", strconv.Itoa(g.MemoryClockMHz))},
		{g.ECC != "", l.say("gpu.ecc", words.Harmless(g.ECC))},
		{g.MIG != "", l.say("gpu.mig", words.Harmless(g.MIG))},
		{g.NVLinks > 0, l.say("gpu.nvlinks", strconv.Itoa(g.NVLinks))},
		{g.PCI != "", l.say("gpu.pci", words.Harmless(g.PCI))},
		{g.UUID != "", words.Harmless(g.UUID)},
	} {
		if fact.known {
			parts = append(parts, fact.said)
		}
	}
	return strings.Join(parts, ", ")
}

// useText is what a GPU did in the run, as far as it reported that.
func useText(l Language, d checklist.Device) string {
	var parts []string
	for _, fact := range []struct {
		v    float64
		said string
	}{
		{d.UtilisationMean, l.say("use.utilisation", strconv.FormatFloat(100*d.UtilisationMean, 'f', 0, 64))},
		{d.MemoryMax, l.say("use.memory", bytesOf(d.MemoryMax))},
		{d.PowerMax, l.say("use.power", strconv.FormatFloat(d.PowerMean, 'f', 0, 64), strconv.FormatFloat(d.PowerMax, 'f', 0, 64))},
		{d.TemperatureMax, l.say("use.temperature", strconv.FormatFloat(d.TemperatureMax, 'f', 0, 64))},
		{d.ClockMax, l.say("use.clock", strconv.FormatFloat(d.ClockMin, 'f', 0, 64), strconv.FormatFloat(d.ClockMax, 'f', 0, 64))},
	} {
		if fact.v > 0 {
			parts = append(parts, fact.said)
		}
	}
	if d.HeldKnown {
		parts = append(parts, heldText(l, d))
	}
	return strings.Join(parts, ", ")
}

// heldText is for how long the clocks of a GPU were held back, and by what.
func heldText(l Language, d checklist.Device) string {
	if d.HeldSeconds == 0 {
		return l.say("use.free")
	}
	return l.say("use.held", strconv.FormatFloat(d.HeldSeconds, 'f', 1, 64), strconv.FormatFloat(d.Seconds, 'f', 1, 64), words.Harmless(strings.Join(d.HeldBy, ", ")))
}

// commandLine quotes arguments as a shell would need them.
func commandLine(args []string) string {
	var quoted []string
	for _, a := range args {
		if a == "" || strings.ContainsFunc(a, func(r rune) bool {
			return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_", r)
		}) {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		quoted = append(quoted, a)
	}
	return strings.Join(quoted, " ")
}
