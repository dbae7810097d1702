// Package version says which build of launchgate this is. Both programs say it, and it
// imports nothing of ours.
package version

import (
	"runtime"
	"runtime/debug"
	"strings"
)

// stamped is the version that a release is built with:
// -ldflags "-X github.com/launchgate/launchgate/internal/version.stamped=v1.2.3".
var stamped string

// Short is the version that this program was built from: the stamped one, that of the
// module, or the revision of its source.
func Short() string {
	if stamped != "" {
		return stamped
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version, dirty := info.Main.Version, ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && (version == "" || version == "(devel)"):
			version = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+changes"
		}
	}
	if strings.HasSuffix(version, "+dirty") {
		dirty = ""
	}
	return version + dirty
}

// Build describes a build.
type Build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // of its source
	Time     string `json:"time,omitempty"`     // of that revision
	Changed  bool   `json:"changed,omitempty"`  // the source differed from the revision
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
	CGO      bool   `json:"cgo"` // built with a C compiler
}

// Of describes this build.
func Of() Build {
	b := Build{Version: Short(), Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Changed = s.Value == "true"
		case "CGO_ENABLED":
			b.CGO = s.Value == "1"
		}
	}
	return b
}
