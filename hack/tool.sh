#!/usr/bin/env bash
# tool.sh NAME [--built]: prints where a tool of the pinned version is: helm or kubeconform (built when it is not there, from
# Go modules, unless --built), or swagger, Kubernetes' OpenAPI of the version that the test cluster runs.
set -euo pipefail
here=$(cd "$(dirname "$0")/../e2e/cluster" && pwd)
# shellcheck source=/dev/null
source "$here/lib/settings.sh"
# shellcheck source=/dev/null
source "$here/lib/build.sh"

case $1 in
    swagger)
        cd "$here/tools/kubernetes"
        go_command mod download k8s.io/kubernetes
        echo "$(go_command list -m -f '{{.Dir}}' k8s.io/kubernetes)/api/openapi-spec/swagger.json" ;;
    *)
        program=$(tool_folder "$1")/$1
        [[ -x $program || ${2:-} == --built ]] || "$here/cluster" build "$1" >&2
        [[ ! -x $program ]] || echo "$program" ;;
esac
