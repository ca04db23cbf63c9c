#!/usr/bin/env bash
# Runs every Rust test of the workspace, and takes a test that skipped itself
# for a failure: privileged tests announce that with the word SKIPPED. (Examples
# in the documentation are tested by `make docs`: nextest does not run them.)
# Arguments go to the test runner: scripts/rust-tests.sh -E 'test(netns_)'
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export MARGAY_REQUIRE_PRIVILEGED=1
readonly TARGET="${CARGO_TARGET_DIR:-target}"
export MARGAY_BIN_DIR="${MARGAY_BIN_DIR:-$(realpath -m "$TARGET")/debug}"

((EUID == 0)) || { echo "tests: run as root, they build network namespaces" >&2 && exit 1; }

if cargo nextest --version >/dev/null 2>&1; then
  # The configuration keeps the output of passing tests in this file, which lies
  # in the checkout whatever CARGO_TARGET_DIR says.
  record=target/nextest/default/junit.xml
  rm -f "$record"
  cargo nextest run --locked --workspace "$@"
else
  echo "tests: NO cargo nextest HERE (see scripts/packages.sh nextest): falling back to cargo test," >&2
  echo "tests: one test at a time, and a test that hangs hangs for ever" >&2
  record=$TARGET/cargo-test.log
  mkdir -p "$TARGET"
  cargo test --locked --workspace --lib --bins --tests "$@" -- --test-threads=1 --show-output 2>&1 | tee "$record"
fi

if grep -E 'SKIPPED( \(|:)' "$record" >&2; then
  echo "tests: the tests above were skipped, which here is a failure" >&2
  exit 1
fi
