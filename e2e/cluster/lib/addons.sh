# What a cluster has besides its nodes: rights of its own parts, DNS, storage.
# shellcheck shell=bash

volume_count=8

install_access() {
    # The API server reads logs and runs commands through the kubelets.
    kubectl create clusterrolebinding kubelet-api --clusterrole=system:kubelet-api-admin \
        --user=kube-apiserver-kubelet-client >/dev/null
    kubectl apply -f "$here/manifests/coredns.yaml" >/dev/null
    make_volumes
}

# Asks DNS through its service address, as a pod would.
dns_answers() {
    in_network n1 busybox nslookup kubernetes.default.svc.cluster.local $dns_address |
        grep -q "Address.*${service_cidr%.*}.1$"
}

# A default StorageClass with a few volumes on the first node. Nothing provisions more.
make_volumes() {
    local number folder
    for ((number = 1; number <= volume_count; number++)); do
        folder=$state/n1/mnt/volumes/volume-$number
        [[ -d $folder ]] || { mkdir -p "$folder" && chmod 0777 "$folder"; }
    done
    {
        cat "$here/manifests/storage-class.yaml"
        for ((number = 1; number <= volume_count; number++)); do
            echo "---"
            sed "s|NUMBER|$number|" "$here/manifests/volume.yaml"
        done
    } | kubectl apply -f - >/dev/null
}

# A volume whose claim is gone stays Released, with its files, until this empties it.
command_storage() { # command_storage reset
    [[ ${1:-} == reset ]] || die "usage: cluster storage reset"
    require_up
    local volume
    for volume in $(kubectl get persistentvolumes -o json |
        jq -r '.items[] | select(.spec.storageClassName == "standard" and .status.phase == "Released").metadata.name'); do
        kubectl delete persistentvolume "$volume" --wait --timeout=60s >/dev/null
        rm -rf "$state/n1/mnt/volumes/$volume"
        echo "$volume emptied"
    done
    make_volumes
}
