#!/usr/bin/env bash
# Builds the programs that need no shared library: the CNI plugin, which the
# container runtime executes on the node's own system, whatever C library that
# has (or has not), and the speaker alone. A program without libraries to load
# starts a third sooner and holds no pages of them; linked to a fixed address,
# it need not relocate itself, which would be an eighth of the plugin's start.
#
#   scripts/static.sh PROFILE PROGRAMS
#
# They are written to PROGRAMS/static. Those of a release are of the profile
# `small` (see Cargo.toml).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

(($# == 2)) || {
  echo "usage: scripts/static.sh PROFILE PROGRAMS" >&2
  exit 1
}
profile=$1 programs=$2
[[ $profile != release ]] || profile=small
folder=$profile
[[ $profile != dev ]] || folder=debug
for program in margay-cni/margay-cni margay-speaker/margay-bgp; do
  package=${program%/*} name=${program#*/}
  # A folder of its own: with other flags, the same name would be built anew each time by turns.
  cargo rustc --quiet --locked --package "$package" --bin "$name" --profile "$profile" \
    --target-dir "$programs/static/build" \
    -- -C target-feature=+crt-static -C relocation-model=static
  cp "$programs/static/build/$folder/$name" "$programs/static/$name"
done
