#!/bin/sh
# Cargo calls rustc by this for our own crates: with the coverage that leads libFuzzer, and without what needs a nightly
# compiler. Other crates are built as for the tests.
exec "$@" --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
