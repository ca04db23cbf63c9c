#!/usr/bin/env bash
# Runs a command under a header and says how long it took, so that a long log
# can be read by its sections: scripts/step.sh NAME COMMAND…
set -euo pipefail

name=${1:?usage: scripts/step.sh NAME COMMAND…}
shift
printf '\n== %s: %s\n' "$name" "$*"
started=$SECONDS
status=0
"$@" || status=$?
if ((status)); then
  printf -- '-- %s FAILED with status %d after %d s\n' "$name" "$status" "$((SECONDS - started))"
else
  printf -- '-- %s: %d s\n' "$name" "$((SECONDS - started))"
fi
exit "$status"
