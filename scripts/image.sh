#!/usr/bin/env bash
# Puts the image together without a container engine: an OCI image layout in a
# tarball, which `ctr -n k8s.io images import`, `podman load` and `skopeo copy
# oci-archive:…` take. The same programs give the same image, octet by octet.
#
#   scripts/image.sh PROGRAMS OUTPUT.tar
#
# PROGRAMS is the folder with margay and margayctl as cargo built them, and
# static/ with margay-cni and margay-bgp as scripts/static.sh did. In the image
# is no shell and nothing that is not needed:
#
#   /usr/local/bin      our programs
#   /usr/sbin/nft       writes the policy table when it is new or was changed by others
#   /usr/lib            the libraries that ldd names
#   /etc                passwd, group, nsswitch.conf, certificates
#   /usr/share/doc      the bill of materials (CycloneDX), the licences of Debian's packages
#
# The bill of materials is written beside the tarball, too (OUTPUT.cdx.json),
# and so is the image's digest (OUTPUT.digest).
#
#   MARGAY_IMAGE       its name (registry.local/margay:dev)
#   SOURCE_DATE_EPOCH  the time in it (that of the last commit)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null
umask 022
export LC_ALL=C

readonly NAME=${MARGAY_IMAGE:-registry.local/margay:dev}
readonly OURS="margay margayctl static/margay-bgp static/margay-cni"
readonly DOC=usr/share/doc
# Nobody in particular, for what needs no rights: the number that others use for it, too.
readonly NONROOT=65532

die() {
  echo "image: $*" >&2
  exit 1
}

