#!/bin/sh
# Cargo calls this in the compiler's place for the workspace's own crates
# (RUSTC_WORKSPACE_WRAPPER): they get the counters that libFuzzer reads. What they
# depend on is taken from the ordinary build, so that fuzzing costs no second one.
# The passes are LLVM's and work with a stable compiler; the sanitizers do not,
# and outside of the sandbox's `sys` there is no unsafe code for them to look at.
set -eu
case " $* " in
*" build_script_build "* | *" proc-macro "* | *" --print"* | *" -vV "*) exec "$@" ;;
esac
exec "$@" --cfg fuzzing \
    -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
