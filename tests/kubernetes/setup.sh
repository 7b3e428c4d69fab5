#!/bin/sh
# Builds the Kubernetes that the tests run: Debian 12's source package, by Debian's Go.
#
#   tests/kubernetes/setup.sh
#
# kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy and kubectl come to
# ${XDG_CACHE_HOME:-~/.cache}/netd-testbed/kubernetes/bin, with render, which renders charts; they
# are built again only when this script or render.go has changed. It takes five minutes on two
# processors and 1.8 GB meanwhile.
# KUBE_BIN names a directory with those programs of another release: then nothing is built.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/netd-testbed/kubernetes"
# Where apt keeps what it knows of the suites: of this script's own, for it reads sources, too.
bed="$cache"
work="$cache/work"
programs="kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl"
export PATH="$PATH:/usr/sbin:/sbin"
. "$root/tests/mirrors.sh"

say() { echo "kubernetes: $*"; }
die() {
    echo "kubernetes: $*" >&2
    exit 1
}

recipe() { cat "$0" "$root/tests/kubernetes/render.go" | sha256sum | cut -d ' ' -f 1; }

is_there() {
    for program in $programs; do
        [ -x "$1/$program" ] || return 1
    done
}

# Debian's files, below $work/files: Go and reflect2 as packages, Kubernetes as its source.
fetch() {
    lists=$bed/apt/bookworm
    mkdir -p "$lists/state/lists/partial" "$lists/cache/archives/partial" "$work/files"
    : >"$lists/status"
    tried=
    for uri in $(candidates); do
        tried="$tried $uri"
        echo "deb [check-valid-until=no signed-by=$keyring] $uri bookworm main" >"$lists/sources.list"
        sed -i 'p; s/^deb /deb-src /' "$lists/sources.list"
        suite_apt bookworm update -o APT::Update::Error-Mode=any >"$lists/log" 2>&1 && break
        tail -n 5 "$lists/log" >&2
        tried="$tried (no)"
    done
    case "$tried" in
    "" | *"(no)") die "no mirror has Debian 12 with its sources (tried:$tried); NETD_DEBIAN_MIRROR names another mirror" ;;
    esac
    say "fetching Kubernetes' source and Go of Debian 12"
    cd "$work/files"
    suite_apt bookworm source --download-only kubernetes >"$lists/log" 2>&1 &&
        suite_apt bookworm download golang-1.19-go golang-1.19-src \
            golang-github-modern-go-reflect2-dev >>"$lists/log" 2>&1 || {
        tail -n 20 "$lists/log" >&2
        die "a package could not be fetched"
    }
}

unpack() {
    mkdir -p "$source" "$work/go" "$work/tmp"
    tar -xzf "$work"/files/kubernetes_*.orig.tar.gz -C "$source" --strip-components=1 \
        --exclude='*_test.go' --wildcards '*/cmd' '*/pkg' '*/plugin' '*/staging' '*/third_party' \
        '*/vendor'
    for deb in "$work"/files/golang-1.19-*.deb; do
        dpkg-deb --fsys-tarfile "$deb" |
            tar -x -C "$work/go" --exclude=./usr/share/go-1.19/test --exclude=./usr/share/doc
    done
    # The vendored one makes the API server crash at the first custom resource, by this Go.
    rm -r "$source/vendor/github.com/modern-go/reflect2"
    dpkg-deb --fsys-tarfile "$work"/files/golang-github-modern-go-reflect2-dev_*.deb |
        tar -x -C "$source/vendor" --strip-components=5 ./usr/share/gocode/src
}

# The API server needs code that upstream's Makefile makes.
generate_openapi() {
    go build -gcflags=all=-dwarf=false -o "$work/openapi-gen" \
        ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
    packages=$(grep -rl --include='*.go' '^// *+k8s:openapi-gen=' cmd pkg plugin staging/src/k8s.io |
        xargs -n1 dirname | sort -u | sed 's,^staging/src,vendor,' |
        grep -v '^vendor/k8s.io/\(code-generator\|sample-apiserver\)' |
        sed 's,^,k8s.io/kubernetes/,' | paste -sd,)
    "$work/openapi-gen" --logtostderr -i "$packages" -p k8s.io/kubernetes/pkg/generated/openapi \
        -O zz_generated.openapi -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt \
        -r "$work/violations"
}

compile() {
    export GOROOT="$work/go/usr/lib/go-1.19" GOPATH="$work/gopath" GOCACHE="$work/cache"
    export GOTMPDIR="$work/tmp" GO111MODULE=off CGO_ENABLED=0 GOFLAGS='-p=2 -trimpath' GOGC=400
    export PATH="$GOROOT/bin:$PATH"
    cd "$source"
    generate_openapi
    version=$(basename "$work"/files/kubernetes_*.orig.tar.gz | sed 's/^kubernetes_//; s/^.*really//; s/[.]orig[.].*$//')
    stamps=
    for package in component-base client-go/pkg; do
        at="k8s.io/kubernetes/vendor/k8s.io/$package/version"
        stamps="$stamps -X $at.gitVersion=v$version -X $at.gitMajor=1"
        stamps="$stamps -X $at.gitMinor=$(echo "$version" | cut -d . -f 2) -X $at.gitTreeState=clean"
    done
    mkdir -p "$cache/bin.new"
    # shellcheck disable=SC2046  # a list of words is meant
    go build -tags providerless,dockerless -gcflags=all=-dwarf=false -ldflags "-s -w $stamps" \
        -o "$cache/bin.new/" $(echo "$programs" | sed 's,[^ ]*,./cmd/&,g')
    # Below the source, because it takes the YAML package from there.
    mkdir cmd/render
    cp "$root/tests/kubernetes/render.go" cmd/render/
    go build -o "$cache/bin.new/" ./cmd/render
}

if [ -n "${KUBE_BIN:-}" ]; then
    is_there "$KUBE_BIN" || die "KUBE_BIN=$KUBE_BIN lacks one of $programs"
    say "taking the programs of $KUBE_BIN"
    exit
fi
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if is_there "$cache/bin" && [ "$(cat "$cache/bin/recipe" 2>/dev/null)" = "$(recipe)" ]; then
    say "the programs are there"
    exit
fi
recipe=$(recipe)
rm -rf "$work" "$cache/bin.new" "$bed/apt"
source="$work/gopath/src/k8s.io/kubernetes"
mkdir -p "$work"
fetch
unpack
say "building $programs"
compile >"$cache/log" 2>&1 || {
    tail -n 20 "$cache/log" >&2
    die "the build failed (log: $cache/log)"
}
is_there "$cache/bin.new" || die "the build left no programs (log: $cache/log)"
echo "$recipe" >"$cache/bin.new/recipe"
rm -rf "$cache/bin" "$work" "$bed/apt"
mv "$cache/bin.new" "$cache/bin"
say "built $("$cache/bin/kube-apiserver" --version)"
