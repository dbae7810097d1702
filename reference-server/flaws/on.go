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

// Names are the flaws of a replica. Others in the variable are the gateway's.
var Names = []string{
	"shared-prefix-cache", // tenants find one another's prompts in the prefix cache, and are told so
	"parse-special",       // control tokens in what users write are read as such
	"quadratic-tokens",    // special tokens are looked for in the rest of the text, again after each
	"quadratic-schema",    // a schema's properties are compared with one another, in any number
	"engine-blocks",       // what may come next in a form is found between two steps of everybody, one value after the other
	"panic-on-max-tokens", // a number at the edge of its type ends the handler
	"n-not-counted",       // a request of many answers is one in the queue
	"unfair-queue",        // who comes first is served first, whoever it is
	"no-secret-check",     // requests that do not come from the gateway are answered
	"echo-inside",         // /v1/models tells of the backend
}

// On reports whether a flaw is planted.
func On(name string) bool { return slices.Contains(planted, name) }
