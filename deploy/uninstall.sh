#!/bin/sh
# Takes netd out of use on this machine, before `make uninstall` or the removal of the Debian
# package (/usr/libexec/netd/uninstall there) deletes its files:
#
#   uninstall.sh BINDIR UNIT...
#
# It refuses while endpoints exist: their pods would lose the network at the next change, and
# could not be stopped. FORCE=1 goes on nevertheless. It removes the CNI plugin and the conflist,
# stops the units, and removes what netd has in the kernel: its nftables tables, the bridges of
# its networks, the overlay's devices and routes. /etc/netd and /var/lib/netd stay. CNI_BIN_DIR
# and CNI_CONF_DIR say where `netd-hook install` put its files, if not where it does by itself.
set -eu

bindir=$1
shift
run_dir=${RUN_DIR:-/run/netd}
runtime_dir=$(dirname "$run_dir")
state_dir=${STATE_DIR:-/var/lib/netd}
force=
[ "${FORCE:-}" != 1 ] || force=--force

# The host's sides of endpoints, whoever asked for them: see `is_endpoint_device`.
left=$(sed -n 's/^ *\(nd[0-9a-f]\{12\}\):.*/\1/p' /proc/self/net/dev)
if [ -n "$left" ] && [ -z "$force" ]; then
    echo "uninstall: $(echo "$left" | wc -l) endpoints exist (netd endpoint list); stop their pods" \
        "and containers first (kubectl drain), or set FORCE=1" >&2
    exit 1
fi
if [ -x "$bindir/netd-hook" ]; then
    # A node that serves Docker alone has neither file.
    "$bindir/netd-hook" uninstall --socket "$run_dir/netd.sock" $force \
        ${CNI_BIN_DIR:+--bin-dir "$CNI_BIN_DIR"} ${CNI_CONF_DIR:+--conf-dir "$CNI_CONF_DIR"}
fi
# The firewall names the bridges of netd's networks, also while netd does not run.
bridges=$(nft list set inet netd bridges 2>/dev/null | grep -o '"[^"]*" \.' | cut -d '"' -f 2)
if [ -d /run/systemd/system ]; then
    systemctl stop "$@" 2>/dev/null || :
elif [ -n "${NETD_PID:-}" ]; then
    kill "$NETD_PID"
    while [ -e "/proc/$NETD_PID/exe" ]; do sleep 0.1; done
fi
# The overlay's devices have an alias of netd's, and routes to other nodes its protocol.
overlay=$(ip -o link show | sed -n 's/^[0-9]*: \([^:@]*\)[:@].*alias netd overlay.*/\1/p')
for bridge in $bridges; do
    ip link delete "$bridge" type bridge 2>/dev/null || :
done
for device in $overlay; do
    ip link delete "$device" 2>/dev/null || :
done
for version in -4 -6; do
    ip $version route flush table all proto 110 2>/dev/null || :
done
for family in inet bridge arp; do
    nft delete table "$family" netd 2>/dev/null || :
done
# A lease that netd wrote, unless flanneld has taken the file over.
if [ -e "$state_dir/overlay/overlay.json" ] && ! pidof flanneld >/dev/null; then
    rm -f "$runtime_dir/flannel/subnet.env" "$runtime_dir/flannel/docker"
fi
rm -f "$runtime_dir/docker/plugins/netd.sock"
rm -rf "$run_dir"
# The units made these.
for dir in flannel docker/plugins docker; do
    rmdir "$runtime_dir/$dir" 2>/dev/null || :
done
