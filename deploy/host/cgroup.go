package host

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
)

// cgroup is a control group of one controller for one victim. In version 1 each
// controller has its own tree, and the new group is a child of this process's
// group. In version 2 a group that has processes cannot hand controllers to
// children, so the new group is a sibling of this process's group.
type cgroup struct {
	controller string
	path       string
	home       string // the group of this process, and so of the victim
	v2         bool
}

// groupNumber makes the names of this process's groups unique.
var groupNumber atomic.Int64

// findGroup finds where a group of a controller can be made. It makes nothing.
func findGroup(controller string) (cgroup, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return cgroup{}, lack("there are no control groups to be seen: %s", err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return cgroup{}, lack("there are no mounts to be seen: %s", err)
	}
	g, err := parseGroup(controller, own, mounts)
	if err != nil {
		return cgroup{}, deploy.Lack{Reason: words.Of(err)}
	}
	if g.v2 {
		return g.beside()
	}
	return g, nil
}

// parseGroup finds this process's group of a controller in the text of /proc
// files. The path of the result is that of a new group inside it.
func parseGroup(controller string, own, mounts []byte) (cgroup, error) {
	var in1, in2 string // this process's group in the controller's tree of version 1, and in that of version 2
	for line := range strings.Lines(string(own)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3) // 4:memory:/path, 0::/path
		if len(parts) != 3 {
			continue
		}
		if slices.Contains(strings.Split(parts[1], ","), controller) {
			in1 = parts[2]
		} else if parts[0] == "0" && parts[1] == "" {
			in2 = parts[2]
		}
	}
	for lines := bufio.NewScanner(bytes.NewReader(mounts)); lines.Scan(); {
		// 30 25 0:26 ROOT MOUNTPOINT options … - TYPE source SUPEROPTIONS
		before, after, _ := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if len(left) < 5 || len(right) < 3 {
			continue
		}
		root, mount := left[3], left[4]
		switch {
		case in1 != "" && right[0] == "cgroup" && slices.Contains(strings.Split(right[2], ","), controller):
			return newGroup(controller, mount, root, in1, false), nil
		case in1 == "" && in2 != "" && right[0] == "cgroup2":
			return newGroup(controller, mount, root, in2, true), nil
		}
	}
	return cgroup{}, words.Errorf("no control groups of %s are mounted", controller)
}

func newGroup(controller, mount, root, in string, v2 bool) cgroup {
	if rest, inside := strings.CutPrefix(in, root); inside && root != "/" {
		in = rest // a container sees its own part of the tree as the whole
	}
	home := filepath.Join(mount, in)
	name := fmt.Sprintf("%s%d-%d", ofOurs, os.Getpid(), groupNumber.Add(1))
	return cgroup{controller: controller, home: home, path: filepath.Join(home, name), v2: v2}
}

// beside moves the path of a version 2 group up to a group whose children get
// the controller.
func (g cgroup) beside() (cgroup, error) {
	for _, in := range []string{filepath.Dir(g.home), g.home} {
		handed, err := os.ReadFile(filepath.Join(in, "cgroup.subtree_control"))
		if err == nil && slices.Contains(strings.Fields(string(handed)), g.controller) {
			g.path = filepath.Join(in, filepath.Base(g.path))
			return g, nil
		}
	}
	return cgroup{}, lack("the %s controller is not handed down to where launchgate runs (%s): run it as root in a service or scope of systemd's with Delegate=yes", g.controller, g.home)
}

// canGroup tries whether a group of a controller can be made here.
func canGroup(controller string) func() error {
	return func() error {
		if err := onLinux(); err != nil {
			return err
		}
		g, err := findGroup(controller)
		if err != nil {
			return err
		}
		if err := os.Mkdir(g.path, 0o755); err != nil {
			return lack("it needs a control group, and none can be made (%s): it takes root", err)
		}
		return removeGroup(g.path, g.home)
	}
}

func (g cgroup) undo() []deploy.Undo {
	return []deploy.Undo{undoing(undoCgroup, object{Path: g.path, Home: g.home})}
}

// take makes the group, sets its limits and moves a process into it.
func (g cgroup) take(pid int, limits [][2]string) error {
	if err := os.Mkdir(g.path, 0o755); err != nil {
		return words.Errorf("make a control group: %s", err)
	}
	for _, limit := range append(limits, [2]string{"cgroup.procs", strconv.Itoa(pid)}) {
		if err := os.WriteFile(filepath.Join(g.path, limit[0]), []byte(limit[1]), 0o644); err != nil {
			return words.Errorf("set %s to %s: %s", limit[0], limit[1], err)
		}
	}
	return nil
}

// has reports whether a process is in the group.
func (g cgroup) has(pid int) bool {
	b, err := os.ReadFile(filepath.Join(g.path, "cgroup.procs"))
	return err == nil && slices.Contains(strings.Fields(string(b)), strconv.Itoa(pid))
}

// exists reports whether the group still exists.
func (g cgroup) exists() bool {
	_, err := os.Stat(g.path)
	return !errors.Is(err, os.ErrNotExist)
}

// count reads a number from a file of the group. The number is the whole file,
// or the value of a key in it.
func (g cgroup) count(file, key string) int64 {
	b, err := os.ReadFile(filepath.Join(g.path, file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if key == "" && len(fields) == 1 || len(fields) == 2 && fields[0] == key {
			n, _ := strconv.ParseInt(fields[len(fields)-1], 10, 64)
			return n
		}
	}
	return 0
}
