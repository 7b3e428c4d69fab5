#!/bin/sh
# Makes the OCI image of programs that are built already, without a registry and without a daemon:
#
#   image.sh BUILT OUT NAME
#
# OUT is a tar of an OCI layout, for `ctr -n k8s.io images import`, `podman load`, `skopeo copy
# oci-archive:OUT ...` and a `docker load` of 25 or later. It holds netd's programs, nft and ip of
# this machine, the libraries that they are linked with, and no shell. The same files make the same
# bytes.
set -eu
export PATH="$PATH:/usr/sbin:/sbin"

built=$1 out=$2 name=$3
# Of nft, ip and the libraries, and so of the image.
arch=$(dpkg --print-architecture)
work=$(mktemp -d "${TMPDIR:-/tmp}/netd-image-XXXXXX")
trap 'rm -rf "$work"' EXIT
umask 022

die() {
    echo "image: $*" >&2
    exit 1
}

# The kind of processor that an ELF file is for.
machine() { od -An -t x2 -j 18 -N 2 "$1"; }

# program FILE TO: a program, and the libraries that it is linked with where they are here.
program() {
    [ -x "$1" ] || die "$1 is not there"
    [ "$(machine "$1")" = "$(machine "$(command -v nft)")" ] ||
        die "$1 is for another processor than nft of this machine: build the image where it is to run"
    strip --strip-unneeded -o "$work/root/$2" "$1" 2>/dev/null || cp -L "$1" "$work/root/$2"
    linked=$(ldd "$1" 2>&1) || case "$linked" in
    *"not a dynamic executable"*) return 0 ;;
    *) die "ldd $1: $linked" ;;
    esac
    case "$linked" in *"not found"*) die "ldd $1: $linked" ;; esac
    # "libc.so.6 => /lib/.../libc.so.6 (0x...)", and the loader without an arrow.
    echo "$linked" | { grep -o '/[^ ]*' || :; } | while read -r library; do
        to="$work/root/usr${library#/usr}"
        mkdir -p "${to%/*}"
        [ -e "$to" ] || cp -L "$library" "$to"
    done
}

# blob FILE: files it under its digest, and prints that.
blob() {
    digest=$(sha256sum <"$1" | cut -d ' ' -f 1)
    mv "$1" "$work/oci/blobs/sha256/$digest"
    echo "$digest"
}

size() { stat -c %s "$work/oci/blobs/sha256/$1"; }

pack() { tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=gnu -C "$1" -cf - .; }

mkdir -p "$work/root/usr/local/bin" "$work/root/usr/sbin" "$work/root/usr/lib" "$work/root/usr/lib64" \
    "$work/oci/blobs/sha256"
for directory in etc proc sys dev run tmp var; do mkdir "$work/root/$directory"; done
for link in lib lib64 sbin; do ln -s "usr/$link" "$work/root/$link"; done
# Runtimes name pods' namespaces there.
ln -s ../run "$work/root/var/run"
for each in netd netd-tunnel netd-hook netd-cni; do program "$built/$each" "usr/local/bin/$each"; done
for each in nft ip; do program "$(command -v "$each")" "usr/sbin/$each"; done

pack "$work/root" >"$work/layer.tar"
uncompressed=$(sha256sum <"$work/layer.tar" | cut -d ' ' -f 1)
gzip -n "$work/layer.tar"
layer=$(blob "$work/layer.tar.gz")
cat >"$work/config" <<JSON
{"architecture":"$arch","os":"linux","config":{"Entrypoint":["/usr/local/bin/netd"],"Cmd":["serve"],
"Env":["PATH=/usr/local/bin:/usr/sbin:/usr/bin"],"WorkingDir":"/"},
"rootfs":{"type":"layers","diff_ids":["sha256:$uncompressed"]}}
JSON
config=$(blob "$work/config")
cat >"$work/manifest" <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:$config","size":$(size "$config")},
"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:$layer","size":$(size "$layer")}]}
JSON
manifest=$(blob "$work/manifest")
cat >"$work/oci/index.json" <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[
{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:$manifest","size":$(size "$manifest"),
"platform":{"architecture":"$arch","os":"linux"},
"annotations":{"io.containerd.image.name":"$name","org.opencontainers.image.ref.name":"${name##*:}"}}]}
JSON
echo '{"imageLayoutVersion":"1.0.0"}' >"$work/oci/oci-layout"
mkdir -p "$(dirname "$out")"
pack "$work/oci" >"$out.$$"
mv "$out.$$" "$out"
