#!/usr/bin/env bash
# The first process of a node: gives it a file system of its own, then waits.
#
#   machine.sh FOLDER DISK PROGRAMS GROUP
#
# Runs with mount, process and network namespaces that are the node's. The host's files are
# below, everything that the node writes is in memory and to be seen in /run/changes. Images and
# pods are on DISK, since they are large and overlays do not stand on overlays. All of it is
# gone when this process is.
set -euo pipefail
folder=$1 disk=$2 programs=$3 group=$4

for branch in /sys/fs/cgroup/*/"$group"/system; do
  echo 0 >"$branch/cgroup.procs"
done

mount --make-rprivate /
mount -t tmpfs margay-node "$folder/root"
cd "$folder/root"
mkdir upper work root
mount -t overlay margay-node -o lowerdir=/,upperdir=upper,workdir=work root
for name in dev sys; do
  mount --rbind "/$name" "root/$name"
done
mount -t proc proc root/proc
mount -t tmpfs -o mode=755 margay-node root/run
mkdir root/run/{lock,changes,old,programs,machine}
mount --bind upper root/run/changes
mount --bind "$programs" root/run/programs
mount --bind "$folder/machine" root/run/machine
for name in containerd kubelet; do
  mkdir -p "$disk/$name" "root/var/lib/$name"
  mount --bind "$disk/$name" "root/var/lib/$name"
done
cd root
pivot_root . run/old
cd /
umount -l /run/old
# A pod may ask to see the mounts that come later; it is asked of a mount that others share.
mount --make-rshared /
rmdir /run/old

# As the package of a node's image would: the reference plugins, of which containerd needs one.
# Not links: a pod that has the folder mounted would find nothing behind them.
mkdir -p /opt/cni/bin /etc/cni/net.d
rm -rf /etc/cni/net.d/* /opt/cni/bin/*
for name in loopback ptp bridge host-local portmap bandwidth; do
  cp "/usr/lib/cni/$name" /opt/cni/bin/
done

trap 'exit 0' TERM
touch /run/machine/ready
# A shell that waits reaps what the node's processes leave behind.
while :; do
  sleep 3600 &
  wait $! || true
done
