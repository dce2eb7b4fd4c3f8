# A network namespace for each node, and one with a bridge that joins them. There is no uplink: the bridge has no
# address and no way to the machine's own interfaces, so no packet of the cluster can leave the machine.
# shellcheck shell=bash

in_switch() { in_network switch "$@"; }

make_network() {
    local node
    ip netns add "$prefix-switch"
    in_switch ip link add br0 type bridge
    in_switch ip link set br0 up
    for node in "${nodes[@]}"; do
        make_node_network "$node"
    done
    for node in "${nodes[@]}"; do
        route_pods "$node"
    done
}

make_node_network() { # make_node_network NODE
    ip netns add "$prefix-$1"
    ip link add eth0 netns "$prefix-$1" type veth peer name "$1" netns "$prefix-switch"
    in_switch ip link set "$1" master br0 up
    in_network "$1" ip link set lo up
    in_network "$1" ip address add "$(node_address "$1")/${node_cidr#*/}" dev eth0
    in_network "$1" ip link set eth0 up
    # Nobody has .1, it is a dead end. But a connection to a service address needs a route before kube-proxy's rules
    # see and change it.
    in_network "$1" ip route add default via "${node_cidr%.*}.1" dev eth0 onlink
    in_network "$1" sysctl -qw net.ipv4.ip_forward=1
}

# The pods of every other node are behind that node.
route_pods() { # route_pods NODE
    local other
    for other in "${nodes[@]}"; do
        [[ $other == "$1" ]] || in_network "$1" ip route add "$(pod_subnet "$other")" via "$(node_address "$other")"
    done
}

cut_node() { in_switch ip link set "$1" down; }
heal_node() { in_switch ip link set "$1" up; }

namespace_is_empty() { [[ -z $(ip netns pids "$prefix-$1") ]]; } # namespace_is_empty NAME

# Ends whatever still runs in our namespaces (clients as well as what no pid file knows), then removes them.
remove_network() {
    local name pid
    for name in switch "${nodes[@]}"; do
        [[ -e /run/netns/$prefix-$name ]] || continue
        for pid in $(ip netns pids "$prefix-$name"); do
            kill -9 "$pid" 2>/dev/null || true
        done
        wait_for 10 "end of all processes in $prefix-$name" namespace_is_empty "$name"
        ip netns delete "$prefix-$name"
    done
    # `ip netns add` made the folder a mount of its own. It goes if it wasn't one before and nobody else uses it.
    if [[ -e $state/made-run-netns && -z $(ls -A /run/netns 2>/dev/null) ]]; then
        umount /run/netns 2>/dev/null || true
        rmdir /run/netns 2>/dev/null || true
    fi
}