(($# == 2)) || die "usage: scripts/image.sh PROGRAMS OUTPUT.tar"
programs=$1 output=$2
for program in $OURS; do
  [[ -x $programs/$program ]] || die "$programs/$program is not there: make build"
done
[[ $(uname -m) == x86_64 ]] || die "only amd64 is known here"
readonly ARCHITECTURE=amd64
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
version=$(cargo metadata --locked --no-deps --format-version 1 |
  jq -r '.packages[] | select(.name == "margay-agent") | .version')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root

# --- what is in it -----------------------------------------------------------

# Debian's names for its folders, so that the loader finds what ldd found.
make_root() {
  mkdir -p "$root"/{etc/ssl/certs,usr/{bin,sbin,lib,lib64,local/bin},$DOC,run,var/lib,tmp}
  ln -s usr/bin "$root/bin"
  ln -s usr/sbin "$root/sbin"
  ln -s usr/lib "$root/lib"
  ln -s usr/lib64 "$root/lib64"
  ln -s /run "$root/var/run"
  chmod 1777 "$root/tmp"
  printf '%s\n' 'root:x:0:0:root:/:/sbin/nologin' "margay:x:$NONROOT:$NONROOT:margay:/:/sbin/nologin" >"$root/etc/passwd"
  printf '%s\n' 'root:x:0:' "margay:x:$NONROOT:" >"$root/etc/group"
  echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
  cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
}

install_programs() {
  local program
  for program in $OURS; do
    install -m 0755 "$programs/$program" "$root/usr/local/bin/"
    strip --strip-all "$root/usr/local/bin/${program##*/}"
  done
  install -m 0755 "$(command -v nft)" "$root/usr/sbin/nft"
}

# The paths of the libraries, as ldd names them. The kernel's vdso has none.
libraries() {
  local program
  # What has no interpreter is linked statically, and ldd has no answer about it.
  for program; do
    [[ $(readelf -lW "$program") != *INTERP* ]] || ldd "$program"
  done | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// && $2 ~ /^\(/ { print $1 }' | sort -u
}

install_libraries() {
  local library
  while read -r library; do
    mkdir -p "$root/usr${library%/*}"
    cp -L "$library" "$root/usr$library"
  done < <(libraries "$root"/usr/local/bin/* "$root/usr/sbin/nft")
}

# --- what it is made of ------------------------------------------------------

# Debian's packages of what was copied, one a line.
debian_packages() {
  {
    dpkg-query -S "$(command -v nft)" || dpkg-query -S /usr/sbin/nft
    echo 'ca-certificates:'
    # dpkg knows a library by its place before or after the merger of / and /usr.
    while read -r library; do
      dpkg-query -S "$library" 2>/dev/null || dpkg-query -S "$(readlink -f "$library")" 2>/dev/null ||
        dpkg-query -S "${library#/usr}"
    done < <(libraries "$root"/usr/local/bin/* "$root/usr/sbin/nft")
  } | cut -d: -f1 | sort -u
}

debian_components() {
  local package copyright
  for package in $(debian_packages); do
    copyright=/usr/share/doc/$package/copyright
    mkdir -p "$root/$DOC/$package"
    cp -L "$copyright" "$root/$DOC/$package/copyright"
    # The short names of the licences, where the file is in Debian's machine-readable form.
    # shellcheck disable=SC2016 # dpkg-query expands
    dpkg-query -W -f '${Package} ${Version} ${Architecture} ${source:Package} ${source:Version}\n' "$package" |
      jq -R --arg licences "$(sed -n 's/^License: *//p' "$copyright" | sort -u | paste -sd, - | sed 's/,/, /g')" '
        split(" ") | {
          type: "library", group: "debian", name: .[0], version: .[1],
          purl: "pkg:deb/debian/\(.[0])@\(.[1] | @uri)?arch=\(.[2])&distro=debian-12",
          licenses: (if $licences == "" then [] else [{license: {name: $licences}}] end),
          properties: [{name: "debian:source", value: "\(.[3]) \(.[4])"}]
        }'
  done
}

# What our programs are linked from: not what only builds or tests need.
cargo_components() {
  cargo metadata --locked --format-version 1 --filter-platform x86_64-unknown-linux-gnu | jq '
    (.packages | map({key: .id, value: .}) | from_entries) as $packages
    | (.resolve.nodes | map({key: .id, value: [.deps[] | select(any(.dep_kinds[]; .kind == null)) | .pkg]}) | from_entries) as $needs
    | [.packages[] | select(.source == null and (.name | IN("margay-agent", "margayctl", "margay-cli", "margay-cni"))) | .id]
    | {seen: ., next: .}
    | until(.next == []; .seen as $seen | ([.next[] | $needs[.][]] | unique) - $seen | {seen: ($seen + .), next: .})
    | .seen | unique | .[] | $packages[.] | {
        type: "library", name, version, purl: "pkg:cargo/\(.name)@\(.version)",
        licenses: [{expression: (.license // "NOASSERTION" | gsub("(?<=[^ ])/(?=[^ ])"; " OR "))}],
        externalReferences: [.repository // empty | {type: "vcs", url: .}]
      }'
}

bill_of_materials() {
  { cargo_components && debian_components; } | jq -s \
    --arg version "$version" --arg time "$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)" '{
      bomFormat: "CycloneDX", specVersion: "1.5", version: 1,
      metadata: {
        timestamp: $time,
        component: {type: "container", name: "margay", version: $version, licenses: [{license: {id: "Apache-2.0"}}]}
      },
      components: map(.["bom-ref"] = .purl) | sort_by(.purl)
    }'
}

# --- how it is packed --------------------------------------------------------

blobs=$work/layout/blobs/sha256

# Moves a file to its place by its digest, and prints its descriptor.
blob() {
  local file=$1 type=$2 digest
  digest=$(sha256sum <"$file" | cut -d' ' -f1)
  jq -cn --arg type "$type" --arg digest "sha256:$digest" --argjson size "$(stat -c %s "$file")" \
    '{mediaType: $type, digest: $digest, size: $size}'
  mv "$file" "$blobs/$digest"
}

# The same tree gives the same octets: sorted, one time, nobody's names.
pack() {
  tar --create --directory "$1" --format=gnu --sort=name --mtime="@$epoch" \
    --owner=0 --group=0 --numeric-owner .
}

config() {
  jq -cn --arg time "$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)" --arg diff "sha256:$1" \
    --arg architecture "$ARCHITECTURE" --argjson labels "$(labels)" '{
      created: $time, architecture: $architecture, os: "linux",
      config: {
        Env: ["PATH=/usr/local/bin:/usr/sbin:/usr/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],
        Entrypoint: ["/usr/local/bin/margay"], WorkingDir: "/", Labels: $labels
      },
      rootfs: {type: "layers", diff_ids: [$diff]},
      history: [{created: $time, created_by: "scripts/image.sh"}]
    }'
}

labels() {
  jq -cn --arg version "$version" --arg revision "$revision" '{
    "org.opencontainers.image.title": "margay",
    "org.opencontainers.image.description": "A Kubernetes network for routed data centres",
    "org.opencontainers.image.licenses": "Apache-2.0",
    "org.opencontainers.image.version": $version,
    "org.opencontainers.image.revision": $revision
  }'
}

manifest() {
  jq -cn --argjson config "$1" --argjson layer "$2" --argjson labels "$(labels)" '{
    schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: $config, layers: [$layer], annotations: $labels
  }'
}

index() {
  jq -cn --argjson manifest "$1" --arg name "$NAME" --arg architecture "$ARCHITECTURE" '{
    schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json",
    manifests: [$manifest + {
      platform: {architecture: $architecture, os: "linux"},
      annotations: {"io.containerd.image.name": $name, "org.opencontainers.image.ref.name": ($name | split(":") | last)}
    }]
  }'
}

make_root
install_programs
install_libraries
mkdir -p "$root/$DOC/margay" "$blobs"
[[ ! -e LICENSE ]] || cp LICENSE "$root/$DOC/margay/"
bill_of_materials >"$work/sbom"
cp "$work/sbom" "$root/$DOC/margay/sbom.cdx.json"

pack "$root" >"$work/layer.tar"
diff_id=$(sha256sum <"$work/layer.tar" | cut -d' ' -f1)
gzip -n -6 <"$work/layer.tar" >"$work/layer"
layer=$(blob "$work/layer" application/vnd.oci.image.layer.v1.tar+gzip)
config "$diff_id" >"$work/config"
config=$(blob "$work/config" application/vnd.oci.image.config.v1+json)
manifest "$config" "$layer" >"$work/manifest"
manifest=$(blob "$work/manifest" application/vnd.oci.image.manifest.v1+json)
index "$manifest" >"$work/layout/index.json"
echo '{"imageLayoutVersion":"1.0.0"}' >"$work/layout/oci-layout"

mkdir -p "$(dirname "$output")"
pack "$work/layout" >"$output.half"
mv "$output.half" "$output"
cp "$work/sbom" "${output%.tar}.cdx.json"
jq -r .digest <<<"$manifest" >"${output%.tar}.digest"
echo "image: $output, $NAME, $(stat -c %s "$output" | numfmt --to=iec-i)B, $(jq '.components | length' "$work/sbom") components, $(<"${output%.tar}.digest")"
