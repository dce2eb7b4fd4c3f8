# Configuration files of a node's containerd, CNI plugins, kubelet and kube-proxy.
# shellcheck shell=bash

write_containerd_config() { # write_containerd_config FOLDER
    # restrict_oom_score_adj: without CAP_SYS_RESOURCE a process can't lower its score, and no container would start.
    cat >"$1/containerd.toml" <<EOF
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$1/cni"
EOF
}

# Pods of a node hang on its bridge. No masquerading: pods see each other's own addresses, and there is no outside.
write_cni_config() { # write_cni_config NODE
    cat <<EOF
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$(pod_subnet "$1")"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
EOF
}

write_kubelet_config() { # write_kubelet_config NODE
    # Image collection is off: nothing can be pulled again. Leases are short so that a silent node is noticed soon.
    cat <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupRoot: /$prefix-$1
oomScoreAdj: 0
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
tlsCertFile: $state/pki/kubelet-$1.crt
tlsPrivateKeyFile: $state/pki/kubelet-$1.key
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $state/pki/ca.crt}
authorization: {mode: Webhook}
clusterDNS: [$dns_address]
clusterDomain: cluster.local
resolvConf: $state/resolv.conf
volumePluginDir: $state/$1/volume-plugins
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
nodeStatusUpdateFrequency: 2s
nodeStatusReportFrequency: 10s
nodeLeaseDurationSeconds: 8
EOF
}

write_proxy_config() {
    # Connection tracking limits are the machine's: zero leaves them alone.
    cat <<EOF
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: $state/pki/kube-proxy.kubeconfig}
clusterCIDR: $pod_cidr
oomScoreAdj: 0
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
EOF
}
