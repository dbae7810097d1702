package reports

import (
	"strconv"
	"strings"
	"time"

	"github.com/launchgate/launchgate/internal/words"
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
	if e.Host.MemoryBytes > 0 {
		list = append(list, pair{l.say("environment.memory"), bytesOf(float64(e.Host.MemoryBytes))})
	}
	return list
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
