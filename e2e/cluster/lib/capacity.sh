# Makes a node's kubelet report a large machine, so that the real requests of the samples (32 cores, 64 GB) are
# scheduled and run. The kubelet reads the processors below /sys/devices/system and the memory in /proc/meminfo; a node
# sees these files instead. Containers still have the machine's real processors and memory.
# shellcheck shell=bash

make_machine() {
    local cpu folder machine=$state/machine last=$((node_cpus - 1)) kib=$((node_memory_gib << 20))
    mkdir -p "$machine/cpu" "$machine/node/node0"
    for ((cpu = 0; cpu < node_cpus; cpu++)); do
        for folder in "$machine/cpu/cpu$cpu" "$machine/node/node0/cpu$cpu"; do
            make_processor "$folder" "$cpu"
        done
    done
    echo "0-$last" | tee "$machine/cpu/"{online,possible,present} >"$machine/node/node0/cpulist"
    echo 0 | tee "$machine/node/"{online,possible} >/dev/null
    echo 10 >"$machine/node/node0/distance"
    printf 'Node 0 %s: %d kB\n' MemTotal $kib MemFree $((kib - (4 << 20))) >"$machine/node/node0/meminfo"
    sed -e "s/^MemTotal:.*/MemTotal: $kib kB/" -e "s/^MemAvailable:.*/MemAvailable: $((kib - (4 << 20))) kB/" \
        /proc/meminfo >"$machine/meminfo"
}

make_processor() { # make_processor FOLDER NUMBER
    mkdir -p "$1/topology" "$1/cache"
    echo 1 >"$1/online"
    echo "$2" | tee "$1/topology/core_id" >"$1/topology/thread_siblings_list"
    echo 0 | tee "$1/topology/"{physical_package_id,book_id} >"$1/topology/drawer_id"
}
