#!/usr/bin/env bash
# Builds the two images as OCI archives, without Docker and without root: static programs in an image of nothing else.
# Prints where they are.
set -euo pipefail
cd "$(dirname "$0")/.."

out=out/images
registry=${REGISTRY:-ghcr.io/arborist-dev}
target=$(rustc -vV | awk '/^host:/ { print $2 }')
# a folder of its own: with other flags nothing could be shared, and a long build holds nobody up
target_dir=${CARGO_TARGET_DIR:-target}/images
version=$(awk -F '"' '/^version = / { print $2; exit }' Cargo.toml)

build() {
    # an explicit target keeps the flags away from build scripts and procedural macros, which can't be static
    RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" ${CARGO:-cargo} build --release --locked \
        --target-dir "$target_dir" --target "$target" -p arborist-operator -p arborist-worker --bin arborist --bin arborist-worker
}

# The public certificate authorities of this machine: for buckets, sources and report targets. Without them only what is
# trusted by a CA of your own can be reached over https.
ca_roots() {
    local file
    for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
        [[ -s $file ]] && printf '%s\n' "etc/ssl/certs/ca-certificates.crt=$file" && return
    done
    echo 'no public certificate authorities found: the images can reach https only with a CA of yours' >&2
}

image() { # image NAME PATH=FILE…
    local name=$1
    shift
    hack/mkoci.py "$out/$name.tar" "$registry/$name:$version" --entrypoint "/$name" --user 65532:65532 "$@"
    echo "$out/$name.tar: $registry/$name:$version, $(du -h "$out/$name.tar" | cut -f1)"
}

build
programs=$target_dir/$target/release
mkdir -p "$out"
mapfile -t roots < <(ca_roots)
# the operator has proofs of a plug-in checked by the worker's program beside its own
image arborist "arborist=$programs/arborist" "arborist-worker=$programs/arborist-worker" "${roots[@]}"
image arborist-worker "arborist-worker=$programs/arborist-worker" "${roots[@]}"
