#!/usr/bin/env bash
# All numbers of docs/performance.md, each as a ratio to its target. Some 15 minutes on 2 cores; leave the machine alone
# meanwhile. `bench/run.sh NAME…` runs only these: schedule, kills, books, dispatch, demo, block-size
# (five minutes, and 3 GB below out/; not among those that run without a name).
set -euo pipefail
cd "$(dirname "$0")/.."

what=("$@")
[ ${#what[@]} -gt 0 ] || what=(schedule kills books dispatch demo)

# Each worker is a connection, so a descriptor on either side.
ulimit -n "$(ulimit -Hn)"
cargo build --release --locked -p arborist-operator -p arborist-worker -p arborist-bench

for name in "${what[@]}"; do
  echo
  echo "== $name"
  case $name in
    schedule) target/release/schedule ;;
    kills) target/release/restart_sim ;;
    books) target/release/books ;;
    dispatch) target/release/dispatch ;;
    demo)
      rm -rf out/bench-demo
      target/release/demo_block --out out/bench-demo
      ;;
    block-size)
      rm -rf out/bench-block-size
      target/release/block_size --out out/bench-block-size
      rm -rf out/bench-block-size
      ;;
    *)
      echo "unknown benchmark '$name': schedule, kills, books, dispatch, demo, block-size" >&2
      exit 2
      ;;
  esac
done
