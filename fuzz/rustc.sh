#!/bin/sh
# The compiler for this workspace's own crates in `cargo xtask fuzz`: what libFuzzer needs to see where
# an input leads. (Stable rustc has no sanitizers, but LLVM's pass for coverage.)
exec "$@" --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
