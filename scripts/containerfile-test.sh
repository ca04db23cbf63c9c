#!/usr/bin/env bash
# Builds the Containerfile with buildah, which needs no daemon, and compares what comes out with
# the image of scripts/image.sh: every file, its mode and owner, and how the image is started.
#
#   scripts/containerfile-test.sh PROGRAMS
#
# PROGRAMS is the folder that scripts/image.sh takes: that the programs can be built in the
# container, too, is not tried, nor is the base image from a registry.
# Nothing is fetched: the base is an empty image that sees this machine's programs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

die() {
  echo "containerfile: $*" >&2
  exit 1
}

(($# == 1)) || die "usage: scripts/containerfile-test.sh PROGRAMS"
((EUID == 0)) || die "buildah mounts: run it as root"
programs=$(realpath "$1")
work=$(mktemp -d)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
readonly BASE=localhost/base IMAGE=localhost/margay:test
readonly -a STORE=(--root "$work/store" --runroot "$work/run" --storage-driver vfs)

buildah_quietly() {
  buildah "${STORE[@]}" "$@" >"$work/log" 2>&1 || {
    tail -n 20 "$work/log" >&2
    die "buildah ${1} failed"
  }
}

# What the engine holds is mounted as long as it is looked at.
end() {
  [[ -z ${mounted:-} ]] || buildah "${STORE[@]}" umount "$mounted" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap end EXIT

# A Debian that is this machine's, without a copy of it: folders for the mounts below.
make_base() {
  local base=$work/base container
  mkdir -p "$base"/{usr,etc,var/lib/dpkg,proc,sys,dev,run,programs,cargo,rustup}
  mkdir -m 1777 "$base/tmp"
  ln -s usr/bin "$base/bin" && ln -s usr/sbin "$base/sbin"
  ln -s usr/lib "$base/lib" && ln -s usr/lib64 "$base/lib64"
  container=$(buildah "${STORE[@]}" from scratch)
  buildah_quietly copy "$container" "$base" /
  buildah_quietly config --env "PATH=/cargo/bin:/usr/sbin:/usr/bin" \
    --env CARGO_HOME=/cargo --env RUSTUP_HOME=/rustup --env CARGO_NET_OFFLINE=true "$container"
  buildah_quietly commit --rm "$container" "$BASE"
}

build() {
  buildah_quietly build --isolation chroot --pull-never \
    --volume /usr:/usr:ro --volume /etc:/etc:ro --volume /var/lib/dpkg:/var/lib/dpkg:ro \
    --volume "$programs:/programs:ro" \
    --volume "${CARGO_HOME:-$HOME/.cargo}:/cargo" --volume "${RUSTUP_HOME:-$HOME/.rustup}:/rustup" \
    --build-arg "BASE=$BASE" --build-arg PROGRAMS=/programs \
    --build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" --tag "$IMAGE" --file Containerfile .
}

# A line for each file: its kind, mode, owner, path, and what it holds or leads to.
listing() {
  (
    cd "$1"
    find . -mindepth 1 \( -type f -printf '%y %m %U:%G %p ' -exec sh -c 'sha256sum <"$1"' _ {} \; \) -o \
      -printf '%y %m %U:%G %p %l\n' | sort -k 4
  )
}

# The layer of the OCI layout in a tarball.
unpack() {
  local manifest layer
  mkdir -p "$work/layout" "$work/ours"
  tar -C "$work/layout" -xf "$1"
  manifest=$(jq -r '.manifests[0].digest' "$work/layout/index.json" | cut -d: -f2)
  layer=$(jq -r '.layers[0].digest' "$work/layout/blobs/sha256/$manifest" | cut -d: -f2)
  tar -C "$work/ours" -xzf "$work/layout/blobs/sha256/$layer"
  config=$work/layout/blobs/sha256/$(jq -r .config.digest "$work/layout/blobs/sha256/$manifest" | cut -d: -f2)
}

# How an image is started.
start_of() {
  jq -S '{Entrypoint, WorkingDir, Env: (.Env | sort), User: (.User // "")}' <<<"$1"
}

make_base
build
scripts/image.sh "$programs" "$work/ours.tar" >/dev/null
unpack "$work/ours.tar"
mounted=$(buildah "${STORE[@]}" from --pull-never "$IMAGE")
theirs=$(buildah "${STORE[@]}" mount "$mounted")

listing "$work/ours" >"$work/ours.list"
listing "$theirs" >"$work/theirs.list"
diff "$work/ours.list" "$work/theirs.list" >&2 || die "the two images hold different files (< image.sh, > Containerfile)"
engine=$(buildah "${STORE[@]}" inspect --type image "$IMAGE")
diff <(start_of "$(jq .config "$config")") <(start_of "$(jq .OCIv1.config <<<"$engine")") >&2 ||
  die "the two images are started differently"
for program in margay-cni margay-bgp; do
  segments=$(readelf -lW "$theirs/usr/local/bin/$program")
  [[ $segments != *INTERP* && $segments != *DYNAMIC* ]] || die "$program needs libraries"
done
for program in margay margayctl margay-bgp nft; do
  said=$(chroot "$theirs" "$program" --version) || die "$program does not run in the image"
  echo "containerfile: $said"
done
echo "containerfile: $(wc -l <"$work/theirs.list") files, the same as scripts/image.sh makes"
