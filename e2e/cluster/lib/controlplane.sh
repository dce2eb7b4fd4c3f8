# etcd, API server, controller manager and scheduler: processes of this machine in the first node's network.
# shellcheck shell=bash

start_in_control_plane() { # start_in_control_plane NAME COMMAND…
    start_process "$1" nsenter --net="/run/netns/$prefix-n1" "${@:2}"
}

start_etcd() {
    # A crash of the machine may lose the data: it is thrown away anyway, and syncing is most of a write's time.
    start_in_control_plane etcd etcd --name etcd --data-dir "$state/etcd" --unsafe-no-fsync \
        --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
        --initial-cluster etcd=http://127.0.0.1:2380 --quota-backend-bytes $((4 << 30))
}

start_apiserver() {
    local pki=$state/pki flags
    flags=(
        --etcd-servers http://127.0.0.1:2379
        --advertise-address $control_plane_address --secure-port 6443
        --service-cluster-ip-range $service_cidr
        --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction
        --client-ca-file "$pki/ca.crt" --tls-cert-file "$pki/apiserver.crt" --tls-private-key-file "$pki/apiserver.key"
        --service-account-issuer https://kubernetes.default.svc.cluster.local
        --service-account-key-file "$pki/service-account.pub"
        --service-account-signing-key-file "$pki/service-account.key"
        --kubelet-client-certificate "$pki/kubelet-client.crt" --kubelet-client-key "$pki/kubelet-client.key"
        --kubelet-certificate-authority "$pki/ca.crt" --kubelet-preferred-address-types InternalIP
        --requestheader-client-ca-file "$pki/front-proxy-ca.crt" --requestheader-allowed-names front-proxy-client
        --requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group
        --requestheader-extra-headers-prefix X-Remote-Extra-
        --proxy-client-cert-file "$pki/front-proxy.crt" --proxy-client-key-file "$pki/front-proxy.key"
        --default-not-ready-toleration-seconds "$toleration_seconds"
        --default-unreachable-toleration-seconds "$toleration_seconds"
        --max-requests-inflight 800 --max-mutating-requests-inflight 400
        --allow-privileged
    )
    if [[ $audit == 1 ]]; then
        flags+=(--audit-policy-file "$here/manifests/audit-policy.yaml" --audit-log-path "$state/log/audit.log")
    fi
    start_in_control_plane kube-apiserver "$bin/kube-apiserver" "${flags[@]}"
}

start_controller_manager() { # start_controller_manager GRACE
    local pki=$state/pki
    # Pod addresses come from each node's CNI file. One instance needs no election. Many objects need more requests.
    start_in_control_plane kube-controller-manager "$bin/kube-controller-manager" \
        --kubeconfig "$pki/controller-manager.kubeconfig" --use-service-account-credentials \
        --root-ca-file "$pki/ca.crt" --service-account-private-key-file "$pki/service-account.key" \
        --cluster-signing-cert-file "$pki/ca.crt" --cluster-signing-key-file "$pki/ca.key" \
        --leader-elect=false --allocate-node-cidrs=false \
        --node-monitor-period 1s --node-monitor-grace-period "$1" \
        --kube-api-qps 200 --kube-api-burst 400 --concurrent-gc-syncs 20
}

# It gives up when the API server is not there within 10 s, as on a slow machine.
revive_controller_manager() {
    process_pid kube-controller-manager >/dev/null || start_controller_manager "$node_grace"
}

start_scheduler() {
    start_in_control_plane kube-scheduler "$bin/kube-scheduler" --kubeconfig "$state/pki/scheduler.kubeconfig" \
        --leader-elect=false --kube-api-qps 500 --kube-api-burst 1000
}

start_control_plane() {
    mkdir -p "$state/etcd"
    start_etcd
    start_apiserver
    start_controller_manager "$node_grace"
    start_scheduler
}

apiserver_is_ready() { [[ $(kubectl get --raw /readyz 2>/dev/null) == ok ]]; }

# SIGKILL, not a graceful end: every open watch breaks at once, as when the machine under it fails.
command_apiserver() { # command_apiserver stop|start
    require_state
    case ${1:-} in
        stop) kill_process kube-apiserver ;;
        start)
            process_pid kube-apiserver >/dev/null || start_apiserver
            wait_for 60 "API server" apiserver_is_ready ;;
        *) die "usage: cluster apiserver stop|start" ;;
    esac
}
