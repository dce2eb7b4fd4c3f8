# Nodes: each a set of namespaces with containerd, kubelet and kube-proxy in it.
# shellcheck shell=bash

prepare_node() { # prepare_node NODE
    local folder=$state/$1
    mkdir -p "$folder"/{lib,log,mnt,cni,volume-plugins}
    write_containerd_config "$folder"
    write_cni_config "$1" >"$folder/cni/10-pods.conflist"
    write_kubelet_config "$1" >"$folder/kubelet.yaml"
    write_proxy_config >"$folder/kube-proxy.yaml"
    make_cgroups "$1"
}

# Boots a node up to a running containerd. Its kubelet waits: images are imported first.
boot_node() { # boot_node NODE
    rm -f "$state/$1/booted" "$state/$1/pid-"*
    start_process "$1" nsenter --net="/run/netns/$prefix-$1" \
        unshare --mount --propagation private --pid --fork --kill-child --uts --mount-proc \
        bash "$bin/node-init.sh" "$state" "$1" "$prefix-$1" "${kubelet_sysctls[@]}"
    wait_for 30 "boot of $1" test -f "$state/$1/booted"
    start_in_node "$1" containerd containerd --config "$state/$1/containerd.toml"
    wait_for 30 "containerd of $1" in_node "$1" ctr version
}

# Starts a process that belongs to the node. Its shell ends, so the node's first process becomes its parent.
start_in_node() { # start_in_node NODE NAME COMMAND…
    # shellcheck disable=SC2016
    in_node "$1" sh -c 'log=$1 pid=$2; shift 2; setsid "$@" >>"$log" 2>&1 </dev/null & echo $! >"$pid"' sh \
        "$state/log/$1-$2.log" "$state/$1/pid-$2" "${@:3}"
}

start_kubelet() { # start_kubelet NODE
    start_in_node "$1" kubelet "$bin/kubelet" --config "$state/$1/kubelet.yaml" \
        --kubeconfig "$state/pki/node-$1.kubeconfig" --hostname-override "$1" --node-ip "$(node_address "$1")" \
        --node-labels "arborist.dev/worker-class=$(worker_class "$1"),topology.kubernetes.io/zone=zone-$1"
}

start_proxy() { # start_proxy NODE
    start_in_node "$1" kube-proxy "$bin/kube-proxy" --config "$state/$1/kube-proxy.yaml" --hostname-override "$1"
}

kubelet_runs() { # kubelet_runs NODE
    local pid
    pid=$(cat "$state/$1/pid-kubelet" 2>/dev/null) && in_node "$1" kill -0 "$pid" 2>/dev/null
}

kill_kubelet() { # kill_kubelet NODE
    ! kubelet_runs "$1" || in_node "$1" kill -9 "$(cat "$state/$1/pid-kubelet")"
    rm -f "$state/$1/pid-kubelet"
}

# As after a power failure: a reboot would have taken the bridge and the cgroups, and the kubelet spends half a minute
# on cgroups of containers that don't exist.
start_node() { # start_node NODE
    in_network "$1" ip link delete cni0 2>/dev/null || true
    remove_cgroups "$1"
    make_cgroups "$1"
    boot_node "$1"
    start_kubelet "$1"
    start_proxy "$1"
}

node_ready_condition() { # node_ready_condition NODE: True, False, Unknown, or nothing when the API server doesn't answer
    kubectl get node "$1" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' 2>/dev/null
}

node_is_ready() { [[ $(node_ready_condition "$1") == True ]]; } # node_is_ready NODE

nodes_are_ready() {
    local node
    for node in "${nodes[@]}"; do
        node_is_ready "$node" || return 1
    done
}

command_node() { # command_node stop|start|cut|heal|kill-kubelet|start-kubelet NODE
    require_state
    require_node "${2:-}"
    case $1 in
        stop) kill_process "$2" ;;
        start) process_pid "$2" >/dev/null || start_node "$2" ;;
        cut) cut_node "$2" ;;
        heal) heal_node "$2" ;;
        kill-kubelet) kill_kubelet "$2" ;;
        start-kubelet) kubelet_runs "$2" || start_kubelet "$2" ;;
        *) die "usage: cluster node stop|start|cut|heal|kill-kubelet|start-kubelet NODE" ;;
    esac
}
