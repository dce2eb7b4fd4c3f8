#!/usr/bin/env bash
# First process of a node: node-init.sh STATE-FOLDER NODE CGROUP-ROOT SYSCTL=VALUE…
# It runs in network, process, mount and host name namespaces of its own, arranges what the node sees, and then only
# reaps orphans. One SIGKILL to it ends every process of the node and drops every mount: that is how a node is torn
# down, and what a power failure looks like.
set -euo pipefail
state=$1 node=$2 cgroup=$3
shift 3
folder=$state/$node

# The kubelet wants shared mounts. These are the node's own: nothing spreads to the machine.
mount --make-rshared /

# Everything that a kubelet, containerd and CNI plugins write lies in folders of the node. They live as long as the
# cluster: a node that is started again finds its disk. /run doesn't, as on any machine.
mount -t tmpfs tmpfs /run
mkdir -p /run/netns
mount --bind "$folder/lib" /var/lib
mount --bind "$folder/log" /var/log
mount --bind "$folder/mnt" /mnt
hostname "$node"

# No name server: a look-up of an image registry fails at once instead of after a timeout.
[[ ! -f /etc/resolv.conf ]] || mount --bind "$state/resolv.conf" /etc/resolv.conf

for sysctl in "$@"; do
    file=$folder/sysctl-${sysctl//\//-}
    echo "${sysctl#*=}" >"$file"
    mount --bind "$file" "/proc/sys/${sysctl%=*}"
done

mount --bind "$state/machine/meminfo" /proc/meminfo
mount --bind "$state/machine/cpu" /sys/devices/system/cpu
mount --bind "$state/machine/node" /sys/devices/system/node
# The kubelet writes the processors that it believes in into this file, and the kernel would refuse most of them.
# (In version 2 of cgroups nothing can be done about it: see cgroups.sh.)
if [[ $(stat -f -c %T /sys/fs/cgroup) != cgroup2fs ]]; then
    cpus=/sys/fs/cgroup/cpuset/$cgroup/kubepods/cpuset.cpus
    cp "$cpus" "$folder/cpuset.cpus"
    mount --bind "$folder/cpuset.cpus" "$cpus"
fi

touch "$folder/booted"
while :; do
    sleep 3600 &
    wait $!
done
