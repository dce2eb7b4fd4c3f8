#!/usr/bin/env bash
# Lints the charts: helm lint, the values that users set rendered and checked against Kubernetes' schemas, what is refused,
# and that generated files are up to date. Needs no cluster and no network.
# HELM and KUBECONFORM name the programs, KUBE_SWAGGER Kubernetes' api/openapi-spec/swagger.json.
set -euo pipefail
cd "$(dirname "$0")/.."

helm=${HELM:?}
kubeconform=${KUBECONFORM:?}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
fail() {
    echo "chart-lint: $*" >&2
    failed=1
}

versions() { # programs and charts are released together
    local version chart
    version=$(awk -F '"' '/^version = / { print $2; exit }' Cargo.toml)
    for chart in arborist arborist-crds; do
        grep -qx "version: $version" "charts/$chart/Chart.yaml" || fail "charts/$chart: version is not $version"
        grep -qx "appVersion: \"$version\"" "charts/$chart/Chart.yaml" || fail "charts/$chart: appVersion is not $version"
    done
}

# A CRD as JSON. Helm is the YAML reader that is there anyway.
crd_json() { # crd_json FILE
    mkdir -p "$work/reader/templates"
    printf 'apiVersion: v2\nname: reader\nversion: 0.0.0\n' >"$work/reader/Chart.yaml"
    cp "$1" "$work/reader/crd.yaml"
    echo '{{ .Files.Get "crd.yaml" | fromYaml | toJson }}' >"$work/reader/templates/out.yaml"
    "$helm" template "$work/reader" | grep '^{'
}

schemas() {
    local file crds=()
    for file in crds/*.yaml; do
        crds+=("$work/$(basename "$file" .yaml).json")
        crd_json "$file" >"${crds[-1]}"
    done
    hack/kube-schemas.py "$work/schemas" "$KUBE_SWAGGER" "${crds[@]}"
}

conforms() { # conforms FILE…; the Prometheus operator's kinds have no schema here
    "$kubeconform" -strict -skip ServiceMonitor,PrometheusRule \
        -schema-location "$work/schemas/{{ .ResourceKind }}{{ .KindSuffix }}.json" "$@"
}

renders() { # renders NAME WHAT-MUST-BE-THERE SETTING…
    local name=$1 expected=$2 file=$work/$1.yaml
    shift 2
    "$helm" lint --quiet --strict charts/arborist "$@" >"$work/lint" 2>&1 || fail "$name: $(cat "$work/lint")"
    if ! "$helm" template arborist charts/arborist -n arborist-system "$@" >"$file"; then
        fail "$name: does not render"
        return
    fi
    grep -q -- "$expected" "$file" || fail "$name: \`$expected\` is not in what is rendered"
    conforms "$file" || fail "$name: not valid"
}

# "Kind name" of what a release makes that is in no namespace. In what helm renders, every other object says its namespace.
cluster_scoped() { # cluster_scoped NAMESPACE SETTING…
    local namespace=$1
    shift
    "$helm" template arborist charts/arborist -n "$namespace" "$@" | awk '
        function tell() { if (kind && !namespaced) print kind, name; kind = name = section = ""; namespaced = 0 }
        /^---/ { tell() }
        /^[a-zA-Z]+:/ { section = $1 }
        /^kind: / { kind = $2 }
        section == "metadata:" && /^  name: / { name = $2 }
        section == "metadata:" && /^  namespace: / { namespaced = 1 }
        END { tell() }' | sort
}

apart() { # apart SETTING…: two releases of one name in two namespaces have nothing in common that is cluster-wide
    local one two both
    one=$(cluster_scoped one "$@")
    two=$(cluster_scoped two "$@")
    grep -q '^ClusterRole ' <<<"$one" || fail "apart $*: no ClusterRole was found"
    both=$(comm -12 <(echo "$one") <(echo "$two"))
    [[ -z $both ]] || fail "two releases would share: $(paste -sd, <<<"$both")"
}

refused() { # refused MESSAGE SETTING…
    local message=$1
    shift
    if "$helm" template arborist charts/arborist "$@" >"$work/out" 2>&1; then
        fail "accepted: $*"
    elif ! grep -qF -- "$message" "$work/out"; then
        fail "$*: refused, but not with \`$message\`: $(cat "$work/out")"
    fi
}

versions
hack/render-manifests.sh --check || failed=1
schemas
"$helm" lint --quiet --strict charts/arborist-crds || failed=1

s3=(--set store.url=s3://proofs/mainnet --set store.credentialsSecret=arborist-store)
renders default 'claimName: arborist'
renders no-volume 'sizeLimit: 10Gi' --set store.builtIn.persistence.enabled=false
renders namespaced '--watch-namespace=team-b' --set 'watch.namespaces={team-a,team-b}'
renders two-operators 'kind: PodDisruptionBudget' --set replicas=2 "${s3[@]}"
renders other-name 'name: prover-arborist-metrics' --set fullnameOverride=prover-arborist
# the command of docs/process-backend.md and of the sample
renders process '--plugin-arg=--threads-from-request' --set operator.backend=process \
    --set 'operator.extraArgs={--plugin=/opt/prover/prover,--plugin-arg=--threads-from-request,--plugin-keys=/opt/keys/keys.json}' \
    --set 'operator.extraVolumes[0].name=keys,operator.extraVolumes[0].configMap.name=prover-keys' \
    --set 'operator.extraVolumeMounts[0].name=keys,operator.extraVolumeMounts[0].mountPath=/opt/keys'
renders everything 'kind: PrometheusRule' --values hack/chart-lint-everything.yaml
conforms manifests/install.yaml manifests/samples/*.yaml || fail 'manifests: not valid'

apart
apart --values hack/chart-lint-everything.yaml

refused "the built-in store lies on one operator's volume" --set replicas=2
refused 'a file:// store is a folder that all operators mount' --set store.url=file:///proofs
refused 'the built-in store needs no credentials' --set store.credentialsSecret=x
refused 'workers reach the built-in store through the operator' --set store.workers=direct
refused 'not used while store.builtIn.persistence.enabled is false' \
    --set store.builtIn.persistence.enabled=false --set store.builtIn.persistence.existingClaim=x
refused 'replicaCount' --set replicaCount=2
refused '/store/url' --set store.url=http://example.org
refused 'operator.backend: with `process`' --set operator.backend=process
refused 'operator.backend: with `process`' --set operator.backend=process --set 'operator.extraArgs={--plugin-arg=x}'
refused '/operator/backend' --set operator.backend=groth16

[[ $failed == 0 ]] && echo 'charts: fine'
exit $failed
