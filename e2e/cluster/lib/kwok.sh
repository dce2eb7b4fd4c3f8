# Fake nodes and pods beside the real ones, on the same API server: kwok says Ready and Running for them.
# shellcheck shell=bash

kwok_grace=60s # kwok renews its nodes' leases every 10 s, and a loaded API server may be slow

command_kwok() { # command_kwok start|stop
    require_up
    case ${1:-} in
        start)
            ! process_pid kwok >/dev/null || return 0
            # Not built here: who starts it is often in the cluster's network, where no module can be downloaded.
            [[ -x $(tool_folder kwok)/kwok ]] || die "kwok is not built; run first: cluster build kwok"
            link_tools
            restart_controller_manager "$kwok_grace"
            start_in_control_plane kwok "$bin/kwok" --kubeconfig "$state/pki/kwok.kubeconfig" \
                --manage-all-nodes=false --manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake \
                --node-lease-duration-seconds 40 --cidr 10.200.0.0/16 --node-ip $control_plane_address ;;
        stop)
            process_pid kwok >/dev/null || return 0
            kill_process kwok
            restart_controller_manager "$node_grace" ;;
        *) die "usage: cluster kwok start|stop" ;;
    esac
}

restart_controller_manager() { # restart_controller_manager GRACE
    kill_process kube-controller-manager
    start_controller_manager "$1"
}
