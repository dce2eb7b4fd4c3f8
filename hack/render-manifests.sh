#!/usr/bin/env bash
# Makes what is derived from crds/ and charts/: the CRD chart's templates, the chart README's table, and
# manifests/install.yaml for those who have no Helm. With --check nothing is changed, and a difference is an error.
# HELM names the helm program; without it install.yaml is left out.
set -euo pipefail
cd "$(dirname "$0")/.."

namespace=arborist-system
helm=${HELM:-}
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT

crd_templates() {
    local file
    for file in crds/*.yaml; do
        if grep -q '{{' "$file"; then
            echo "$file: has {{, which Helm would read as a template" >&2
            return 1
        fi
        {
            echo "# Made from $file by \`make manifests\`."
            # uninstalling the chart must not delete every pool and job of the cluster
            sed '0,/^metadata:$/s//metadata:\n  annotations:\n    helm.sh\/resource-policy: keep/' "$file"
        } >"$new/templates-$(basename "$file")"
    done
}

install_yaml() {
    cat <<END
# Arborist with its defaults, for kubectl: kubectl apply --server-side -f manifests/install.yaml
# Made from charts/ by \`make manifests\`.
apiVersion: v1
kind: Namespace
metadata:
  name: $namespace
  labels:
    # operator and workers both keep to it
    pod-security.kubernetes.io/enforce: restricted
END
    "$helm" template arborist-crds charts/arborist-crds
    # what says that Helm looks after it would be wrong here
    "$helm" template arborist charts/arborist --namespace $namespace --skip-tests |
        sed -e '/helm\.sh\/chart:/d' -e 's/managed-by: Helm$/managed-by: kubectl/'
}

differs=0
put() { # put NEW OLD
    cmp -s "$1" "$2" && return
    if [[ $check ]]; then
        echo "$2: not what it is made from says; run \`make manifests\`" >&2
        differs=1
    else
        cp "$1" "$2"
        echo "$2"
    fi
}

check=
[[ ${1:-} != --check ]] || check=--check
crd_templates
for file in "$new"/templates-*; do
    put "$file" "charts/arborist-crds/templates/${file##*/templates-}"
done
hack/chart-readme.py $check charts/arborist || differs=1
if [[ $helm ]]; then
    install_yaml >"$new/install.yaml"
    put "$new/install.yaml" manifests/install.yaml
else
    echo "no helm: manifests/install.yaml is not looked at; make chart-lint does it" >&2
fi
exit $differs
