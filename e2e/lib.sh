# What the end-to-end scripts share: a cluster, and images in it. Sourced.
# shellcheck shell=bash
#
# Which cluster: the one of KUBECONFIG if that is set; else kind, where Docker answers; else the local one of
# e2e/cluster, which needs root. Only what these scripts brought up is taken down.

tool=$PWD/e2e/cluster/cluster
kind_name=arborist-e2e
images=out/images
mine=no # whether this script brought the cluster up

choose_cluster() {
    if [[ -n ${KUBECONFIG:-} ]]; then
        echo given
    elif command -v kind >/dev/null && docker info >/dev/null 2>&1; then
        echo kind
    else
        echo local
    fi
}

cluster=$(choose_cluster)
echo "cluster: $cluster"

# Runs a step and prints how long it took.
step() { # step NAME COMMAND…
    local name=$1 from=$SECONDS
    shift
    echo "== $name"
    "$@"
    echo "== $name: $((SECONDS - from)) s"
}

# Before anything is built, which takes minutes: can this machine bring the cluster up, and are the clients there?
check_machine() {
    local program
    if [[ $cluster == local ]]; then
        "$tool" check || {
            echo "Or install Docker and kind: they are used where Docker answers." >&2
            return 1
        }
        return
    fi
    for program in kubectl helm; do
        command -v "$program" >/dev/null || { echo "missing: $program" >&2; return 1; }
    done
}

bring_up() {
    case $cluster in
        given) ;;
        kind) kind_up ;;
        local) local_up ;;
    esac
}

local_up() {
    local state code=0
    state=$("$tool" status | head -n 1) || true
    [[ $state != "state down" ]] || mine=yes
    "$tool" up || code=$?
    # 75: another was faster, and the cluster is theirs
    [[ $code != 75 ]] || mine=no
    return "$code"
}

kind_up() {
    export KUBECONFIG=$PWD/out/e2e/$kind_name.kubeconfig
    mkdir -p out/e2e
    if ! kind get clusters | grep -qx "$kind_name"; then
        mine=yes
        kind create cluster --name "$kind_name" --config e2e/kind/cluster.yaml --wait 120s \
            ${KIND_NODE_IMAGE:+--image "$KIND_NODE_IMAGE"}
    else
        kind export kubeconfig --name "$kind_name"
    fi
}

# For `trap … EXIT`. The logs of a cluster in which something failed are kept: they go with it.
take_down() {
    local code=$?
    [[ $mine == yes && -z ${KEEP_CLUSTER:-} ]] || return "$code"
    [[ $code == 0 ]] || keep_cluster_logs
    case $cluster in
        kind) kind delete cluster --name "$kind_name" ;;
        local) "$tool" down ;;
    esac
    return "$code"
}

keep_cluster_logs() {
    local folder=out/e2e/cluster-logs
    rm -rf "$folder"
    mkdir -p "$folder"
    case $cluster in
        kind) kind export logs --name "$kind_name" "$folder" >/dev/null || return 0 ;;
        local) "$tool" logs "$folder" || return 0 ;;
    esac
    echo "logs of the cluster's own parts: $folder" >&2
}

# Runs a client where the cluster's addresses are: no packet for a pod or a service leaves the machine.
in_cluster() { # in_cluster COMMAND…
    if [[ $cluster == local ]]; then
        "$tool" exec "$@"
    else
        "$@"
    fi
}

build_images() {
    [[ -n ${SKIP_IMAGES:-} ]] || make --no-print-directory images
}

# An S3 server in an image of nothing else, for the stories with two operators.
build_s3_image() {
    local weed
    weed=$(hack/install-weed.sh)
    if [[ ! $images/weed.tar -nt $weed ]]; then
        hack/mkoci.py "$images/weed.tar" localhost/weed:1 --entrypoint /weed "weed=$weed"
    fi
}

load_images() { # load_images NAME…
    local name
    case $cluster in
        local) "$tool" load "${@/#/$PWD/$images/}" ;;
        kind) for name in "$@"; do kind load image-archive --name "$kind_name" "$images/$name"; done ;;
        given) echo "images are not loaded into a cluster of yours: it has to be able to pull them (ARBORIST_E2E_TAG)" ;;
    esac
}

# The program arborist of the images' build.
program() { # program NAME
    echo "${CARGO_TARGET_DIR:-$PWD/target}/images/$(rustc -vV | awk '/^host:/ { print $2 }')/release/$1"
}
