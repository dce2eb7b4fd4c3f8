#!/usr/bin/env bash
# The end-to-end tests: a cluster, images in it, all stories. Arguments go to the program: `e2e/run.sh --story crds`.
#
# KUBECONFIG=…          run on that cluster; ARBORIST_E2E_TAG names the tag of images that it can pull
# KEEP_CLUSTER=1        leave the cluster that this brought up
# SKIP_IMAGES=1         use the images in out/images as they are
set -euo pipefail
cd "$(dirname "$0")/.."
source e2e/lib.sh

mkdir -p "$images"
step "check the machine" check_machine
step "build the tests" cargo build --locked -p arborist-e2e
step "build the images" build_images
step "build the S3 server's image" build_s3_image
[[ $cluster != local ]] || step "build the simulator of nodes" "$tool" build kwok
trap take_down EXIT
step "cluster up" bring_up
step "load the images" load_images arborist.tar arborist-worker.tar weed.tar

options=(--repository "$PWD" --arborist "$(program arborist)")
if [[ $cluster == local ]]; then
    options+=(--cluster "$tool")
fi
step "stories" in_cluster "${CARGO_TARGET_DIR:-$PWD/target}/debug/arborist-e2e" "${options[@]}" "$@"
