#!/usr/bin/env bash
# The figures of a lab, over several labs: scripts/bench-lab.sh MARGAYCTL [RUNS]. Each run is a
# lab from nothing; within one, each time is measured 31 times.
set -euo pipefail

ctl=${1:?usage: scripts/bench-lab.sh MARGAYCTL [RUNS]}
runs=${2:-5}

echo "Linux $(uname -r), $(nproc) processors, $("$ctl" --version), release build, $runs labs"
for ((run = 1; run <= runs; run++)); do
  "$ctl" lab bench --name bench --repeats 31 -o json </dev/null
done | jq -rs '
  def middle: sort | .[length / 2 | floor];
  def row(name; unit; values): (values | sort) as $v
    | "| \(name) | \($v | middle) \(unit) | \($v[0]) | \($v[-1]) | \($v | length) |";
  "| | median | least | most | n |", "|---|---|---|---|---|",
  row("block written → route in a remote kernel"; "ms"; [.[].routeLatencyMs[]]),
  row("CNI ADD"; "ms"; [.[].cniAddMs[]]),
  row("CNI DEL"; "ms"; [.[].cniDelMs[]]),
  row("memory of an agent"; "MiB"; [.[].agentRssKib[] / 1024 * 10 | round / 10]),
  row("memory of the store"; "MiB"; [.[].storeRssKib / 1024 * 10 | round / 10])'
