// Package launchgate holds what the whole module shares as data: the wordings
// of what its packages say. Each package keeps those of its own phrases beside
// its source, in zh.json; who reads a recording needs them all, and may not
// import the packages that wrote it.
package launchgate

import "embed"

// Wordings are the files of Chinese (简体): each is one object, from a phrase in
// English to its wording. A test in reports holds them against the source.
//
//go:embed */zh.json */*/zh.json
var Wordings embed.FS
