#!/usr/bin/env bash
# Installs the Debian packages that e2e/cluster needs. Only what is missing is installed, no service is started or
# left enabled, and a second run does nothing. Needs root when something is missing.
set -euo pipefail

# command:package. A command that is there already is good enough, wherever it came from.
needs=(
    etcd:etcd-server
    containerd:containerd
    runc:runc
    iptables:iptables
    nft:nftables
    ip:iproute2
    conntrack:conntrack
    busybox:busybox-static
    musl-gcc:musl-tools
    openssl:openssl
    jq:jq
    ps:procps
    nsenter:util-linux
    python3:python3
)
cni_plugins=/usr/lib/cni:containernetworking-plugins
guard=/usr/sbin/policy-rc.d

missing_packages() {
    local need
    for need in "${needs[@]}"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${need%%:*}" >/dev/null || echo "${need#*:}"
    done
    [[ -x ${cni_plugins%%:*}/bridge ]] || echo "${cni_plugins#*:}"
}

# Debian starts a service as its package is installed, unless this script says 101. etcd and containerd of the
# machine are none of our business: the cluster starts its own. The guard goes again, and one that was there stays.
install_packages() { # install_packages PACKAGE…
    if [[ ! -e $guard ]]; then
        trap 'rm -f "$guard"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$guard"
        chmod +x "$guard"
    elif ! grep -q 'exit 101' "$guard"; then
        echo "$guard exists and may let services start: look at it, then install by hand: $*" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "$@"
}

# Nor shall they start at the next boot, where systemd runs this machine.
disable_services() { # disable_services PACKAGE…
    local package service
    [[ -d /run/systemd/system ]] || return 0
    for package in "$@"; do
        for service in $(dpkg-query -L "$package" | sed -n 's|.*/systemd/system/\([^/@]*\.service\)$|\1|p'); do
            systemctl disable --quiet "$service"
        done
    done
}

mapfile -t missing < <(missing_packages)
if [[ ${#missing[@]} == 0 ]]; then
    echo "nothing is missing"
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "this is no Debian or Ubuntu; what is missing, by its Debian name: ${missing[*]}" >&2
    exit 1
fi
if [[ $EUID != 0 ]]; then
    echo "as root: $0 (missing: ${missing[*]})" >&2
    exit 1
fi
install_packages "${missing[@]}"
disable_services "${missing[@]}"
echo "installed: ${missing[*]}"
