//go:build flaws

// Package flaws plants defects in the reference server, to show that a scan
// finds them. LAUNCHGATE_FLAW names the defects, separated by commas. This is
// the build with the tag flaws, for tests only.
package flaws

import (
	"os"
	"slices"
	"strings"
)

var planted = strings.Split(os.Getenv("LAUNCHGATE_FLAW"), ",")

// Names are the flaws of a replica. Other names in the variable are flaws of
// the gateway.
var Names = []string{
	"shared-prefix-cache", // tenants hit one another's prompts in the prefix cache, and the usage shows it
	"parse-special",       // control tokens in user text are parsed as control tokens
	"quadratic-tokens",    // after each special token the whole rest of the text is searched again
	"quadratic-schema",    // every property of a schema is compared with every other, without a limit
	"engine-blocks",       // the engine finds allowed tokens one by one between steps, and everybody waits
	"panic-on-max-tokens", // the largest number of a type makes the handler panic
	"n-not-counted",       // a request with many answers counts as one in the queue
	"unfair-queue",        // first come, first served, regardless of the tenant
	"no-secret-check",     // requests that do not come from the gateway are answered
	"echo-inside",         // /v1/models shows the backend
}

// On reports whether a flaw is planted.
func On(name string) bool { return slices.Contains(planted, name) }
