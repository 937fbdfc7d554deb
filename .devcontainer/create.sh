#!/usr/bin/env bash
# Once, when the container is made: what `cargo xtask up` would ask root for.
set -euo pipefail
sudo apt-get update
sudo DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    gcc libc6-dev nodejs python3
rustup toolchain install stable --profile minimal --component clippy,rustfmt
rustup default stable
