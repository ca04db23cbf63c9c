#!/usr/bin/env bash
# Builds the CNI plugin as a program that needs no shared library: the container
# runtime executes it on the node's own system, whatever C library that has (or
# has not), and a program without libraries to load starts a third sooner. It is
# linked to a fixed address: relocating itself would be an eighth of its start.
#
#   scripts/plugin.sh PROFILE PROGRAMS
#
# It is written to PROGRAMS/static/margay-cni.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

(($# == 2)) || {
  echo "usage: scripts/plugin.sh PROFILE PROGRAMS" >&2
  exit 1
}
profile=$1 programs=$2
# A folder of its own: with other flags, the same name would be built anew each time by turns.
cargo rustc --quiet --locked -p margay-cni --bin margay-cni --profile "$profile" \
  --target-dir "$programs/static/build" \
  -- -C target-feature=+crt-static -C relocation-model=static
folder=$profile
[[ $profile == dev ]] && folder=debug
cp "$programs/static/build/$folder/margay-cni" "$programs/static/margay-cni"
