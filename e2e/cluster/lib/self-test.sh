# Checks what the end-to-end tests rely on, so that their failures are Arborist's and not the cluster's.
# shellcheck shell=bash

in_test() { kubectl --namespace self-test "$@"; }

command_self_test() {
    require_up
    require_node n2
    delete_test
    trap 'self_test_failed $?' EXIT
    kubectl create namespace self-test >/dev/null
    kubectl label namespace self-test pod-security.kubernetes.io/enforce=restricted >/dev/null
    wait_for 20 "service account" in_test get serviceaccount default # without it no pod is let in
    kubectl apply -f "$here/manifests/self-test.yaml" >/dev/null
    check "DNS, service address, traffic between nodes, volume" pod_says client .status.phase Succeeded
    check "two pods of 32 cores and 64 GiB run on one node" large_pods_run
    check "memory limit: OOMKilled" pod_says hog '.status.containerStatuses[0].state.terminated.reason' OOMKilled
    check "token of the right audience names its pod" token_review arborist "true token"
    check "token of another audience is refused" token_review other "false -"
    trap - EXIT
    delete_test
    say "self-test passed"
}

check() { # check WHAT COMMAND…
    wait_for 40 "self-test: $1" "${@:2}"
    say "ok: $1"
}

pod_says() { # pod_says POD PATH VALUE
    [[ $(in_test get pod "$1" -o json | jq -r "$2") == "$3" ]]
}

large_pods_run() {
    pod_says large-1 .status.phase Running && pod_says large-2 .status.phase Running
}

# What the API server says about the token that a pod was given.
token_review() { # token_review AUDIENCE ANSWER
    local token review
    token=$(in_test logs token)
    [[ -n $token ]] || return 1
    review=$(jq -n --arg token "$token" --arg audience "$1" '{apiVersion: "authentication.k8s.io/v1",
        kind: "TokenReview", spec: {token: $token, audiences: [$audience]}}' | kubectl create -f - -o json)
    [[ $(jq -r '[.status.authenticated // false,
        .status.user.extra["authentication.kubernetes.io/pod-name"][0] // "-"] | join(" ")' <<<"$review") == "$2" ]]
}

delete_test() {
    kubectl delete namespace self-test --ignore-not-found --wait --timeout=60s >/dev/null
    command_storage reset >/dev/null
}

self_test_failed() { # self_test_failed EXIT-CODE
    [[ $1 != 0 ]] || return 0
    in_test get pods -o wide >&2
    in_test get events --sort-by .lastTimestamp >&2
}
