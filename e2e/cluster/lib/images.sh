# Images of the cluster itself, as OCI archives: no daemon, no network.
# shellcheck shell=bash

image_names=(pause box coredns)

# An archive's path: its name changes with everything that could change its content.
image_archive() { # image_archive NAME
    local hash
    hash=$({
        cat "$here/../../hack/mkoci.py" "$here/lib/images.sh" "$here/images/"*.c "$(type -P busybox)"
        tool_folder coredns
    } | sha256sum | cut -c1-16)
    echo "$cache/images/$1-$hash.tar"
}

build_image() { # build_image NAME
    local out work item=()
    out=$(image_archive "$1")
    [[ ! -f $out ]] || return 0
    mkdir -p "$cache/images"
    work=$(mktemp -d)
    case $1 in
        pause)
            musl-gcc -static -Os -s -o "$work/pause" "$here/images/pause.c"
            write_image "$out" pause /pause --user 65532:65532 "pause=$work/pause" ;;
        box) # a shell, for tests
            musl-gcc -static -Os -s -o "$work/hog" "$here/images/hog.c"
            mapfile -t item < <(busybox --list | grep -vx busybox | sed 's|.*|bin/&->busybox|')
            write_image "$out" box /bin/sh "bin/busybox=$(type -P busybox)" "bin/hog=$work/hog" "${item[@]}" ;;
        coredns)
            write_image "$out" coredns /coredns "coredns=$(tool_folder coredns)/coredns" ;;
    esac
    rm -rf "$work"
}

write_image() { # write_image OUT NAME ENTRYPOINT ARGUMENT…
    python3 "$here/../../hack/mkoci.py" "$1" "localhost/$2:1" --entrypoint "$3" "${@:4}"
}

# Gives a node an image. The archive goes through standard input: the node doesn't see all of the machine's folders.
import_image() { # import_image NODE ARCHIVE
    in_node "$1" ctr --namespace k8s.io images import - <"$2" >/dev/null
}

import_images() { # import_images NODE ARCHIVE…
    local archive
    for archive in "${@:2}"; do
        import_image "$1" "$archive"
    done
}

command_load() { # command_load ARCHIVE…
    local archive node imports=()
    [[ $# -gt 0 ]] || die "usage: cluster load IMAGE.tar…"
    require_up
    for archive in "$@"; do
        [[ -f $archive ]] || die "no such file: $archive"
    done
    for node in "${nodes[@]}"; do
        imports+=("import_images $node $(printf '%q ' "$@")")
    done
    in_parallel "${imports[@]}"
    echo "loaded on ${nodes[*]}: $*"
}
