#!/usr/bin/env bash
# How long the demo takes from nothing to its last ping, over several runs:
# scripts/bench-lab.sh MARGAYCTL [RUNS]. One line a run, then the spread.
set -euo pipefail

ctl=${1:?usage: scripts/bench-lab.sh MARGAYCTL [RUNS]}
runs=${2:-5}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

echo "Linux $(uname -r), $(nproc) processors, $("$ctl" --version)"
times=()
for ((run = 1; run <= runs; run++)); do
  started=$EPOCHREALTIME
  if ! "$ctl" lab demo >"$log" 2>&1 </dev/null; then
    tail -n 30 "$log" >&2
    echo "bench-lab: run $run failed (the end of its output is above)" >&2
    exit 1
  fi
  times+=("$(awk -v from="$started" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.2f", to - from }')")
  echo "run $run: ${times[-1]} s"
done
printf '%s\n' "${times[@]}" | sort -n |
  awk '{ t[NR] = $1 } END { printf "least %s s, median %s s, most %s s\n", t[1], t[int((NR + 1) / 2)], t[NR] }'
