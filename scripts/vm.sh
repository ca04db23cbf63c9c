#!/usr/bin/env bash
# Runs a command as root in a virtual machine on Debian's own stock kernel, for
# what the kernel at hand may lack (IPIP, WireGuard, VRF). The machine sees the
# host's files, so nothing has to be copied or installed into it.
#
#   scripts/vm.sh [--timeout SECONDS] [--share DIR]… [--env NAME[=VALUE]]… [-v] [--] COMMAND…
#   scripts/vm.sh --prepare        only fetch the kernel, as the first run does
#
# The machine: 2 processors, 2 GB, no network but what the command builds. Its
# root is the host's root with a memory layer on top: what the command writes is
# gone afterwards, except under the checkout, $CARGO_TARGET_DIR and every --share
# DIR, which are the host's own. /tmp, /run and /dev/shm are fresh tmpfs, so
# network namespaces and database files (locks, mmap, fsync) behave as on a disk.
# The working directory is the same as outside; standard input is empty.
#
# Environment that passes: PATH HOME LANG TERM CI NO_COLOR, RUST_*, CARGO_*,
# MARGAY_*, and what --env names. MARGAY_VM=1 is set inside.
#
# Exit status: the command's; 124 after the timeout (600 s unless told); 125
# when the machine itself failed, with the end of its console.
#
#   MARGAY_CACHE        where the kernel is kept (~/.cache/margay)
#   MARGAY_VM_KERNEL    a release such as 6.1.0-NN-amd64, instead of the newest
#   MARGAY_VM_ACCEL     tcg (software, works anywhere) or kvm (about 10x faster)
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$HERE")
readonly HERE ROOT
readonly CACHE="${MARGAY_CACHE:-${HOME:-/root}/.cache/margay}/vm"
readonly ACCEL="${MARGAY_VM_ACCEL:-tcg}"
# What the first stage needs to reach the host's files and to report back, in
# the order in which it can be loaded (dependencies are added by modprobe).
readonly BOOT_MODULES=(virtio_pci virtio_console virtio_rng 9pnet_virtio 9p overlay)

