#!/usr/bin/env bash
# Says which package is missing before a build fails with something less clear.
set -euo pipefail

missing=0
need() { # need COMMAND WHAT-TO-DO
  command -v "$1" >/dev/null && return
  echo "missing: $1. $2" >&2
  missing=1
}

need cargo "Install Rust with rustup (https://rustup.rs); rust-toolchain.toml picks the version."
need cc "Install a C compiler: Debian and Ubuntu: apt-get install gcc libc6-dev; Fedora: dnf install gcc."
exit "$missing"
