# Takes the cluster down completely, whatever state it is in, and checks that nothing is left.
# shellcheck shell=bash

command_down() { # command_down [--force]
    require_root
    if [[ ! -d $state ]]; then
        if [[ ${1:-} != --force ]]; then
            check_leftovers
            echo "there is no cluster"
            return
        fi
        echo "cluster: no record of a cluster: removing everything that has its names" >&2
    fi
    local namespaces
    namespaces=$(our_namespaces)
    stop_processes
    remove_network
    remove_cgroups
    check_nothing_is_left "$namespaces"
    rm -rf "$state"
    say "down: no process, network namespace, mount or cgroup is left, and the machine's sysctls are as before"
}

# The numbers of our network namespaces, to find processes by that were in them.
our_namespaces() {
    local name
    for name in switch "${nodes[@]}"; do
        [[ ! -e /run/netns/$prefix-$name ]] || stat -Lc %i "/run/netns/$prefix-$name"
    done
}

# With a node's first process every other one of the node dies, and its mounts go.
stop_processes() {
    local file
    for file in "$state"/pid/*; do
        [[ ! -f $file ]] || kill_process "${file##*/}"
    done
}

# The kernel lets a folder go a moment after its last process.
remove_cgroups() {
    local node root
    for node in "${nodes[@]}"; do
        for root in $(cgroup_roots); do
            wait_for 20 "removal of $root/$prefix-$node" remove_cgroup "$root/$prefix-$node"
        done
    done
}

remove_cgroup() { # remove_cgroup FOLDER
    [[ -d $1 ]] || return 0
    find "$1" -depth -type d -exec rmdir {} +
}

check_nothing_is_left() { # check_nothing_is_left NAMESPACE-NUMBERS
    local found
    found=$(named_leftovers; process_leftovers "$1"; sysctl_leftovers)
    [[ -z $found ]] || die "left over, look at it and run \`cluster down\` again:
$found"
}

# Processes in our namespaces, or of binaries in our folder.
process_leftovers() { # process_leftovers NAMESPACE-NUMBERS
    local process number
    for process in /proc/[0-9]*; do
        number=$(stat -Lc %i "$process/ns/net" 2>/dev/null) || continue
        if grep -qxF "$number" <<<"${1:-none}" || [[ $(readlink "$process/exe") == "$state"/* ]]; then
            echo "process ${process#/proc/}: $(tr '\0' ' ' 2>/dev/null <"$process/cmdline")"
        fi
    done
}

# Only comparable within one boot of the machine.
sysctl_leftovers() {
    cmp -s "$state/boot-id" /proc/sys/kernel/random/boot_id || return 0
    diff "$state/sysctls.before" <(save_sysctls) | sed -n 's/^> /sysctl is now /p'
}
