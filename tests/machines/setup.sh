#!/bin/sh
# Makes the disks of the machines that tests/src/machine.rs boots in QEMU:
#
#   tests/machines/setup.sh [RELEASE...]
#
# RELEASE is a Debian release (bullseye, bookworm, trixie, forky); bookworm if none is given. A
# disk is made of packages alone, with the release's own kernel and systemd, without a loop
# device or a mount. It is kept in ${XDG_CACHE_HOME:-~/.cache}/netd-testbed/machines and made
# again only when these scripts have changed.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
here="$root/tests/machines"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/netd-testbed/machines"
export PATH="$PATH:/usr/sbin:/sbin"
. "$root/tests/mirrors.sh"

packages="systemd systemd-sysv dbus udev kmod iproute2 nftables iptables iputils-ping procps
conntrack containerd runc containernetworking-plugins wireguard-tools linux-image-amd64
initramfs-tools libnss-myhostname"
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
    [ -n "$missing" ] || return 0
    say "installing$missing"
    mkdir -p "$cache"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update || say "warning: apt-get update failed, trying with the lists there are"
    # qemu-utils of another release may have to go.
    # shellcheck disable=SC2086  # a list of words is meant
    apt-get -qq install -y --no-install-recommends $missing >"$cache/apt.log" 2>&1 || {
        tail -n 20 "$cache/apt.log" >&2
        die "apt-get could not install$missing (log: $cache/apt.log)"
    }
}

# Everything that decides what is on the disk.
recipe() { cat "$0" "$here"/guest/* | sha256sum | cut -d ' ' -f 1; }

unpack() {
    tree=$1
    # shellcheck disable=SC2086
    include=$(echo $packages | tr ' ' ,)
    for mirror in $(candidates); do
        say "$release: unpacking packages"
        rm -rf "$tree"
        debootstrap --variant=minbase --keyring="$keyring" --include="$include" \
            "$release" "$tree" "$mirror" >"$tree.log" 2>&1 && return
        tail -n 5 "$tree.log" >&2
    done
    die "no mirror of /etc/apt has Debian $release (NETD_DEBIAN_MIRROR names another; log: $tree.log)"
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
    chroot "$disk" systemctl -q disable apt-daily.timer apt-daily-upgrade.timer \
        dpkg-db-backup.timer fstrim.timer e2scrub_all.timer 2>/dev/null || :
    for module in $modules; do echo "$module"; done >"$disk/etc/initramfs-tools/modules"
    sed -i 's/^MODULES=.*/MODULES=list/; s/^COMPRESS=.*/COMPRESS=gzip/' \
        "$disk/etc/initramfs-tools/initramfs.conf"
    chroot "$disk" update-initramfs -u >/dev/null 2>&1
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
    rm -rf "$work" "$to"
    mkdir -p "$work"
    unpack "$work/root"
    configure "$work/root"
    cp "$work"/root/boot/vmlinuz-* "$work/vmlinuz"
    cp "$work"/root/boot/initrd.img-* "$work/initrd.img"
    truncate -s 6G "$work/disk.img"
    mkfs.ext4 -q -F -d "$work/root" "$work/disk.img"
    rm -rf "$work/root"
    echo "$wanted" >"$work/recipe"
    mv "$work" "$to"
    say "$release: made"
}

[ "$(id -u)" = 0 ] || die "debootstrap needs root"
install_tools
for release in "${@:-bookworm}"; do
    make_disk "$release"
done