say() { echo "vm: $*" >&2; }
die() {
  say "$*"
  exit 125
}
usage() { sed -n '2,/^set -e/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

# --- the kernel ------------------------------------------------------------

# Prints the release to boot: the one asked for, else the newest in the cache,
# else the one Debian's meta package names today.
kernel_release() {
  local found
  if [[ -n ${MARGAY_VM_KERNEL:-} ]]; then
    echo "$MARGAY_VM_KERNEL"
    return
  fi
  found=$(find "$CACHE" -mindepth 2 -maxdepth 2 -name ready -printf '%h\n' 2>/dev/null | sort -V | tail -n 1)
  if [[ -n $found ]]; then
    basename "$found"
    return
  fi
  debian_release || { ((EUID == 0)) && apt-get -q update >/dev/null 2>&1 && debian_release; } ||
    die "found no kernel: apt-cache knows no linux-image-amd64 (run apt-get update as root)"
}

debian_release() {
  local name
  name=$(apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/.*Depends: linux-image-\([0-9][^ ]*\)$/\1/p' | head -n 1)
  [[ -n $name ]] && echo "$name"
}

# Fetches and unpacks a kernel once. The folder appears with its file `ready`
# last, so an interrupted run leaves nothing that looks complete.
fetch_kernel() {
  local release=$1 folder=$CACHE/$1 work
  mkdir -p "$CACHE"
  exec {lock}>"$CACHE/lock"
  flock "$lock"
  if [[ ! -e $folder/ready ]]; then
    say "fetching Debian's kernel $release into $CACHE, once"
    rm -rf "$folder"
    work=$(mktemp -d "$CACHE/fetch.XXXXXX")
    (cd "$work" && download "linux-image-$release") ||
      { rm -rf "$work" && die "could not download linux-image-$release: is the Debian archive reachable?"; }
    dpkg -x "$work"/linux-image-*.deb "$work/tree"
    mkdir "$folder"
    mv "$work/tree/boot/vmlinuz-$release" "$folder/vmlinuz"
    mv "$work/tree/lib/modules" "$folder/modules"
    rm -rf "$work"
    mkdir "$folder/lib" && mv "$folder/modules" "$folder/lib/modules"
    depmod -b "$folder" "$release"
    : >"$folder/ready"
  fi
  build_initramfs "$release"
  flock -u "$lock"
}

# A list older than the archive names files that are gone; then update, once.
download() {
  apt-get -q download "$1" >&2 2>/dev/null && return
  ((EUID == 0)) || return 1
  apt-get -q update >/dev/null 2>&1 || true
  apt-get -q download "$1" >&2
}

# The first stage: busybox, a few modules and the script below. Rebuilt when
# this file changed.
build_initramfs() {
  local folder=$CACHE/$1 work module image=$CACHE/$1/initramfs
  [[ $image -nt ${BASH_SOURCE[0]} ]] && return
  work=$(mktemp -d "$CACHE/initramfs.XXXXXX")
  mkdir -p "$work"/{bin,lib/margay,proc,sys,dev,host,memory,new}
  cp "$(command -v busybox)" "$work/bin/busybox"
  local count=100
  for module in "${BOOT_MODULES[@]}"; do
    while read -r _ path _; do
      compgen -G "$work/lib/margay/*-$(basename "$path")" >/dev/null && continue
      cp "$path" "$work/lib/margay/$((count++))-$(basename "$path")"
    done < <(modprobe -d "$folder" -S "$1" --show-depends "$module" | grep '^insmod')
  done
  first_stage >"$work/init"
  chmod 755 "$work/init"
  (cd "$work" && find . | busybox cpio -o -H newc 2>/dev/null) >"$image.new"
  mv "$image.new" "$image"
  rm -rf "$work"
}

# --- what runs inside ------------------------------------------------------

# Process 1 of the first stage, under busybox: mounts the host's files, puts a
# memory layer over them, and hands over to the second stage in the job folder.
first_stage() {
  cat <<'STAGE'
#!/bin/busybox sh
set -e
/bin/busybox mkdir -p /sbin /usr/bin /usr/sbin
/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /lib/margay/*; do insmod "$module"; done
for word in $(cat /proc/cmdline); do
  case $word in margay.job=*) job=${word#*=} ;; margay.kernel=*) kernel=${word#*=} ;; esac
done
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose host /host
mount -t tmpfs -o size=50% memory /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work root /new
for fresh in run tmp dev/shm; do mkdir -p /new/$fresh; done
mount --move /dev /new/dev
mkdir -p /new/dev/shm /new/dev/pts
mount -t devpts -o ptmxmode=666 pts /new/dev/pts
mount -t tmpfs -o mode=1777 shm /new/dev/shm
mount -t tmpfs -o mode=755 run /new/run
mount -t tmpfs -o mode=1777 tmp /new/tmp
mkdir -p /new/run/lock /new/run/margay-vm /new/usr/lib/modules
mount --bind "/host$kernel/lib/modules" /new/usr/lib/modules
mount --bind "/host$job" /new/run/margay-vm
while read -r share; do
  mkdir -p "/new$share"
  mount --bind "/host$share" "/new$share"
done <"/host$job/shares"
mount --move /proc /new/proc
mount --move /sys /new/sys
exec switch_root /new /bin/bash /run/margay-vm/second-stage
STAGE
}

# Process 1 of the second stage, under the host's bash. The command writes to
# FIFOs, not to the ports: a port can be opened only once, so `echo >/dev/stderr`
# in a script would fail on it.
second_stage() {
  cat <<'STAGE'
mount -t cgroup2 cgroup /sys/fs/cgroup
hostname margay-vm
ip link set lo up
for fd in fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do
  [[ -e /dev/${fd%:*} ]] || ln -s "/proc/self/${fd#*:}" "/dev/${fd%:*}"
done
port_of() {
  local folder
  for folder in /sys/class/virtio-ports/*; do
    [[ $(<"$folder/name") == "$1" ]] && echo "/dev/${folder##*/}" && return
  done
}
mkfifo /run/margay-vm.out /run/margay-vm.err
cat /run/margay-vm.out >"$(port_of out)" & out=$!
cat /run/margay-vm.err >"$(port_of err)" & err=$!
cut -d ' ' -f 1 /proc/uptime >/run/margay-vm/up
(
  source /run/margay-vm/job
) </dev/null >/run/margay-vm.out 2>/run/margay-vm.err
status=$?
# A daemon left behind may hold the FIFOs open for ever: give it two seconds.
for _ in {1..20}; do
  kill -0 "$out" 2>/dev/null || kill -0 "$err" 2>/dev/null || break
  sleep 0.1
done
echo "$status" >/run/margay-vm/status
sync
echo o >/proc/sysrq-trigger
sleep 60
STAGE
}

# The command, its folder and its environment as a script.
job_script() {
  local name
  printf 'cd %q || exit 125\n' "$PWD"
  # shellcheck disable=SC2016 # expands inside
  echo 'mapfile -t names < <(compgen -e); unset "${names[@]}"'
  for name in $(compgen -e | grep -E '^(PATH|HOME|LANG|TERM|CI|NO_COLOR|RUST_.*|CARGO_.*|MARGAY_.*)$') "${env_names[@]}"; do
    case $name in
      *=*) printf 'export %s=%q\n' "${name%%=*}" "${name#*=}" ;;
      *) [[ -v $name ]] && printf 'export %s=%q\n' "$name" "${!name}" ;;
    esac
  done
  echo 'export MARGAY_VM=1'
  printf 'exec'
  printf ' %q' "$@"
  echo
}

