#!/bin/sh
# Makes the Debian package of programs that are built already:
#
#   deb.sh BUILT OUT ARCHITECTURE
#
# debhelper works in a directory of its own: several builds at once do not meet, and nothing is
# written into the source tree.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
NETD_ROOT=$root
NETD_BUILT=$(realpath "$1")
out=$2 arch=$3
maintainer=$(sed -n 's/^Maintainer: //p' "$root/deploy/debian/control")
release=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1)

# The tree may belong to another user than the one who packages.
in_git() { git -c safe.directory="$root" -C "$root" "$@" 2>/dev/null; }

# A release is tagged; a commit on the way to it sorts before it.
version() {
    if in_git describe --tags --exact-match --match "v$release" >/dev/null; then
        echo "$release-1"
    elif commit=$(TZ=UTC in_git log -1 --format=%cd.%h --date=format-local:%Y%m%d%H%M%S --abbrev=12); then
        echo "$release~git$commit-1"
    else
        echo "$release-1"
    fi
}

version=${DEB_VERSION:-$(version)}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(in_git log -1 --format=%ct || stat -c %Y "$root/Cargo.lock")}
export NETD_ROOT NETD_BUILT SOURCE_DATE_EPOCH

mkdir -p "$out"
work=$(mktemp -d "$out/build-XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/netd"
cp -r "$root/deploy/debian" "$work/netd/debian"
cat >"$work/netd/debian/changelog" <<CHANGELOG
netd ($version) unstable; urgency=medium

  * Package of netd $release; what changed in netd is in changelog.gz.

 -- $maintainer  $(LC_ALL=C date -R -u -d "@$SOURCE_DATE_EPOCH")
CHANGELOG

# --no-check-builddeps: no compiler runs here, so nothing of build-essential is needed.
(
    umask 022
    cd "$work/netd"
    dpkg-buildpackage --build=binary --host-arch="$arch" --no-sign --no-check-builddeps
) >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    exit 1
}
mv "$work"/netd_*.deb "$out/"
echo "$out/netd_${version#*:}_$arch.deb"
