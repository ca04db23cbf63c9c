#!/usr/bin/env bash
# Brings a real Kubernetes control plane into MARGAY_CACHE, once: etcd as Debian
# built it, and kube-apiserver, kube-controller-manager, kube-scheduler,
# kube-proxy, kubelet and kubectl from Debian's source package, which carries all
# they need. Nothing of it is installed on the machine, and nothing is
# downloaded but Debian's packages.
#
#   scripts/kube-binaries.sh           prints the folder with the programs
#   scripts/kube-binaries.sh --path    the same, or exit 1 when they are not there yet
#
# Takes about six minutes on two processors and 1.5 GB of disk, most of which is
# given back; the programs themselves are 400 MB. An interrupted run leaves
# nothing that looks complete, and two runs at once wait for each other.
#
#   MARGAY_CACHE          where the programs are kept (~/.cache/margay)
#   MARGAY_KUBE_PROGRAMS  which to build, instead of all: "kube-apiserver kubectl"
set -euo pipefail
exec </dev/null

readonly CACHE="${MARGAY_CACHE:-${HOME:-/root}/.cache/margay}/kube"
# The source package of Debian 12 and the Go it is built with there.
readonly SUITE=bookworm
readonly SOURCE=kubernetes
readonly GO=1.19
# What the servers call themselves; charts ask for it.
readonly RELEASE=1.20.2
readonly ALL="kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl"
# Changed when the way they are built changes, so that an old cache is not taken for a new one.
readonly RECIPE=2
readonly FOLDER=$CACHE/v$RELEASE-$RECIPE

say() { echo "kube-binaries: $*" >&2; }
die() {
  say "$*"
  exit 1
}
usage() { sed -n '2,/^set -e/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

# --- packages --------------------------------------------------------------

# apt-get with lists, sources and cache of its own: the machine's own stay as
# they are, though they may name no source packages.
apt_private() {
  local name=$1
  shift
  "$name" -q -o Dir::Etc::SourceList="$work/apt/sources.list" -o Dir::Etc::SourceParts=- \
    -o Dir::State::Lists="$work/apt/lists" -o Dir::Cache="$work/apt/cache" \
    -o Dir::State::Status="$work/apt/status" -o APT::Sandbox::User=root \
    -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}

# The archives this machine already uses, with their source packages.
private_apt() {
  local archives
  mkdir -p "$work"/apt/{lists,cache/archives}/partial
  : >"$work/apt/status"
  # shellcheck disable=SC2016 # apt expands
  archives=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
    sort -u | awk -v suite="$SUITE" '$3 == "main" && $4 == "Debian" && ($2 == suite || $2 == suite "-security") { print $1, $2, $3 }')
  # A machine whose lists were never fetched knows no codenames: then only apt-get update helps.
  [[ -n $archives ]] || return 1
  while read -r archive; do
    printf '%s %s\n' deb "$archive" deb-src "$archive"
  done <<<"$archives" | sed 's|^\(deb[^ ]*\)|\1 [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]|' >"$work/apt/sources.list"
  apt_private apt-get update >"$work/log" 2>&1 || fail "apt-get update"
}

