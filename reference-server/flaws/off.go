//go:build !flaws

// Package flaws plants one defect or several in the reference server, so that a
// scan can be shown to find them. What is shipped is built without the tag flaws
// and has none of them: On is false there, and its branches are left out.
package flaws

// On reports whether a flaw is planted: never in this build.
func On(string) bool { return false }
