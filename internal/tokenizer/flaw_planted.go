//go:build flaws

package tokenizer

import (
	"os"
	"slices"
	"strings"
)

var flaws = strings.Split(os.Getenv("LAUNCHGATE_FLAW"), ",")

// planted reports whether a flaw of the reference server is planted; its package
// flaws lists them.
func planted(name string) bool { return slices.Contains(flaws, name) }
