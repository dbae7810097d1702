package main

import (
	"testing"
	"testing/fstest"
)

// The default budget is 7/8 of the machine's memory, or of the lowest limit of
// the control group and its ancestors.
func TestDefaultMemory(t *testing.T) {
	const (
		v2     = "30 1 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n"
		v1     = "31 1 0:30 / /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n32 1 0:31 / /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
		inV1   = "4:memory:/kubepods/pod1/c1\n3:cpu,cpuacct:/kubepods/pod1/c1\n"
		pod    = "sys/fs/cgroup/memory/kubepods/pod1/memory.limit_in_bytes"
		none   = "9223372036854771712" // version 1's value without a limit
		gib    = "1073741824"
		half   = "536870912"
		of8GiB = 7168
		of1GiB = 896
		of512  = 448
	)
	for name, tt := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"a machine without control groups": {map[string]string{}, of8GiB},
		"version 2, no limit":              {map[string]string{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": v2}, of8GiB},
		"version 2, the word max":          {map[string]string{"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": v2, "sys/fs/cgroup/a/memory.max": "max\n"}, of8GiB},
		"version 2, a container":           {map[string]string{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": v2, "sys/fs/cgroup/memory.max": gib + "\n"}, of1GiB},
		"version 2, a group around it": {map[string]string{"proc/self/cgroup": "0::/pod/c\n", "proc/self/mountinfo": v2,
			"sys/fs/cgroup/pod/c/memory.max": gib + "\n", "sys/fs/cgroup/pod/memory.max": half + "\n"}, of512},
		"version 2, a host's name for it": {map[string]string{"proc/self/cgroup": "0::/kubepods/c1\n",
			"proc/self/mountinfo": "30 1 0:26 /kubepods/c1 /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "sys/fs/cgroup/memory.max": half}, of512},
		"version 1, no limit": {map[string]string{"proc/self/cgroup": inV1, "proc/self/mountinfo": v1, pod: none}, of8GiB},
		"version 1, a pod":    {map[string]string{"proc/self/cgroup": inV1, "proc/self/mountinfo": v1, pod: half}, of512},
		"version 1, a host's name for it": {map[string]string{"proc/self/cgroup": inV1,
			"proc/self/mountinfo":                        "32 1 0:31 /kubepods/pod1/c1 /sys/fs/cgroup/memory ro shared:9 master:2 - cgroup cgroup rw,memory\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": half}, of512},
		"version 1, a name that the mount does not have": {map[string]string{"proc/self/cgroup": "4:memory:/../other\n",
			"proc/self/mountinfo":                        "32 1 0:31 /kubepods/pod1/c1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": half}, of512},
		"both, of which one limits": {map[string]string{"proc/self/cgroup": inV1 + "0::/x\n", "proc/self/mountinfo": v1 + "33 1 0:40 / /sys/fs/cgroup/unified rw - cgroup2 cgroup rw\n", pod: half}, of512},
		"a mount with a space":      {map[string]string{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": `30 1 0:26 / /my\040groups ro - cgroup2 cgroup rw` + "\n", "my groups/memory.max": half}, of512},
		"lines of another form":     {map[string]string{"proc/self/cgroup": "rubbish\n:\n", "proc/self/mountinfo": "rubbish - \n - - -\n"}, of8GiB},
		"a limit above the machine": {map[string]string{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": v2, "sys/fs/cgroup/memory.max": "99999999999999"}, of8GiB},
		"a limit of almost nothing": {map[string]string{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": v2, "sys/fs/cgroup/memory.max": "4096"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			root := fstest.MapFS{"proc/meminfo": {Data: []byte("MemTotal:        8388608 kB\nMemFree:  1 kB\n")}}
			for path, data := range tt.files {
				root[path] = &fstest.MapFile{Data: []byte(data)}
			}
			if got := defaultMiB(root); got != tt.want {
				t.Errorf("%d MiB, want %d", got, tt.want)
			}
		})
	}
	if got := defaultMiB(fstest.MapFS{}); got != 8<<10 {
		t.Errorf("%d MiB where nothing is told, want 8192", got)
	}
}
