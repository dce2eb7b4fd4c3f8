# Brings the cluster up.
# shellcheck shell=bash

command_up() {
    case $(cluster_state) in
        up)
            echo "the cluster is up"
            print_access
            return ;;
        half) die "a cluster is half up, or was not taken down: \`cluster status\` shows it, \`cluster down\` removes it" ;;
    esac
    require_root
    check_machine
    command_build kubernetes coredns helm
    started=$SECONDS
    trap up_failed EXIT
    claim_state
    in_parallel make_machine make_pki make_network
    say "certificates and network"
    start_control_plane
    start_nodes
    say "kubelets started on ${nodes[*]}"
    wait_for 120 "API server" apiserver_is_ready
    revive_controller_manager
    install_access
    wait_for 120 "nodes" nodes_are_ready
    say "nodes Ready"
    wait_for 120 "DNS" dns_answers
    trap - EXIT
    say "DNS answers"
    print_access
}

up_failed() {
    # shellcheck disable=SC2046
    kill $(jobs -p) 2>/dev/null || true # starts that are still under way
    echo "cluster: not up. Logs are in $state/log; \`cluster down\` removes what there is." >&2
}

# The folder is the claim: making it fails if another `up` was faster. From here on `down` knows what is ours.
claim_state() {
    mkdir -p "$(dirname "$state")"
    mkdir -m 0755 "$state" || give_way
    mkdir "$state"/{log,pid,bin,cache}
    : >"$state/resolv.conf"
    save_sysctls >"$state/sysctls.before"
    save_controllers
    cp /proc/sys/kernel/random/boot_id "$state/boot-id"
    mountpoint -q /run/netns || touch "$state/made-run-netns"
    {
        echo "nodes=(${nodes[*]})"
        echo "node_grace=$node_grace toleration_seconds=$toleration_seconds audit=$audit"
        echo "node_cpus=$node_cpus node_memory_gib=$node_memory_gib wait_factor=$wait_factor"
    } >"$state_file"
    cp "$here/lib/node-init.sh" "$bin"
    link_tools
}

# 75, EX_TEMPFAIL: nothing was touched, and what there is belongs to another.
give_way() {
    echo "cluster: another cluster command is at work in $state" >&2
    trap - EXIT
    exit 75
}

# The built tools in one folder, which the nodes see too. Links where it is the same file system.
link_tools() {
    local tool file
    for tool in "${all_tools[@]}"; do
        for file in "$(tool_folder "$tool")"/*; do
            [[ ! -f $file || -e $bin/${file##*/} ]] || cp --link "$file" "$bin/" 2>/dev/null || cp "$file" "$bin/"
        done
    done
}

save_sysctls() {
    local sysctl
    for sysctl in "${kubelet_sysctls[@]}"; do
        echo "${sysctl%=*}=$(cat "/proc/sys/${sysctl%=*}")"
    done
}

# All nodes at once. Each gets the images that its first pods need before its kubelet can ask for them.
start_nodes() {
    local name node starts=()
    for name in "${image_names[@]}"; do
        build_image "$name"
    done
    for node in "${nodes[@]}"; do
        prepare_node "$node"
        starts+=("start_with_images $node")
    done
    in_parallel "${starts[@]}"
}

start_with_images() { # start_with_images NODE
    boot_node "$1"
    import_image "$1" "$(image_archive pause)"
    start_kubelet "$1"
    start_proxy "$1"
    import_image "$1" "$(image_archive box)"
    [[ $1 != n1 ]] || import_image "$1" "$(image_archive coredns)" # which runs there only
}

print_access() {
    echo "KUBECONFIG=$kubeconfig"
    echo "Run clients inside the cluster's network: e2e/cluster/cluster exec kubectl get nodes"
}
