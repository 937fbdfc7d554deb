#!/bin/sh
# Gives every crate whose manifest is below the current directory empty
# sources, so that cargo can compile the dependencies before it has seen a line
# of ours: an image is then built anew in the time that our own crates take.
set -eu
for manifest in crates/*/Cargo.toml fuzz/Cargo.toml lab/Cargo.toml xtask/Cargo.toml; do
    crate=${manifest%/Cargo.toml}
    mkdir -p "$crate/src"
    : >"$crate/src/lib.rs"
    # Whatever the manifest names has to be there, or cargo does not read it.
    {
        sed -n 's/^\(path\|build\) = "\(.*\.rs\)"$/\2/p' "$manifest"
        sed -n '/^\[\[bench\]\]/,/^$/s/^name = "\(.*\)"$/benches\/\1.rs/p' "$manifest"
        case $crate in lab | xtask) echo src/main.rs ;; esac
    } | while read -r file; do
        mkdir -p "$crate/$(dirname "$file")"
        echo 'fn main() {}' >"$crate/$file"
    done
done
