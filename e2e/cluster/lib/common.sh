# Helpers that every part uses: messages, waiting, and running things in the right namespaces.
# shellcheck shell=bash

die() {
    echo "cluster: $*" >&2
    exit 1
}

# A line of progress, with the seconds since this command began.
say() { printf '[%3d s] %s\n' "$((SECONDS - started))" "$*"; }
started=$SECONDS

# Polls a command until it succeeds. Every wait has an end.
wait_for() { # wait_for SECONDS WHAT COMMAND…
    local limit=$(($1 * wait_factor)) what=$2 end
    end=$((SECONDS + limit))
    shift 2
    until ("$@") >/dev/null 2>&1; do
        ((SECONDS < end)) || die "$what: not within $limit s; logs are in $state/log"
        sleep "$((2 * wait_factor))e-1" # 0.2 s; on a slow machine looking takes more than waiting
    done
}

# Runs commands at the same time; all of them have to succeed.
in_parallel() { # in_parallel 'COMMAND ARGUMENT…'…
    local command job jobs=()
    for command in "$@"; do
        eval "$command" &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do
        wait "$job" || die "failed: one of ${*@Q}"
    done
}

# Runs a command with the network of a node, but the machine's files and processes.
in_network() { # in_network NODE COMMAND…
    local node=$1
    shift
    nsenter --net="/run/netns/$prefix-$node" "$@"
}

# Runs a command inside a node: its network, processes, mounts and host name.
in_node() { # in_node NODE COMMAND…
    local node=$1 pid
    pid=$(node_pid "$node") || die "node $node is not running"
    shift
    nsenter --target "$pid" --net --pid --mount --uts --wd=/ "$@"
}

# A client of the cluster. Only from here can pod and service addresses be reached, and nothing leaves the machine.
kubectl() {
    nsenter --net="/run/netns/$prefix-n1" env KUBECACHEDIR="$state/cache/kubectl" \
        "$bin/kubectl" --kubeconfig "$kubeconfig" "$@"
}

# Whether a process is one of this cluster's. A pid file may be older than the last boot of the machine, and its number
# be somebody else's by now; our processes all carry the state folder in their arguments.
is_ours() { # is_ours PID
    tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" | grep -qF -- "$state/"
}

# The pid of a process that `start_process` started, if it runs.
process_pid() { # process_pid NAME
    local pid
    pid=$(cat "$state/pid/$1" 2>/dev/null) && is_ours "$pid" && echo "$pid"
}

# Starts a process that outlives this script.
start_process() { # start_process NAME COMMAND…
    local name=$1
    shift
    setsid nohup "$@" >>"$state/log/$name.log" 2>&1 </dev/null &
    echo $! >"$state/pid/$name"
}

# Ends a process at once: nothing here is worth a graceful end, and a test of a crash wants none.
kill_process() { # kill_process NAME
    local pid
    if pid=$(process_pid "$1"); then
        kill -9 "$pid" 2>/dev/null || true
        wait_for 10 "end of $1" process_is_gone "$1"
    fi
    rm -f "$state/pid/$1"
}

process_is_gone() { ! process_pid "$1"; }

# The pid of a node's first process, as this machine sees it: the only child of the `unshare` that we started.
node_pid() { # node_pid NODE
    local parent
    parent=$(process_pid "$1") && pgrep --parent "$parent"
}
