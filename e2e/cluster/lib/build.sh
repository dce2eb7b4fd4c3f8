# Binaries from Go modules: tools/NAME/go.mod says what is built, go.sum that it is what it should be.
# shellcheck shell=bash

# Linker flags of a tool. Without them Kubernetes calls itself v0.0.0 and clients refuse to talk to it.
linker_flags() { # linker_flags TOOL
    local base=k8s.io/component-base/version version=$kubernetes_version minor
    minor=${version#v1.} minor=${minor%%.*}
    case $1 in
        kubernetes)
            echo "-s -w -X $base.gitVersion=$version -X $base.gitMajor=1 -X $base.gitMinor=$minor" \
                "-X $base.gitTreeState=clean -X $base.buildDate=2026-01-01T00:00:00Z" \
                "-X k8s.io/client-go/pkg/version.gitVersion=$version" ;;
        helm) echo "-s -w -X helm.sh/helm/v4/internal/version.version=$(module_version helm.sh/helm/v4 helm)" ;;
        *) echo "-s -w" ;;
    esac
}

# The version of a module as a tool's go.mod has it.
module_version() { # module_version MODULE TOOL
    awk -v module="$1" '{ sub(/^require /, "") } $1 == module { print $2; exit }' "$here/tools/$2/go.mod"
}

# The packages that the `tool` lines of a go.mod name.
tool_packages() { # tool_packages TOOL
    awk '$1 == "tool" && $2 != "(" { print $2 } $1 == "tool" && $2 == "(" { inside = 1; next }
         inside && $1 == ")" { inside = 0 } inside { print $1 }' "$here/tools/$1/go.mod"
}

# The folder that holds a tool's binaries: its name changes with everything that could change them.
tool_folder() { # tool_folder TOOL
    local hash
    hash=$({ cat "$here/tools/$1/go.mod" "$here/tools/$1/go.sum"; go_command version; linker_flags "$1"; } |
        sha256sum | cut -c1-16)
    echo "$cache/bin/$1-$hash"
}

# The toolchain of this machine, static binaries, no version control stamps: the same bytes every time.
go_command() { env "${go_environment[@]}" go "$@"; }

build_tool() { # build_tool TOOL
    local folder packages from=$SECONDS
    folder=$(tool_folder "$1")
    if [[ -d $folder ]]; then
        echo "$1: built before, $folder"
        return
    fi
    mapfile -t packages < <(tool_packages "$1")
    # Into a folder of its own and then renamed: an interrupted build leaves nothing that looks finished.
    rm -rf "$folder.new"
    mkdir "$folder.new"
    (cd "$here/tools/$1" &&
        go_command build -mod=readonly -trimpath -ldflags "$(linker_flags "$1")" -o "$folder.new/" "${packages[@]}")
    mv "$folder.new" "$folder"
    echo "$1: built in $((SECONDS - from)) s, $folder"
}

command_build() { # command_build [TOOL…]
    local tool
    require_go
    [[ $cache == /* ]] || die "ARBORIST_CACHE is an absolute path"
    mkdir -p "$cache/bin"
    for tool in "${@:-${all_tools[@]}}"; do
        [[ -f $here/tools/$tool/go.mod ]] || die "no tool named $tool; there are: ${all_tools[*]}"
        # One build of a tool at a time; the second finds what the first has built.
        (flock 9 && build_tool "$tool") 9>"$cache/bin/$tool.lock"
    done
}
