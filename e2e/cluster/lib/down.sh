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
    local namespaces node
    namespaces=$(our_namespaces)
    stop_processes
    remove_network
    for node in "${nodes[@]}"; do
        remove_cgroups "$node"
    done
    restore_controllers
    check_nothing_is_left "$namespaces"
    rm -rf "$state"
    say "down: no process, network namespace, mount or cgroup is left, and the machine's sysctls are as before"
}

# Our network namespaces as /proc names them, to find processes by that were in them.
our_namespaces() {
    local name
    for name in switch "${nodes[@]}"; do
        [[ ! -e /run/netns/$prefix-$name ]] || stat -Lc 'net:[%i]' "/run/netns/$prefix-$name"
    done
}

# With a node's first process every other one of the node dies, and its mounts go.
stop_processes() {
    local file
    for file in "$state"/pid/*; do
        [[ ! -f $file ]] || kill_process "${file##*/}"
    done
}

check_nothing_is_left() { # check_nothing_is_left NAMESPACES
    local found
    found=$(named_leftovers; process_leftovers "$1"; sysctl_leftovers)
    [[ -z $found ]] || die "left over, look at it and run \`cluster down\` again:
$found"
}

# Processes in our namespaces, or of binaries in our folder.
process_leftovers() { # process_leftovers NAMESPACES
    local path target pid
    { find /proc/[0-9]*/ns/net /proc/[0-9]*/exe -printf '%p %l\n' 2>/dev/null || true; } |
        while read -r path target; do
            if [[ $target == "$state"/* || " ${1//$'\n'/ } " == *" ${target:-unreadable} "* ]]; then
                pid=${path#/proc/}
                echo "process ${pid%%/*}: $(tr '\0' ' ' 2>/dev/null <"/proc/${pid%%/*}/cmdline" | cut -c1-80)"
            fi
        done | sort -u
}

# Whether the machine runs since `up`: what was saved then is comparable. (`cmp -s` finds files of /proc empty.)
same_boot() { [[ $(cat "$state/boot-id" 2>/dev/null) == "$(</proc/sys/kernel/random/boot_id)" ]]; }

sysctl_leftovers() {
    same_boot || return 0
    { diff "$state/sysctls.before" <(save_sysctls) || true; } | sed -n 's/^> /sysctl is now /p'
}
