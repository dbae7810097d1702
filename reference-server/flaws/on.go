//go:build flaws

// Package flaws plants one defect or several in the reference server, so that a
// scan can be shown to find them: those that LAUNCHGATE_FLAW names, with commas
// between them. This is the build with the tag flaws, for tests only.
package flaws

import (
	"os"
	"slices"
	"strings"
)

var planted = strings.Split(os.Getenv("LAUNCHGATE_FLAW"), ",")

// On reports whether a flaw is planted.
func On(name string) bool { return slices.Contains(planted, name) }
