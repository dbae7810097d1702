package host

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/launchgate/launchgate/internal/words"
)

// canMount tries whether a file system can be mounted.
func canMount() error {
	folder, err := os.MkdirTemp("", ofOurs)
	if err != nil {
		return err
	}
	defer os.Remove(folder)
	if err := mountDisk(folder, leastDisk); err != nil {
		return lack("it needs a file system of its own, and none can be mounted (%s): it takes root", err)
	}
	return unmount(folder)
}

func mountDisk(folder string, size int64) error {
	if err := unix.Mount(diskName, folder, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, fmt.Sprintf("size=%d,mode=0700", size)); err != nil {
		return words.Errorf("mount a file system of %d MiB on %s: %s", size>>20, folder, err)
	}
	return nil
}

// unmount removes a file system that launchgate made, and no other. A process
// that has files on it open keeps them until it ends.
func unmount(folder string) error {
	for mounted(folder) {
		if err := unix.Unmount(folder, unix.MNT_DETACH); err != nil {
			return words.Errorf("undo: unmount %s: %s", folder, err)
		}
	}
	return nil
}

// mounted reports whether a file system that launchgate made is mounted at a
// folder. A line of mountinfo has: ids, device, root, mount point, options … -
// type, source, options.
func mounted(folder string) bool {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(b)) {
		what, source, _ := strings.Cut(line, " - ")
		at, from := strings.Fields(what), strings.Fields(source)
		if len(at) > 4 && len(from) > 1 && from[1] == diskName && unescape.Replace(at[4]) == folder {
			return true
		}
	}
	return false
}

// fill makes a file take all free space of its file system.
func fill(file string) (taken int64, err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for range 100 { // others may take and free space meanwhile
		var st unix.Statfs_t
		if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
			return taken, err
		}
		free := int64(st.Bavail) * st.Bsize
		if free == 0 {
			return taken, nil
		}
		info, err := f.Stat()
		if err != nil {
			return taken, err
		}
		if err := unix.Fallocate(int(f.Fd()), 0, info.Size(), free); err == nil {
			taken += free
		}
	}
	return taken, nil
}
