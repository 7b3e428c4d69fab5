#!/bin/sh
# Makes the disks of the machines that tests/src/machine.rs boots in QEMU:
#
#   tests/machines/setup.sh [RELEASE...]
#
# RELEASE is a Debian release (bookworm, trixie, forky); bookworm if none is given. A disk is made
# of packages alone, with the release's own kernel and systemd, without a loop device or a mount.
# bullseye is its kernel, 5.10, with bookworm's userland: nft 0.9.8 is too old for netd, and the
# package wants a newer libc. RELEASE-arm64 is a release for that processor. A disk is kept in
# ${XDG_CACHE_HOME:-~/.cache}/netd-testbed/machines and made again only when these scripts have
# changed.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
here="$root/tests/machines"
bed="${XDG_CACHE_HOME:-$HOME/.cache}/netd-testbed"
cache="$bed/machines"
export PATH="$PATH:/usr/sbin:/sbin"
. "$root/tests/mirrors.sh"

packages="systemd systemd-sysv dbus udev kmod iproute2 nftables iptables iputils-ping procps
conntrack containerd runc containernetworking-plugins wireguard-tools initramfs-tools linux-base
libnss-myhostname ethtool tcpdump iperf3 openssl util-linux podman crun
libpam-systemd firewalld network-manager apparmor"
# Tests start these themselves.
idle="firewalld.service NetworkManager.service NetworkManager-wait-online.service
NetworkManager-dispatcher.service podman.service podman.socket podman-auto-update.timer
podman-auto-update.service podman-restart.service apt-daily.timer apt-daily-upgrade.timer
dpkg-db-backup.timer fstrim.timer e2scrub_all.timer"
# What the machine's disk and the share need; the initrd loads nothing else.
modules="virtio_pci virtio_blk ext4 9p 9pnet_virtio"

say() { echo "machines: $*"; }
die() {
    echo "machines: $*" >&2
    exit 1
}

install_tools() {
    missing=
    command -v qemu-system-x86_64 >/dev/null || missing="$missing qemu-system-x86"
    command -v debootstrap >/dev/null || missing="$missing debootstrap"
    command -v mkfs.ext4 >/dev/null || missing="$missing e2fsprogs"
    case "$*" in
    *-arm64*)
        command -v qemu-system-aarch64 >/dev/null || missing="$missing qemu-system-arm"
        command -v qemu-aarch64-static >/dev/null || missing="$missing qemu-user-static"
        command -v aarch64-linux-gnu-gcc >/dev/null ||
            missing="$missing gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
        ;;
    esac
    [ -n "$missing" ] || return 0
    say "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update || say "warning: apt-get update failed, trying with the lists there are"
    # qemu-utils of another release may have to go.
    # shellcheck disable=SC2086  # a list of words is meant
    apt-get -qq install -y --no-install-recommends $missing >"$cache/apt.log" 2>&1 || {
        tail -n 20 "$cache/apt.log" >&2
        die "apt-get could not install$missing (log: $cache/apt.log)"
    }
}

# The kernel runs programs of the other processor by qemu-aarch64-static, in a chroot too.
run_arm64() {
    binfmt=/proc/sys/fs/binfmt_misc
    [ ! -e "$binfmt/qemu-aarch64" ] || return 0
    [ -e "$binfmt/register" ] || mount -t binfmt_misc binfmt_misc "$binfmt"
    magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    printf '%s' ":qemu-aarch64:M::$magic:$mask:/usr/bin/qemu-aarch64-static:F" >"$binfmt/register"
}