# Refuses a working directory that the machine's own tmpfs would hide.
check_visible() {
  local share
  [[ $PWD == @(/tmp|/run|/dev/shm)/* ]] || return 0
  for share in "${shares[@]}"; do
    [[ $PWD/ != "$share"/* ]] || return 0
  done
  die "the working directory $PWD is hidden inside by a fresh tmpfs: add --share $PWD"
}

# --- the run ---------------------------------------------------------------

run() {
  local release=$1 folder=$CACHE/$1 job status qemu started=$EPOCHREALTIME
  shift
  job=$(mktemp -d "${TMPDIR:-/tmp}/margay-vm.XXXXXX")
  printf '%s\n' "${shares[@]}" | sort -u >"$job/shares"
  second_stage >"$job/second-stage"
  job_script "$@" >"$job/job"
  : >"$job/console"

  # Pipes rather than the terminal: the guest's output is the command's, byte by
  # byte, and the kernel's own messages stay in the console file.
  exec {out}> >(exec cat)
  exec {err}> >(exec cat >&2)
  local tail_pid=
  if ((verbose)); then
    tail -n +1 -f "$job/console" >&2 &
    tail_pid=$!
  fi
  # shellcheck disable=SC2054 # the commas are QEMU's
  local machine=(
    qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none -monitor none
    -machine q35 -accel "$ACCEL" -smp 2 -m 2G -rtc base=utc
    -kernel "$folder/vmlinuz" -initrd "$folder/initramfs"
    -append "console=ttyS0 panic=-1 margay.job=$job margay.kernel=$folder"
    -chardev "file,id=console,path=$job/console" -serial chardev:console
    -fsdev local,id=host,path=/,security_model=none,multidevs=remap
    -device virtio-9p-pci,fsdev=host,mount_tag=host
    -device virtio-rng-pci -device virtio-serial-pci
    -chardev "file,id=out,path=/dev/fd/$out" -device virtserialport,chardev=out,name=out
    -chardev "file,id=err,path=/dev/fd/$err" -device virtserialport,chardev=err,name=err
  )
  if [[ $ACCEL == tcg ]]; then machine+=(-cpu max); else machine+=(-cpu host); fi
  timeout --foreground --kill-after=10 "$timeout" "${machine[@]}" </dev/null 2>"$job/qemu" &
  qemu=$!
  # An interrupted run must not leave the machine behind: timeout passes it on.
  local interrupted=0
  trap 'interrupted=1; kill "$qemu" 2>/dev/null || true' INT TERM HUP
  status=0
  wait "$qemu" || status=$?
  trap - INT TERM HUP
  if ((interrupted)); then
    wait "$qemu" || true
  fi
  exec {out}>&- {err}>&-
  [[ -z $tail_pid ]] || kill "$tail_pid"

  if [[ -s $job/status ]]; then
    status=$(<"$job/status")
    report "$release" "$started" "$job"
  elif ((interrupted)); then
    say "interrupted"
    status=130
  elif ((status == 124 || status == 137)); then
    say "killed after $timeout s (--timeout)"
    status=124
  else
    grep -v '^$' "$job/qemu" "$job/console" -h | tail -n 30 >&2 || true
    say "the machine stopped before the command ended (its last words are above)"
    status=125
  fi
  rm -rf "$job"
  return "$status"
}

# One line about the run, and the kernel's complaints if it had any: a test that
# passes while the kernel warns about a route or a device has found something.
report() {
  local release=$1 started=$2 job=$3 total
  total=$(awk -v from="$started" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f", to - from }')
  say "Linux $release, up after $(<"$job/up") s, $total s in all"
  if grep -E 'BUG:|WARNING:|Oops|Call Trace' "$job/console" >&2; then
    say "the kernel complained (above)"
  fi
}

timeout=600 verbose=0
env_names=() shares=("$ROOT")
prepare=0
while (($#)); do
  [[ $1 != --@(timeout|share|env) || -n ${2:-} ]] || die "$1 needs a value (--help)"
  case $1 in
    --timeout) timeout=$2 && shift ;;
    --share)
      [[ -d $2 ]] || die "--share $2: no such folder"
      shares+=("$(realpath "$2")") && shift
      ;;
    --env) env_names+=("$2") && shift ;;
    --prepare) prepare=1 ;;
    -v | --verbose) verbose=1 ;;
    -h | --help) usage && exit ;;
    --) shift && break ;;
    -*) die "unknown option $1 (--help lists them)" ;;
    *) break ;;
  esac
  shift
done
(($# || prepare)) || die "no command given (--help)"
if [[ -d ${CARGO_TARGET_DIR:-} ]]; then
  shares+=("$(realpath "$CARGO_TARGET_DIR")")
fi
check_visible

"$HERE/packages.sh" vm || exit 125
release=$(kernel_release)
fetch_kernel "$release"
((prepare)) && exit 0
run "$release" "$@"
