package scenarios

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Problem is one thing wrong with a gate: where it stands, what was found and
// what would have been accepted.
type Problem struct {
	File         string // empty for a gate that was not read from a file
	Line, Column int    // counted from 1; 0 where unknown
	Path         string // such as scenarios[1].stages[0].rate
	Text         string
}

func (p Problem) String() string {
	var where []string
	if p.File != "" && p.Line > 0 {
		where = append(where, fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column))
	} else if p.File != "" {
		where = append(where, p.File)
	}
	if p.Path != "" {
		where = append(where, p.Path)
	}
	return strings.Join(append(where, p.Text), ": ")
}

// Problems is every problem of a gate, in the order of the file.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// asError keeps an empty list from becoming an error that is not nil.
func (p Problems) asError() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

// quoted shows a piece of the file in an error, cut where it is long.
func quoted(s string) string {
	const most = 60
	if utf8.RuneCountInString(s) > most {
		s = string([]rune(s)[:most]) + "…"
	}
	return fmt.Sprintf("%q", s)
}

// oneOf lists what would have been accepted, and the one that was probably
// meant.
func oneOf(found string, known []string) string {
	if len(known) == 0 {
		return "there is none"
	}
	text := "known: " + strings.Join(known, ", ")
	if near := nearest(found, known); near != "" {
		return fmt.Sprintf("did you mean %s? %s", near, text)
	}
	return text
}

// DidYouMean is the end of an error about an unknown name: the known one that was
// probably meant, or nothing.
func DidYouMean(found string, known []string) string {
	if near := nearest(found, known); near != "" {
		return fmt.Sprintf("; did you mean %s?", near)
	}
	return ""
}

// nearest is the known word that found was probably meant to be, or "".
func nearest(found string, known []string) string {
	if len(found) > 64 {
		return ""
	}
	best, least := "", max(min(len(found)/2, 2), len(found)/3)+1
	for _, word := range known {
		if d := editDistance(strings.ToLower(found), strings.ToLower(word)); d < least {
			best, least = word, d
		}
	}
	return best
}

// editDistance counts the letters to insert, drop, change or swap with their
// neighbour to make a into b.
func editDistance(a, b string) int {
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}

// inFileOrder sorts by file and position; problems of one place keep their order.
func (p Problems) inFileOrder(files []string) {
	slices.SortStableFunc(p, func(a, b Problem) int {
		if a.File != b.File {
			return slices.Index(files, a.File) - slices.Index(files, b.File)
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
}