# Everything that decides what is on the disk.
recipe() { cat "$0" "$here"/guest/* "$root/tests/mirrors.sh" | sha256sum | cut -d ' ' -f 1; }

# unpack RELEASE TREE: a release's packages, all but a kernel.
unpack() {
    from=${1%-arm64} tree=$2
    # A release that this debootstrap does not know yet is made as sid is.
    script=/usr/share/debootstrap/scripts/$from
    [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
    say "unpacking packages of Debian $from"
    # shellcheck disable=SC2086  # a list of words is meant
    include=$(echo $packages | tr ' ' ,)
    [ "$(architecture "$1")" = amd64 ] || run_arm64
    debootstrap --arch="$(architecture "$1")" --variant=minbase --keyring="$keyring" \
        --include="$include" \
        "$from" "$tree" "$mirror" "$script" >"$tree.log" 2>&1 || {
        tail -n 5 "$tree.log" >&2
        die "debootstrap failed (log: $tree.log)"
    }
}

# kernel RELEASE TREE: the newest kernel of a release, which need not be that of the others.
kernel() {
    image=$(shown "$1" "linux-image-$(architecture "$1")" | grep '^Depends:' | grep -o 'linux-image-[0-9][^ ,]*') ||
        die "Debian $1 has no kernel package for $(architecture "$1")"
    # Since 7.x its parts are packages of their own.
    parts=$(shown "$1" "$image" | grep '^Depends:' | grep -o "linux-[a-z]*-${image#linux-image-}" || :)
    # shellcheck disable=SC2086
    (cd "$2/root" && suite_apt "$1" download $image $parts) >"$bed/apt/$1/log" 2>&1 || {
        tail -n 20 "$bed/apt/$1/log" >&2
        die "$image could not be fetched from $mirror"
    }
    chroot "$2" sh -c 'dpkg -i /root/*.deb' >>"$2.log" 2>&1 || die "no kernel (log: $2.log)"
    rm "$2"/root/*.deb
}

# What makes a machine of the packages.
configure() {
    disk=$1
    echo machine >"$disk/etc/hostname"
    printf '127.0.0.1 localhost machine\n::1 localhost\n' >"$disk/etc/hosts"
    echo '/dev/vda / ext4 rw,relatime 0 1' >"$disk/etc/fstab"
    mkdir -p "$disk/share" "$disk/var/log/journal" "$disk/etc/systemd/network"
    cp "$here/guest/card.network" "$disk/etc/systemd/network/"
    install -m 755 "$here/guest/agent" "$disk/usr/local/sbin/agent"
    install -m 644 "$here/guest/agent.service" "$disk/etc/systemd/system/"
    chroot "$disk" passwd -d root >/dev/null
    chroot "$disk" systemctl -q enable agent.service systemd-networkd.service
    for unit in $idle; do
        chroot "$disk" systemctl -q disable "$unit" 2>/dev/null || :
    done
    for module in $modules; do echo "$module"; done >"$disk/etc/initramfs-tools/modules"
    sed -i 's/^MODULES=.*/MODULES=list/; s/^COMPRESS=.*/COMPRESS=gzip/' \
        "$disk/etc/initramfs-tools/initramfs.conf"
    rm -rf "$disk"/var/cache/apt/archives/*.deb
}

make_disk() {
    release=$1
    to="$cache/$release"
    wanted=$(recipe)
    if [ "$(cat "$to/recipe" 2>/dev/null)" = "$wanted" ]; then
        say "$release is there"
        return
    fi
    work="$cache/$release.new"
    # debootstrap mounts proc there, and leaves it when it is killed.
    grep -o " $work/[^ ]*" /proc/mounts | sort -r | while read -r mounted; do umount "$mounted"; done
    rm -rf --one-file-system "$work"
    mkdir -p "$work"
    update_suite "$release"
    case "$release" in
    bullseye) unpack bookworm "$work/root" ;;
    *) unpack "$release" "$work/root" ;;
    esac
    configure "$work/root"
    kernel "$release" "$work/root"
    cp "$work"/root/boot/vmlinuz-* "$work/vmlinuz"
    cp "$work"/root/boot/initrd.img-* "$work/initrd.img"
    truncate -s 6G "$work/disk.img"
    mkfs.ext4 -q -F -d "$work/root" "$work/disk.img"
    rm -rf --one-file-system "$work/root"
    architecture "$release" >"$work/architecture"
    echo "$wanted" >"$work/recipe"
    rm -rf "$to"
    mv "$work" "$to"
    say "$release: made"
}

for release in "$@"; do
    case "$release" in
    '' | -* | *[!a-z0-9-]*) die "\"$release\" is no release; name some as: bookworm trixie-arm64" ;;
    esac
done
[ "$(id -u)" = 0 ] || die "debootstrap needs root"
mkdir -p "$bed/apt" "$cache"
exec 9>"$cache/lock"
flock -n 9 || {
    say "waiting for another setup.sh"
    flock 9
}
install_tools "$@"
rm -f "$bed"/apt/*/updated
for release in "${@:-bookworm}"; do
    make_disk "$release"
done
