#!/usr/bin/env bash
# What a user does, on a cluster of its own: helm install, kubectl apply of the sample, wait, verify. Then all goes away.
# KUBECONFIG is not looked at: the demo never installs into a cluster of yours.
set -euo pipefail
cd "$(dirname "$0")/.."
unset KUBECONFIG
source e2e/lib.sh

namespace=arborist-system
job=quickstart
proof=out/demo-cluster
kind_name=arborist-demo
sample=quickstart
settings=()
# kind's nodes have the machine's own size, and the quickstart's pods have 32 cores
if [[ $cluster == kind ]]; then
    sample=quickstart-small
    settings=(--set operator.profile=local)
fi

# Prints a command and runs it where the cluster is.
show() { # show COMMAND…
    echo
    echo "\$ $*"
    in_cluster "$@"
}

condition() { # condition TYPE
    in_cluster kubectl get pj "$job" -o "jsonpath={.status.conditions[?(@.type=='$1')].status}"
}

install() {
    show helm upgrade --install arborist-crds charts/arborist-crds -n "$namespace" --create-namespace --wait
    show helm upgrade --install arborist charts/arborist -n "$namespace" --wait --timeout 3m ${settings[@]+"${settings[@]}"}
    show kubectl get nodes -L arborist.dev/worker-class
}

# The state of things every few seconds, until the job has ended.
watch_job() {
    local end=$((SECONDS + 1200))
    until [[ $(condition Complete) == True ]]; do
        show kubectl get pj,pp,pods
        [[ $(condition Failed) != True ]] || { show kubectl describe pj "$job"; return 1; }
        ((SECONDS < end)) || { echo "not complete within 20 minutes" >&2; return 1; }
        sleep 4
    done
    show kubectl get pj,pp,pods
}

verify() {
    local file map
    map=$(in_cluster kubectl get pj "$job" -o 'jsonpath={.status.rootProof.configMap}')
    mkdir -p "$proof"
    for file in root.proof public.json; do
        fetch "$map" "$file" >"$proof/$file"
    done
    echo
    echo "\$ arborist verify $proof"
    "$(program arborist)" verify "$proof"
}

# A file of the ConfigMap with the root proof: text as it is, bytes in base64.
fetch() { # fetch CONFIG-MAP FILE
    local key=${2//./\\.} text
    text=$(in_cluster kubectl get configmap "$1" -o "jsonpath={.data.$key}")
    if [[ -n $text ]]; then
        printf '%s' "$text"
    else
        in_cluster kubectl get configmap "$1" -o "jsonpath={.binaryData.$key}" | base64 -d
    fi
}

step "check the machine" check_machine
step "images" build_images
trap take_down EXIT
step "cluster up" bring_up
step "load the images" load_images arborist.tar arborist-worker.tar
step "install" install
show kubectl apply -f "manifests/samples/$sample.yaml"
step "prove" watch_job
step "verify" verify
