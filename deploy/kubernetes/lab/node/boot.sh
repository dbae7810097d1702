#!/bin/bash
# The first process of a node: it builds the node's root, and moves into it.
set -eu
name=$1 root=$2 lab=$3
mount --make-rprivate /
hostname "$name"
mount --bind "$root" "$root"
mkdir -p "$root"/../usr-{upper,work}
mount -t overlay overlay -o lowerdir=/usr,upperdir="$root"/../usr-upper,workdir="$root"/../usr-work "$root"/usr
mount --bind "$lab" "$root"/lab
mount -t tmpfs -o mode=755 run "$root"/run
mount -t tmpfs tmp "$root"/tmp
mount --rbind /dev "$root"/dev
mount -t proc proc "$root"/proc
# The kubelet wants these to be set. They are the machine's: it is shown what it
# wants to see, and the machine is left alone.
mkdir -p "$root"/run/sysctl
for setting in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do
  shown=$root/run/sysctl/$(basename "${setting%=*}")
  echo "${setting#*=}" >"$shown"
  mount --bind "$shown" "$root/proc/sys/${setting%=*}"
done
mount -t sysfs sysfs "$root"/sys
mount -t tmpfs -o mode=755 cgroup "$root"/sys/fs/cgroup
for controller in cpu cpuacct cpuset memory devices freezer blkio pids; do
  mkdir "$root"/sys/fs/cgroup/$controller
  mount -t cgroup -o $controller cgroup "$root"/sys/fs/cgroup/$controller
done
mkdir "$root"/sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup "$root"/sys/fs/cgroup/systemd
cd "$root"
pivot_root . old
exec chroot . /bin/bash /init.sh "$name"
