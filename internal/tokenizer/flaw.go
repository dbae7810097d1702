//go:build !flaws

package tokenizer

// planted reports whether a flaw of the reference server is planted: never in this
// build.
func planted(string) bool { return false }
