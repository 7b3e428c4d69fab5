#!/bin/sh
# Makes a Debian 12 machine ready for `make test`, `make demo` and `make bench`.
#
# Installs a few Debian 12 packages, and unpacks two newer containerds and an etcd
# below .testbed/ with an apt configuration of their own: nothing of the system's is
# upgraded, and the system's source lists are only read: they name the package mirror.
# NETD_DEBIAN_MIRROR overrides it, e.g. NETD_DEBIAN_MIRROR=http://192.0.2.1/debian.
# What is already unpacked is skipped, so the script can be run again at any time, also
# without a network.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
bed="$root/.testbed"
. "$root/tests/mirrors.sh"

# Debian 12's own. command-or-path : package
needed="
nft:nftables
ip:iproute2
nsenter:util-linux
iperf3:iperf3
tcpdump:tcpdump
conntrack:conntrack
iptables:iptables
runc:runc
ping:iputils-ping
ethtool:ethtool
cc:gcc
protoc:protobuf-compiler
/usr/include/google/protobuf/struct.proto:libprotobuf-dev
/usr/lib/x86_64-linux-gnu/libc.so:libc6-dev
/usr/lib/cni/bridge:containernetworking-plugins
/usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring
/etc/ssl/certs/ca-certificates.crt:ca-certificates
openssl:openssl
dh:debhelper
lintian:lintian
wg:wireguard-tools
wireguard-go:wireguard-go
aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu
/usr/aarch64-linux-gnu/include/stdio.h:libc6-dev-arm64-cross
"

say() { echo "setup: $*"; }
die() {
    echo "setup: $*" >&2
    exit 1
}

check_machine() {
    [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || die "the test bed is made for x86-64 Linux, this is $(uname -sm)"
    [ "$(id -u)" = 0 ] || die "the tests make network namespaces and run containerd: be root"
    command -v apt-get >/dev/null || die "no apt-get: the test bed is made for Debian 12"
    command -v cargo >/dev/null || die "no cargo in PATH: install a Rust toolchain (https://rustup.rs)"
}

# sbin is missing from PATH in some shells, and then nft looks as if it weren't there.
present() {
    case "$1" in
    /*) [ -e "$1" ] ;;
    *) PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null ;;
    esac
}

install_packages() {
    missing=""
    for pair in $needed; do
        present "${pair%%:*}" || missing="$missing ${pair#*:}"
    done
    if [ -z "$missing" ]; then
        say "Debian packages are there"
        return
    fi
    say "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update || say "warning: apt-get update failed, trying with the lists there are"
    # shellcheck disable=SC2086  # a list of words is meant
    apt-get -qq install -y --no-install-recommends --no-upgrade $missing >"$bed/apt.log" 2>&1 || {
        tail -n 20 "$bed/apt.log" >&2
        die "apt-get could not install$missing (log: $bed/apt.log). Are the mirrors of /etc/apt reachable from here?"
    }
}

# unpack NAME PACKAGES WANTED-VERSION SUITE...: the packages' files below .testbed/NAME,
# from the first suite that offers the wanted version, else the newest of the last one.
# Several packages (words of one argument) come of one source and have one version.
unpack() {
    name=$1 packages=$2 wanted=$3
    package=${packages%% *}
    shift 3
    if [ -e "$bed/$name/.complete" ]; then
        say "$name is there ($(cat "$bed/$name/.complete"))"
        return
    fi
    for suite in "$@"; do
        update_suite "$suite"
        version=$(shown "$suite" "$package" | sed -n 's/^Version: //p' | head -n 1)
        case "$version" in
        "$wanted"*) break ;;
        esac
    done
    [ -n "$version" ] || die "Debian $suite offers no $package"
    case "$version" in
    "$wanted"*) ;;
    *) say "NOTE: $package $wanted is not offered any more; taking $version of Debian $suite" ;;
    esac
    say "fetching $packages $version from Debian $suite"
    rm -rf "$bed/$name" "$bed/$name.new" "$bed/debs/$name"
    mkdir -p "$bed/$name.new" "$bed/debs/$name"
    for package in $packages; do
        (cd "$bed/debs/$name" && suite_apt "$suite" download "$package=$version") >"$bed/apt/$suite/log" 2>&1 || {
            tail -n 20 "$bed/apt/$suite/log" >&2
            die "$package $version could not be fetched from $mirror"
        }
    done
    for deb in "$bed/debs/$name"/*.deb; do
        dpkg -x "$deb" "$bed/$name.new"
    done
    rm -rf "$bed/debs/$name"
    echo "$packages $version, Debian $suite" >"$bed/$name.new/.complete"
    mv "$bed/$name.new" "$bed/$name"
}

check_machine
mkdir -p "$bed/apt"
# Lists are read afresh in each run that fetches something: versions move on.
rm -f "$bed"/apt/*/updated
install_packages
unpack containerd-2.1 containerd 2.1.9 forky sid
unpack containerd-1.7 containerd 1.7.24 trixie
# The store of many nodes: etcd, etcdctl, etcdutl.
unpack etcd "etcd-server etcd-client" 3.5.16 trixie
# The plugins that netd is compared with, besides Debian 12's (1.1.1).
unpack cni-1.9 containernetworking-plugins 1.9.1 forky sid
# dockerd, its client and its proxy; a package of its own each since 26.
unpack docker-20.10 docker.io 20.10.24 bookworm
unpack docker-28.5 docker.io 28.5.2 forky sid
unpack docker-28.5-cli docker-cli 28.5.2 forky sid
# sh, nc, wget, httpd for the test image.
unpack busybox busybox-static 1: bookworm
say "the CNI plugin is built for $("$root/deploy/plugin-target.sh")"
say "ready"
