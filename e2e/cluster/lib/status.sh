# What there is, in lines that people and tests can read.
# shellcheck shell=bash

# up: everything runs and answers. down: no cluster. half: neither.
cluster_state() {
    if [[ ! -d $state ]]; then
        echo down
    elif processes_run && apiserver_is_ready && nodes_are_ready; then
        echo up
    else
        echo half
    fi
}

control_plane=(etcd kube-apiserver kube-controller-manager kube-scheduler)

processes_run() {
    local name
    for name in "${control_plane[@]}" "${nodes[@]}"; do
        process_pid "$name" >/dev/null || return 1
    done
}

require_state() {
    require_root
    [[ -r $state_file ]] || die "there is no cluster; \`cluster up\` makes one"
}

# Enough of a cluster for clients; it may be a damaged one, as tests of faults want.
require_up() {
    require_state
    [[ -e /run/netns/$prefix-n1 ]] || die "the cluster is not up; \`cluster status\` shows what there is"
}

require_node() { # require_node NODE
    [[ " ${nodes[*]} " == *" ${1:-?} "* ]] || die "no node named ${1:-?}; there are: ${nodes[*]}"
}

# Exit code 0: up, 1: half up, 3: down.
command_status() {
    local all name pid
    all=$(cluster_state)
    echo "state $all"
    [[ $all != down ]] || exit 3
    echo "kubeconfig $kubeconfig"
    for name in "${control_plane[@]}" kwok; do
        if pid=$(process_pid "$name"); then
            echo "process $name pid=$pid rss_mib=$(awk '/^VmRSS/ { print int($2 / 1024) }' "/proc/$pid/status")"
        elif [[ $name != kwok ]]; then
            echo "process $name stopped"
        fi
    done
    for name in "${nodes[@]}"; do
        echo "node $name $(node_summary "$name")"
    done
    [[ $all == up ]] || exit 1
}

node_summary() { # node_summary NODE
    local pid link=up kubelet=running ready
    if ! pid=$(node_pid "$1"); then
        echo "stopped"
        return
    fi
    in_switch ip link show "$1" | grep -q ',UP' || link=down
    kubelet_runs "$1" || kubelet=stopped
    ready=$(node_ready_condition "$1") || ready=unanswered
    echo "pid=$pid address=$(node_address "$1") class=$(worker_class "$1") link=$link kubelet=$kubelet ready=$ready"
}

command_pid() { # command_pid NODE
    require_state
    require_node "${1:-}"
    node_pid "$1" || die "node $1 is not running"
}

command_enter() { # command_enter NODE COMMAND…
    require_state
    require_node "${1:-}"
    [[ $# -gt 1 ]] || die "usage: cluster enter NODE COMMAND…"
    in_node "$@"
}

command_logs() { # command_logs FOLDER
    require_state
    [[ -d ${1:-} ]] || die "usage: cluster logs FOLDER"
    cp "$state"/log/* "$1"
}

# Runs a client in the cluster's network, with its tools, its kubeconfig, and caches that go with it.
command_exec() { # command_exec COMMAND…
    [[ $# -gt 0 ]] || die "usage: cluster exec COMMAND…"
    require_up
    exec nsenter --net="/run/netns/$prefix-n1" env PATH="$bin:$PATH" KUBECONFIG="$kubeconfig" \
        KUBECACHEDIR="$state/cache/kubectl" HELM_CACHE_HOME="$state/cache/helm" \
        HELM_CONFIG_HOME="$state/cache/helm-config" HELM_DATA_HOME="$state/cache/helm-data" "$@"
}
