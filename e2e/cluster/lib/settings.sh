# Names, addresses and versions of the cluster, each said once. Sourced by `cluster`.
# shellcheck shell=bash disable=SC2034,SC2206

# The Go client may need this machine's proxy. Nothing else does: no proxy stands between a client and this cluster.
mapfile -t go_environment < <(env | grep -iE '^(https?|all|no)_proxy=' || true)
go_environment+=(GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOWORK=off)
unset http_proxy https_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY

# Everything a running cluster writes lies in this folder; `down` removes it.
state=${ARBORIST_CLUSTER_DIR:-/var/tmp/arborist-cluster}
# Binaries and images are kept here between clusters, by a hash of what they are made from.
cache=${ARBORIST_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/arborist}

kubernetes_version=v1.36.3
all_tools=(kubernetes helm kubeconform kwok coredns)

# The first node also carries the control plane in its network. Names are n1 … n9: the digit makes the addresses.
nodes=(${ARBORIST_NODES:-n1 n2 n3})
node_cpus=${ARBORIST_NODE_CPUS:-68}            # two worker pods of 32 cores and 64 GiB, and room for the system
node_memory_gib=${ARBORIST_NODE_MEMORY_GIB:-136}

# How soon a silent node counts as lost, and how long its pods stay after that (stock: 50 s and 300 s).
node_grace=${ARBORIST_NODE_GRACE:-12s}
toleration_seconds=${ARBORIST_TOLERATION_SECONDS:-5}
audit=${ARBORIST_AUDIT:-0}
wait_factor=${ARBORIST_WAIT_FACTOR:-1}         # of all limits of waiting, for a slow machine

prefix=arb                                     # of network namespaces and cgroup roots: arb-n1, arb-sw
service_cidr=10.96.0.0/16
pod_cidr=10.244.0.0/16
node_cidr=10.89.0.0/24
dns_address=10.96.0.10
control_plane_address=10.89.0.11
api_url=https://$control_plane_address:6443

# What the kubelet insists on. A node sees files with these values, so the machine's own are never written.
kubelet_sysctls=(
    vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000
)

# A running cluster was started with its own settings: they win over this shell's environment.
state_file=$state/cluster.env
# shellcheck source=/dev/null
[[ ! -r $state_file ]] || source "$state_file"

kubeconfig=$state/admin.kubeconfig
bin=$state/bin                                 # links to the cached binaries, seen by the nodes too

node_number() { echo "${1#n}"; }
node_address() { echo "10.89.0.1${1#n}"; }
pod_subnet() { echo "10.244.$((${1#n} - 1)).0/24"; }
worker_class() { if [[ $1 == n1 ]]; then echo rollup; else echo vm; fi; }
