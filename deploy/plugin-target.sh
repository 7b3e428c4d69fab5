#!/bin/sh
# Prints the target for which the CNI plugin is built: this processor's with musl. Adds it
# with rustup where it is missing; where that can't be done, says on stderr what it costs
# and prints the host's own target.
set -eu
musl=$(uname -m)-unknown-linux-musl
present() { [ -d "$(rustc --print sysroot)/lib/rustlib/$musl/lib" ]; }
present || rustup target add "$musl" >&2 || true
if present; then
    echo "$musl"
    exit
fi
echo "plugin-target: rustup can't add $musl: netd-cni is built with the host's own libc," \
    "statically; its start takes about twice as long" >&2
rustc -vV | sed -n 's/^host: //p'
