# What must hold before anything is touched.
# shellcheck shell=bash

# command:package
needed_commands=(
    etcd:etcd-server containerd:containerd ctr:containerd runc:runc nft:nftables ip:iproute2
    iptables:iptables conntrack:conntrack busybox:busybox-static musl-gcc:musl-tools openssl:openssl jq:jq
    pgrep:procps nsenter:util-linux unshare:util-linux python3:python3
)

# `up` looks at the same things, but after what calls it has built images for minutes.
command_check() {
    require_root
    case $(cluster_state) in
        up) echo "the cluster is up" ;;
        half) die "a cluster is half up, or was not taken down: \`cluster status\` shows it, \`cluster down\` removes it" ;;
        down)
            require_go
            check_machine
            echo "this machine can run the cluster" ;;
    esac
}

require_go() {
    command -v go >/dev/null || die "Go is needed to build the cluster's binaries (any 1.26 release)"
}

check_machine() {
    check_settings
    check_packages
    check_cgroups
    check_folders
    check_leftovers
    warn_about_routes
}

require_root() { [[ $EUID == 0 ]] || die "this needs root: it makes network namespaces, mounts and cgroups"; }

check_settings() {
    local node seen=" "
    [[ ${nodes[0]} == n1 ]] || die "ARBORIST_NODES begins with n1, which carries the control plane"
    for node in "${nodes[@]}"; do
        [[ $node =~ ^n[1-9]$ && $seen != *" $node "* ]] || die "ARBORIST_NODES: n1 to n9, each once; not: ${nodes[*]}"
        seen+="$node "
    done
    [[ $wait_factor =~ ^[1-9][0-9]*$ ]] || die "ARBORIST_WAIT_FACTOR is a whole number, not $wait_factor"
}

check_packages() {
    local need missing=()
    for need in "${needed_commands[@]}"; do
        command -v "${need%%:*}" >/dev/null || missing+=("${need%%:*} (package ${need#*:})")
    done
    [[ -x /usr/lib/cni/bridge ]] || missing+=("/usr/lib/cni/bridge (package containernetworking-plugins)")
    [[ ${#missing[@]} == 0 ]] && return
    printf 'cluster: missing: %s\n' "${missing[@]}" >&2
    die "on Debian and Ubuntu run hack/install-cluster-packages.sh"
}

check_cgroups() {
    local controller
    if has_cgroup2; then
        check_cgroup2
        return
    fi
    for controller in cpu cpuacct cpuset memory devices freezer blkio pids; do
        [[ -w /sys/fs/cgroup/$controller/tasks ]] || die "no cgroup (version 1) hierarchy /sys/fs/cgroup/$controller"
    done
}

# Version 2. In a container the topmost folder may be one of several, with processes: the kernel then passes nothing on.
check_cgroup2() {
    local root=/sys/fs/cgroup controller
    for controller in "${cgroup2_controllers[@]}"; do
        has_controller $root "$controller" || die "no cgroup controller $controller in $root/cgroup.controllers"
    done
    [[ -w $root/cgroup.subtree_control ]] || die "$root can't be written to: in a container it needs more rights"
    [[ ! -e $root/cgroup.type || -z $(<$root/cgroup.procs) ]] ||
        die "processes lie in $root itself (this is a container): move them into a folder below it first"
}

# Nodes see their own folders in the place of these.
check_folders() {
    [[ $state == /* && $state != / ]] || die "ARBORIST_CLUSTER_DIR is an absolute path"
    [[ ! $state/ =~ ^/(run|proc|sys|mnt|var/lib|var/log|var/run)/ ]] ||
        die "ARBORIST_CLUSTER_DIR=$state: a node could not see it; not below /run, /mnt, /var/lib or /var/log"
    [[ ! $state =~ [[:space:]] ]] || die "ARBORIST_CLUSTER_DIR has a space in it"
}

# What has one of our names, but no state folder that says it is ours, is somebody else's.
check_leftovers() {
    local found
    found=$(named_leftovers)
    [[ -z $found ]] || die "these exist and this cluster did not make them, so nothing was touched:
$found
If a cluster's folder was deleted while it ran: cluster down --force"
}

# Namespaces, mounts and cgroup folders that have the names of this cluster's.
named_leftovers() {
    local name
    for name in switch "${nodes[@]}"; do
        [[ ! -e /run/netns/$prefix-$name ]] || echo "network namespace $prefix-$name"
    done
    awk -v a="$state/" -v b="/run/netns/$prefix-" '{ if (index($5, a) == 1 || index($5, b) == 1) print "mount " $5 }' \
        /proc/self/mountinfo
    for name in "${nodes[@]}"; do
        find /sys/fs/cgroup -maxdepth 2 -name "$prefix-$name" -printf 'cgroup %p\n'
    done
}

# Harmless, since no packet leaves the namespaces, but good to know when a client was started outside of them.
warn_about_routes() {
    local cidr route
    for cidr in $service_cidr $pod_cidr $node_cidr; do
        route=$(ip -4 route show to root "$cidr"; ip -4 route show to match "$cidr" | sed '/^default/d')
        [[ -z $route ]] || echo "cluster: note: this machine has a route of its own to $cidr: $route" >&2
    done
}
