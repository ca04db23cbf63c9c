#!/usr/bin/env bash
# Fuzzes the BGP speaker with libFuzzer: scripts/fuzz.sh TARGET SECONDS
#
# Needs neither nightly Rust nor cargo-fuzz: the compiler's coverage passes can
# be asked for with stable flags, and without unsafe code in what is fuzzed the
# address sanitizer would have nothing to find. (cargo-fuzz works as well:
# `cargo +nightly fuzz run session --fuzz-dir bgp/fuzz/libfuzzer`.)
#
# What is found on the way is kept outside the checkout, in MARGAY_CACHE; what
# made a target panic is named at the end. `scripts/fuzz.sh TARGET merge` puts
# the fewest inputs with the same coverage into the checked-in corpus.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly TARGET=${1:?which target: $(cd bgp/fuzz/libfuzzer/fuzz_targets && echo *.rs)}
readonly SECONDS_EACH=${2:-60}
readonly CACHE=${MARGAY_CACHE:-$HOME/.cache/margay}/fuzz
readonly HOST=x86_64-unknown-linux-gnu
readonly CORPUS=bgp/fuzz/corpus/$TARGET

# What cargo-fuzz passes. With --target they are not for build scripts.
flags=(
  -Cpasses=sancov-module
  -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
  -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares
  -Cllvm-args=-simplifycfg-branch-fold-threshold=0
  --cfg fuzzing
)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
# The versions of everything that the workspace has, too.
cp Cargo.lock bgp/fuzz/libfuzzer/Cargo.lock
RUSTFLAGS="${flags[*]}" cargo build --quiet --release --target "$HOST" \
  --manifest-path bgp/fuzz/libfuzzer/Cargo.toml --bin "$TARGET"
readonly PROGRAM=$CARGO_TARGET_DIR/$HOST/release/$TARGET

# Longer inputs find nothing that shorter ones do not, and are slower.
growth=100
case $TARGET in
  # A script has to be long before anything happens.
  session) longest=1200 growth=0 ;;
  codec) longest=4200 ;;
  config) longest=2000 ;;
  *) longest=400 ;;
esac
mkdir -p "$CACHE/$TARGET" "$CACHE/found"
common=("-max_len=$longest" "-len_control=$growth" -timeout=20 -rss_limit_mb=2048 "-artifact_prefix=$CACHE/found/$TARGET-")
[[ ! -f bgp/fuzz/$TARGET.dict ]] || common+=("-dict=bgp/fuzz/$TARGET.dict")

if [[ $SECONDS_EACH == merge ]]; then
  merged=$(mktemp -d)
  trap 'rm -rf "$merged"' EXIT
  # One input for each edge reached is enough here; how often it is taken is for the fuzzer to remember.
  "$PROGRAM" "${common[@]}" -set_cover_merge=1 -use_counters=0 "$merged" "$CORPUS" "$CACHE/$TARGET" 2>&1 | tail -n 3
  # Inputs with a name found something once, and stay.
  find "$CORPUS" -type f -regextype posix-extended -regex '.*/[0-9a-f]{40}' -delete
  cp "$merged"/* "$CORPUS"/
  exit
fi
nice -n 15 "$PROGRAM" "${common[@]}" "-max_total_time=$SECONDS_EACH" -print_final_stats=1 "$CACHE/$TARGET" "$CORPUS"