fetch() {
  private_apt || { ((EUID == 0)) && apt-get -q update >/dev/null 2>&1 && private_apt; } ||
    die "found no Debian $SUITE archive in this machine's apt sources: run apt-get update as root"
  mkdir "$work/debs"
  (cd "$work/debs" && apt_private apt-get download \
    "golang-$GO-go" "golang-$GO-src" golang-github-modern-go-reflect2-dev etcd-server etcd-client) \
    >"$work/log" 2>&1 || fail "the download of Go and etcd"
  (cd "$work" && apt_private apt-get source --download-only "$SOURCE") \
    >"$work/log" 2>&1 || fail "the download of $SOURCE's source"
  local deb
  for deb in "$work"/debs/*.deb; do
    dpkg -x "$deb" "$work/root"
  done
}

# --- building --------------------------------------------------------------

# Go of the unpacked packages: its folder is made of links into /usr/share.
go_run() {
  env -i PATH="$PATH" HOME="$work" GOROOT="$work/go" GOPATH="$work/gopath" GOCACHE="$work/gocache" \
    GO111MODULE=off GOPROXY=off GOFLAGS= GOTOOLCHAIN=local CGO_ENABLED=0 nice -n 15 "$work/go/bin/go" "$@"
}

lay_out_go() {
  local lib=$work/root/usr/lib/go-$GO share=$work/root/usr/share/go-$GO entry
  mkdir "$work/go"
  for entry in "$share"/* "$lib"/*; do
    [[ -e $entry ]] && ln -sf "$entry" "$work/go/$(basename "$entry")"
  done
  # Links that name /usr are good only on a machine with the packages installed.
  rm -f "$work/go/pkg"
  mkdir -p "$work/go/pkg"
  for entry in "$share"/pkg/* "$lib"/pkg/*; do
    [[ -e $entry ]] && ln -sfn "$entry" "$work/go/pkg/$(basename "$entry")"
  done
  go_run version >"$work/log" 2>&1 || fail "the start of Go $GO"
}

lay_out_source() {
  local reflect2=vendor/github.com/modern-go/reflect2
  tree=$work/gopath/src/k8s.io/kubernetes
  mkdir -p "$tree"
  tar -xzf "$work"/"$SOURCE"_*.orig.tar.gz -C "$tree" --strip-components=1
  # The vendored copy and a Go from 1.18 on: every program dies with "fatal error: fault" as soon
  # as it encodes certain maps.
  rm -rf "${tree:?}/$reflect2"
  cp -r "$work/root/usr/share/gocode/src/github.com/modern-go/reflect2" "$tree/$reflect2"
  # With a Go from 1.16 on the second half of this condition holds for an empty string, which the
  # server would then refuse as null in every custom resource.
  local copies
  copies=$(grep -rl --include=type.go 'DeepEqual(reflect.Zero' "$tree/vendor")
  [[ $copies == *k8s.io/kube-openapi* ]] || die "the source of $SOURCE is not the one known: ${copies:-nothing to repair}"
  xargs sed -i 's/ || reflect.DeepEqual(reflect.Zero(reflect.TypeOf(data)), reflect.ValueOf(data))//' <<<"$copies"
}

# The one file that is generated and not in the package. `make generated_files`
# does not work with this Go; the generator itself does.
generate_openapi() {
  local packages
  (cd "$tree" && go_run build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen) \
    >"$work/log" 2>&1 || fail "the build of openapi-gen"
  packages=$(cd "$tree" && grep -rl --include='*.go' '+k8s:openapi-gen=' pkg staging/src/k8s.io |
    grep -v -e /_examples/ -e _test.go -e zz_generated -e /testdata/ | xargs -n 1 dirname | sort -u |
    sed -e 's|^staging/src/|k8s.io/kubernetes/vendor/|' -e 's|^pkg/|k8s.io/kubernetes/pkg/|' | paste -sd,)
  (cd "$tree" && env -i PATH="$work/go/bin:$PATH" HOME="$work" GOROOT="$work/go" GOPATH="$work/gopath" \
    GOCACHE="$work/gocache" GO111MODULE=off GOPROXY=off nice -n 15 "$work/openapi-gen" \
    --go-header-file hack/boilerplate/boilerplate.generatego.txt -O zz_generated.openapi \
    -p k8s.io/kubernetes/pkg/generated/openapi -i "$packages" -r "$work/openapi-report" \
    --output-base "$work/gopath/src") >"$work/log" 2>&1 || fail "the generation of the OpenAPI definitions"
}

build() {
  local package flags=(-s -w) program targets=()
  for package in component-base client-go/pkg; do
    flags+=(-X "k8s.io/kubernetes/vendor/k8s.io/$package/version.gitVersion=v$RELEASE"
      -X "k8s.io/kubernetes/vendor/k8s.io/$package/version.gitMajor=1"
      -X "k8s.io/kubernetes/vendor/k8s.io/$package/version.gitMinor=20")
  done
  for program in $programs; do
    targets+=("./cmd/$program")
  done
  # All in one go: what they share is compiled once.
  (cd "$tree" && go_run build -trimpath -ldflags "${flags[*]}" -o "$work/new/" "${targets[@]}") \
    >"$work/log" 2>&1 || fail "the build"
}

fail() {
  tail -n 15 "$work/log" >&2
  die "$1 failed (its last words are above)"
}

missing() {
  local program
  for program in etcd etcdctl $programs; do
    [[ -x $FOLDER/$program ]] || echo "$program"
  done
}
complete() { [[ -z $(missing) ]]; }

make_all() {
  local started=$SECONDS
  # What an earlier, narrower run has built stays.
  programs=$(comm -12 <(tr ' ' '\n' <<<"$programs" | sort) <(missing | sort) | paste -sd' ')
  say "building a control plane ($programs) into $FOLDER, about six minutes, once"
  work=$(mktemp -d "$CACHE/build.XXXXXX")
  trap 'chmod -R u+w "$work" && rm -rf "$work"' EXIT
  fetch
  lay_out_go
  lay_out_source
  mkdir "$work/new"
  cp "$work"/root/usr/bin/{etcd,etcdctl} "$work/new/"
  [[ " $programs " != *" kube-apiserver "* ]] || generate_openapi
  [[ -z $programs ]] || build
  mkdir -p "$FOLDER"
  # Each appears whole: it is moved, and within one file system.
  mv -f "$work"/new/* "$FOLDER/"
  say "built in $((SECONDS - started)) s"
}

case ${1:-} in
  -h | --help) usage && exit ;;
  --path | "") ;;
  *) die "unknown option $1 (--help lists them)" ;;
esac
programs=${MARGAY_KUBE_PROGRAMS:-$ALL}
for program in $programs; do
  [[ " $ALL " == *" $program "* ]] || die "MARGAY_KUBE_PROGRAMS names $program: must be some of $ALL"
done
if ! complete; then
  [[ ${1:-} != --path ]] || exit 1
  mkdir -p "$CACHE"
  exec {lock}>"$CACHE/lock"
  flock "$lock"
  complete || make_all
fi
echo "$FOLDER"
