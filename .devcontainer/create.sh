#!/usr/bin/env bash
# Once, when the container is made: what `cargo xtask up` would ask root for.
set -euo pipefail
cd "$(dirname "$0")/.."
sudo apt-get update
# The image's list, and a compiler.
sed '/^#/d' packaging/debian-packages.txt | xargs sudo \
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    gcc libc6-dev
rustup toolchain install stable --profile minimal --component clippy,rustfmt
rustup default stable
cargo xtask build
