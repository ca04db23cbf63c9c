#!/usr/bin/env bash
# The chart without a cluster: it lints; several values give what charts/margay/ci expects; wrong
# values are refused with a sentence; the README of values is that of the values; every metric
# that alerts and dashboard name is one that a program has. With a cluster: `make test-kube
# ONLY=chart` and `make test-cluster`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

readonly CHART=charts/margay
PATH=$(scripts/helm.sh):$PATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HELM_CACHE_HOME=$work/helm HELM_CONFIG_HOME=$work/helm HELM_DATA_HOME=$work/helm

breaches=0
complain() {
  echo "chart-tests: $*" >&2
  breaches=$((breaches + 1))
}

render() {
  helm template margay "$CHART" --namespace margay-system "$@"
}

# Cuts what Helm rendered into files, KIND+NAME each.
cut_up() {
  awk -v folder="$1" '
    function flush() { if (kind != "" && name != "") printf "%s", text > (folder "/" kind "+" name); text = kind = name = "" }
    /^---/ { flush(); next }
    /^kind: / { kind = $2 }
    /^metadata:/ { inside = 1 }
    /^[a-z]/ && !/^metadata:/ { inside = 0 }
    inside && /^  name: / && name == "" { name = $2; gsub(/"/, "", name) }
    { text = text $0 "\n" }
    END { flush() }'
}

# Whether an object has a line, whatever stands before and after it. All of it is read: a reader
# that leaves early would make the pipe fail.
has_line() {
  sed 's/^ *//; s/ *$//' "$1" | grep -xF -- "$2" >/dev/null
}

check_expectations() {
  local case=$1 folder=$2 line object
  while IFS= read -r line; do
    [[ $line && $line != '#'* ]] || continue
    if [[ $line == '!'* ]]; then
      object=${line#!}
      [[ ! -e $folder/${object/\//+} ]] || complain "$case: there is $object, which should not be"
      continue
    fi
    object=${line%%: *} line=${line#*: }
    if [[ ! -e $folder/${object/\//+} ]]; then
      complain "$case: there is no $object"
    elif ! has_line "$folder/${object/\//+}" "$line"; then
      complain "$case: $object has no line: $line"
    fi
  done <"$CHART/ci/$case-expected.txt"
}

check_cases() {
  local values case folder
  for values in "$CHART"/ci/*-values.yaml; do
    case=${values##*/} case=${case%-values.yaml} folder=$work/$case
    mkdir "$folder"
    helm lint --strict --quiet "$CHART" --values "$values" >"$work/lint" 2>&1 ||
      [[ $case == monitoring ]] || complain "$case: $(<"$work/lint")"
    if render --values "$values" --api-versions monitoring.coreos.com/v1 >"$work/$case.yaml" 2>"$work/errors"; then
      cut_up "$folder" <"$work/$case.yaml"
      check_expectations "$case" "$folder"
    else
      complain "$case: $(<"$work/errors")"
    fi
  done
  # Older servers have the older version of the same kind.
  render --kube-version 1.20.2 --show-only templates/controller.yaml >"$work/old.yaml"
  grep -qx 'apiVersion: policy/v1beta1' "$work/old.yaml" ||
    complain "on Kubernetes 1.20 the PodDisruptionBudget is not policy/v1beta1"
}

check_refusals() {
  local line values words
  while IFS= read -r line; do
    [[ $line && $line != '#'* ]] || continue
    values=${line%% | *} words=${line#* | }
    if render --set "$values" >/dev/null 2>"$work/errors"; then
      complain "taken, and should be refused: $values"
    elif ! grep -qF -- "$words" "$work/errors"; then
      complain "$values: refused without the words \"$words\": $(<"$work/errors")"
    fi
  done <"$CHART/ci/refusals.txt"
}

# A metric that alerts or dashboard name and no program has would be a panel that stays empty.
check_metrics() {
  local name
  while read -r name; do
    name=${name#margay_}
    grep -qF "\"${name%_total}\"" agent/src/health.rs agent/src/controller/health.rs ||
      complain "no program has the metric margay_$name"
  done < <(grep -ohE 'margay_[a-z0-9_]+' "$CHART"/files/* | sort -u)
}

check_cases
check_refusals
check_metrics
scripts/chart-readme.sh --check || complain "charts/margay/README.md is stale: make generate"
((breaches == 0)) || { echo "chart-tests: $breaches to put right" >&2 && exit 1; }
echo "chart-tests: $(find "$CHART/ci" -name '*-values.yaml' | wc -l) values files and $(grep -cv '^#' "$CHART/ci/refusals.txt") refusals are as they should be"
