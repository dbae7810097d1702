package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// defaultMiB is the default memory that servers share: 7/8 of the memory of the
// host, or of the container's limit if that is lower. root is the root of the
// file system.
func defaultMiB(root fs.FS) int64 {
	total := min(hostMemory(root), controlGroupLimit(root))
	if total == math.MaxInt64 {
		return 8 << 10
	}
	return max(1, total>>20*7/8)
}

// hostMemory is the memory of the machine in bytes, or the largest number if it
// is not known.
func hostMemory(root fs.FS) int64 {
	b, err := fs.ReadFile(root, "proc/meminfo")
	var kib int64
	if _, scanned := fmt.Sscanf(string(b), "MemTotal: %d kB", &kib); err != nil || scanned != nil {
		return math.MaxInt64
	}
	return kib << 10
}

// controlGroupLimit is the lowest memory limit in bytes of this process's
// control group and its ancestors, in both versions of control groups. It is
// the largest number if there is no limit.
func controlGroupLimit(root fs.FS) int64 {
	limit := int64(math.MaxInt64)
	for _, g := range memoryGroups(root) {
		for at := g.folder; ; at = path.Dir(at) {
			// The root group has no such file, and "max" is not a number.
			if b, err := fs.ReadFile(root, path.Join(at, g.file)); err == nil {
				if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
					limit = min(limit, n)
				}
			}
			if at == g.mount || at == "." {
				break
			}
		}
	}
	return limit
}

// memoryGroup is a control group that can limit memory.
type memoryGroup struct {
	mount, folder string // without a leading slash, as fs.FS requires
	file          string
}

// memoryGroups are the groups of this process: one, or two on a host that mounts
// both versions.
func memoryGroups(root fs.FS) (groups []memoryGroup) {
	own, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return nil
	}
	mounts, err := fs.ReadFile(root, "proc/self/mountinfo")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(own)) { // "4:memory:/a/b", or "0::/a/b" of version 2
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		kind, file := "cgroup2", "memory.max"
		if parts[1] != "" {
			if kind, file = "cgroup", "memory.limit_in_bytes"; !slices.Contains(strings.Split(parts[1], ","), "memory") {
				continue
			}
		}
		if mount, folder := groupFolder(mounts, kind, parts[2]); mount != "" {
			groups = append(groups, memoryGroup{mount, folder, file})
		}
	}
	return groups
}

// groupFolder finds in mountinfo where a control group is mounted, and its
// folder there. In a container the root of the mount is the container's group,
// even if the group's name is that of the host.
func groupFolder(mountinfo []byte, kind, group string) (mount, folder string) {
	lines := bufio.NewScanner(bytes.NewReader(mountinfo))
	for lines.Scan() {
		// "36 35 98:0 /root /mount options tags… - type source super,options"
		before, after, found := strings.Cut(lines.Text(), " - ")
		fields, system := strings.Fields(before), strings.Fields(after)
		if !found || len(fields) < 5 || len(system) < 3 || system[0] != kind {
			continue
		}
		if kind == "cgroup" && !slices.Contains(strings.Split(system[2], ","), "memory") {
			continue
		}
		mount = strings.TrimPrefix(unescape.Replace(fields[4]), "/")
		below, ok := strings.CutPrefix(group, strings.TrimSuffix(unescape.Replace(fields[3]), "/"))
		if !ok {
			return mount, mount
		}
		return mount, path.Join(mount, below)
	}
	return "", ""
}

// unescape undoes what mountinfo writes for characters that separate its fields.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
