//go:build !flaws

// Package flaws plants defects in the reference server, to show that a scan
// finds them. The shipped program is built without the tag flaws and has none:
// On is false there, and the compiler removes its branches.
package flaws

// On reports whether a flaw is planted: never in this build.
func On(string) bool { return false }
