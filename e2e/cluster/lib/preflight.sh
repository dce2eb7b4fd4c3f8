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
    check_names
    check_packages
    check_cgroups
    check_folders
    check_leftovers
    warn_about_routes
}

require_root() { [[ $EUID == 0 ]] || die "this needs root: it makes network namespaces, mounts and cgroups"; }

check_names() {
    local node seen=" "
    [[ ${nodes[0]} == n1 ]] || die "ARBORIST_NODES begins with n1, which carries the control plane"
    for node in "${nodes[@]}"; do
        [[ $node =~ ^n[1-9]$ && $seen != *" $node "* ]] || die "ARBORIST_NODES: n1 to n9, each once; not: ${nodes[*]}"
        seen+="$node "
    done
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
    [[ $(stat -f -c %T /sys/fs/cgroup) != cgroup2fs ]] ||
        die "this machine has cgroup version 2 only (most distributions since 2021), which these nodes were not made for.
With Docker and kind installed the same tests and the demo run on kind. e2e/cluster/README.md says what is needed"
    local controller
    for controller in cpu cpuacct cpuset memory devices freezer blkio pids; do
        [[ -w /sys/fs/cgroup/$controller/tasks ]] || die "no cgroup (version 1) hierarchy /sys/fs/cgroup/$controller"
    done
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
