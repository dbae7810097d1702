package client

import (
	"hash/fnv"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/launchgate/launchgate/internal/recording"
)

// Mark is a unique word for each request. It is in the prompt, and the answer may
// repeat it. It encodes its request, so that a mark found in the answer to another
// request names both:
//
//	check (23 bits), run (12), scenario (8), request (32)
//
// It is written as the letters LG and fifteen more letters and digits. The check makes
// it practically impossible that a text contains a mark by chance.
type Mark struct {
	Run      uint64 // of this run
	Scenario string
	Request  uint64
	Names    []string // of all scenarios of the run
}

const (
	markBegins  = "LG"
	markLetters = "abcdefghijkmnpqrstuvwxyz23456789" // no characters that look alike
	markLength  = 15
	markRun     = 1<<12 - 1
	markCheck   = 1<<23 - 1
)

// String is the mark as it is written in a prompt.
func (m Mark) String() string { return markOf(m.Run&markRun, tagOf(m.Scenario), folded(m.Request)) }

// Asked appends the mark to a question.
func (m Mark) Asked(question string) string {
	return question + " (Reference: " + m.String() + ". You may begin the answer with it.)"
}

// IsZero reports whether there is no mark.
func (m Mark) IsZero() bool { return m.Scenario == "" }

func markOf(run, scenario, request uint64) string {
	low := run<<40 | scenario<<32 | request // 52 bits
	high := checkOf(low)
	text := []byte(markBegins)
	for i := range markLength {
		shift := 70 - 5*i // of 75 bits
		var five uint64
		switch {
		case shift >= 52:
			five = high >> (shift - 52)
		case shift > 47:
			five = high<<(52-shift) | low>>shift
		default:
			five = low >> shift
		}
		text = append(text, markLetters[five&31])
	}
	return string(text)
}

// readMark reads the mark at the beginning of a text.
func readMark(text string) (run, scenario, request uint64, ok bool) {
	if len(text) < len(markBegins)+markLength || !strings.HasPrefix(text, markBegins) {
		return 0, 0, 0, false
	}
	var high, low uint64
	for i := range markLength {
		five := strings.IndexByte(markLetters, text[len(markBegins)+i])
		if five < 0 {
			return 0, 0, 0, false
		}
		high = high<<5 | low>>47
		low = (low<<5 | uint64(five)) & (1<<52 - 1)
	}
	return low >> 40, low >> 32 & 255, low & (1<<32 - 1), high&markCheck == checkOf(low)
}

// checkOf is the check of a mark.
func checkOf(low uint64) uint64 {
	low = (low ^ 0x6c6775617264) * 0x9e3779b97f4a7c15
	low ^= low >> 29
	low *= 0xbf58476d1ce4e5b9
	return low >> 41 & markCheck
}

func tagOf(scenario string) uint64 { return uint64(HashOf(scenario)>>8) & 255 }

// folded is the number of a request in 32 bits. The requests of users, which begin at
// 2^40 for each stage, come after the open-loop ones.
func folded(request uint64) uint64 {
	return min(request>>40, 15)<<28 | request&(1<<28-1)
}

// foreign is the first request other than m's whose mark is in a text, as the scenario,
// a slash and the request's number.
func (m Mark) foreign(text string) string {
	for rest := text; ; {
		at := strings.Index(rest, markBegins)
		if at < 0 {
			return ""
		}
		rest = rest[at:]
		run, scenario, request, ok := readMark(rest)
		rest = rest[len(markBegins):]
		switch {
		case !ok || run == m.Run&markRun && scenario == tagOf(m.Scenario) && request == folded(m.Request):
			continue
		case run != m.Run&markRun:
			return "another-run/" + strconv.FormatUint(request, 10)
		}
		for _, name := range m.Names {
			if tagOf(name) == scenario {
				return name + "/" + strconv.FormatUint(request, 10)
			}
		}
		return "another-scenario/" + strconv.FormatUint(request, 10)
	}
}

// mostLooked is how many bytes of an answer are kept for inspection.
const mostLooked = 16 << 10

// Look records the hash and size of an answer's text, so that answers can be compared.
func Look(row *recording.Request, answer string) {
	answer = Plain(answer)
	row.Answer, row.AnswerHash, row.AnswerChars = answer, HashOf(answer), int32(utf8.RuneCountInString(answer))
	row.AnswerVariety = Variety(answer)
}

// Plain is an answer without what differs between ways of asking: surrounding blanks,
// and a character cut in two at the end.
func Plain(answer string) string {
	if len(answer) > mostLooked {
		answer = answer[:mostLooked]
	}
	for len(answer) > 0 {
		last, size := utf8.DecodeLastRuneInString(answer)
		if last != utf8.RuneError {
			break
		}
		answer = answer[:len(answer)-size]
	}
	return strings.TrimSpace(answer)
}

// Variety is how many different sequences of four characters a text has.
func Variety(text string) int32 {
	seen := map[[4]rune]bool{}
	var run [4]rune
	n := 0
	for _, r := range text {
		copy(run[:], run[1:])
		run[3] = r
		if n++; n >= len(run) {
			seen[run] = true
		}
	}
	return int32(len(seen))
}

// HashOf is the hash of a text, never 0.
func HashOf(text string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text))
	return int64(h.Sum64() | 1)
}
