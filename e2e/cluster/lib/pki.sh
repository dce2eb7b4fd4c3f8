# Certificates and kubeconfigs, made anew for every cluster and removed with it. Elliptic keys: all in about a second.
# shellcheck shell=bash

certificate_days=30

make_authority() { # make_authority FILE COMMON-NAME
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days $certificate_days \
        -keyout "$1.key" -out "$1.crt" -subj "/CN=$2" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,digitalSignature 2>/dev/null
}

make_certificate() { # make_certificate FILE SUBJECT AUTHORITY USAGE [ALTERNATIVE-NAMES]
    local names=()
    [[ -z ${5:-} ]] || names=(-addext "subjectAltName=$5")
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days $certificate_days \
        -keyout "$1.key" -out "$1.crt" -subj "$2" -CA "$3.crt" -CAkey "$3.key" \
        -addext basicConstraints=critical,CA:FALSE -addext keyUsage=critical,digitalSignature \
        -addext "extendedKeyUsage=$4" "${names[@]}" 2>/dev/null
}

# A client's certificate, and its kubeconfig with everything in it, so that the file can be read from anywhere.
make_client() { # make_client FILE SUBJECT
    make_certificate "$1" "$2" ca clientAuth
    cat >"$1.kubeconfig" <<EOF
apiVersion: v1
kind: Config
current-context: arborist-test
contexts: [{name: arborist-test, context: {cluster: arborist-test, user: $1}}]
clusters:
- name: arborist-test
  cluster: {server: "$api_url", certificate-authority-data: $(base64 -w0 ca.crt)}
users:
- name: $1
  user: {client-certificate-data: $(base64 -w0 "$1.crt"), client-key-data: $(base64 -w0 "$1.key")}
EOF
}

make_pki() {
    mkdir -p "$state/pki"
    pushd "$state/pki" >/dev/null
    make_authority ca arborist-test-ca
    make_authority front-proxy-ca arborist-test-front-proxy-ca # signs the API server's calls to aggregated APIs only
    make_certificate apiserver /CN=kube-apiserver ca serverAuth "DNS:kubernetes,DNS:kubernetes.default,\
DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,IP:${service_cidr%.*}.1,IP:127.0.0.1,\
IP:$control_plane_address"
    make_certificate kubelet-client /CN=kube-apiserver-kubelet-client ca clientAuth
    make_certificate front-proxy /CN=front-proxy-client front-proxy-ca clientAuth
    make_client admin /O=system:masters/CN=admin
    make_client controller-manager /CN=system:kube-controller-manager
    make_client scheduler /CN=system:kube-scheduler
    make_client kube-proxy /CN=system:kube-proxy
    make_client kwok /O=system:masters/CN=kwok
    local node
    for node in "${nodes[@]}"; do
        make_client "node-$node" "/O=system:nodes/CN=system:node:$node"
        make_certificate "kubelet-$node" "/O=system:nodes/CN=system:node:$node" ca serverAuth \
            "IP:$(node_address "$node"),DNS:$node"
    done
    openssl ecparam -name prime256v1 -genkey -noout -out service-account.key
    openssl ec -in service-account.key -pubout -out service-account.pub 2>/dev/null
    popd >/dev/null
    cp "$state/pki/admin.kubeconfig" "$kubeconfig"
}
