# Cgroups of the nodes: a folder of its own in every hierarchy, below which its kubelet stays.
# shellcheck shell=bash

# Version 2 only, as systemd arranges it by default. What has both is used as version 1: the controllers are there.
has_cgroup2() { [[ $(stat -f -c %T /sys/fs/cgroup) == cgroup2fs ]]; }

# What a kubelet asks for on version 2. It also wants hugetlb if the kernel has it.
cgroup2_controllers=(cpu cpuset memory pids)

# The hierarchies of this machine. Version 1: one for each controller. Version 2: one for all.
cgroup_roots() { awk '$3 ~ /^cgroup2?$/ && $2 ~ "^/sys/fs/cgroup(/|$)" { print $2 }' /proc/mounts; }

make_cgroups() { # make_cgroups NODE
    local root
    for root in $(cgroup_roots); do
        mkdir -p "$root/$prefix-$1"
    done
    if has_cgroup2; then
        fill_cgroup2 "/sys/fs/cgroup/$prefix-$1"
    else
        fill_cpuset "/sys/fs/cgroup/cpuset/$prefix-$1"
    fi
}

fill_cpuset() { # fill_cpuset FOLDER
    local file
    for file in cpuset.cpus cpuset.mems; do
        cat "/sys/fs/cgroup/cpuset/$file" >"$1/$file" # a new cpuset is empty, and nothing can run in it
    done
    echo 1 >"$1/cgroup.clone_children"
    mkdir -p "$1/kubepods" # before the kubelet makes it: see node-init.sh
    echo 1 >"$1/kubepods/cgroup.clone_children"
}

# A folder has the controllers that the one above passes on.
fill_cgroup2() { # fill_cgroup2 FOLDER
    pass_controllers_on /sys/fs/cgroup
    pass_controllers_on "$1"
    # With all its controllers kubepods is as a kubelet wants it, so that it makes nothing. It still tries to write the
    # processors that it believes in into cpuset.cpus, and the kernel refuses. No file can lie over that one: the
    # kubelet opens no cgroup file behind a mount. It says so in an event once a minute and carries on; kubepods keeps
    # all processors that the machine has.
    mkdir -p "$1/kubepods"
}

pass_controllers_on() { # pass_controllers_on FOLDER
    local controller
    for controller in "${cgroup2_controllers[@]}" hugetlb; do
        ! has_controller "$1" "$controller" || echo "+$controller" >"$1/cgroup.subtree_control"
    done
}

has_controller() { grep -qw "$2" "$1/cgroup.controllers"; } # has_controller FOLDER CONTROLLER

# The topmost folder belongs to the whole machine. `down` needs to know what it passed on before.
save_controllers() {
    ! has_cgroup2 || cat /sys/fs/cgroup/cgroup.subtree_control >"$state/controllers.before"
}

# Switches off what we, the kubelets and runc have switched on there, unless the machine was booted since. The kernel
# refuses where another folder passes a controller on by now: then it stays.
restore_controllers() {
    [[ -f $state/controllers.before ]] && same_boot || return 0
    local controller
    for controller in $(</sys/fs/cgroup/cgroup.subtree_control); do
        grep -qw "$controller" "$state/controllers.before" ||
            echo "-$controller" 2>/dev/null >/sys/fs/cgroup/cgroup.subtree_control || true
    done
}

# The kernel lets a folder go a moment after its last process.
remove_cgroups() { # remove_cgroups NODE
    local root
    for root in $(cgroup_roots); do
        wait_for 20 "removal of $root/$prefix-$1" remove_cgroup "$root/$prefix-$1"
    done
}

remove_cgroup() { # remove_cgroup FOLDER
    [[ -d $1 ]] || return 0
    find "$1" -depth -type d -exec rmdir {} +
}
