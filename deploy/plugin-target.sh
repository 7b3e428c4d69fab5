#!/bin/sh
# Prints the target for which the CNI plugin is built: this processor's with musl, or that of
# CARGO_BUILD_TARGET. Adds it with rustup where it is missing; where that can't be done, says on
# stderr what it costs and prints the target of the other programs.
set -eu
others=${CARGO_BUILD_TARGET:-$(rustc -vV | sed -n 's/^host: //p')}
musl=${others%%-*}-unknown-linux-musl
present() { [ -d "$(rustc --print sysroot)/lib/rustlib/$musl/lib" ]; }
present || rustup target add "$musl" >&2 || true
if present; then
    echo "$musl"
    exit
fi
echo "plugin-target: rustup can't add $musl: netd-cni is built with the host's own libc," \
    "statically; its start takes about twice as long" >&2
echo "$others"
