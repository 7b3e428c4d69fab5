#!/bin/sh
# Takes netd out of use on this machine, before `make uninstall` removes its files:
#
#   uninstall.sh BINDIR UNIT...
#
# It refuses while endpoints exist: their pods would lose the network at the next change, and
# could not be stopped. FORCE=1 goes on nevertheless. It removes the CNI plugin and the conflist,
# stops and disables the units, and removes what netd has in the kernel: its nftables tables and
# the bridges of its networks. /etc/netd and /var/lib/netd stay. CNI_BIN_DIR and CNI_CONF_DIR say
# where `netd-hook install` put its files, if not where it does by itself.
set -eu

bindir=$1
shift
run_dir=${RUN_DIR:-/run/netd}
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
# Only a netd that runs knows which bridges are its own.
bridges=
if [ -x "$bindir/netd" ] && [ -S "$run_dir/netd.sock" ]; then
    for network in $("$bindir/netd" network list --socket "$run_dir/netd.sock" | awk 'NR > 1 { print $1 }'); do
        bridges="$bridges $("$bindir/netd" network inspect "$network" \
            --socket "$run_dir/netd.sock" | awk '$1 == "bridge:" { print $2 }')"
    done
else
    echo "uninstall: netd does not run, so the bridges of its networks stay; see: ip link show type bridge" >&2
fi
if [ -d /run/systemd/system ]; then
    systemctl disable --now "$@" 2>/dev/null || :
elif [ -n "${NETD_PID:-}" ]; then
    kill "$NETD_PID"
    while [ -e "/proc/$NETD_PID/exe" ]; do sleep 0.1; done
fi
for bridge in $bridges; do
    ip link delete "$bridge" type bridge 2>/dev/null || :
done
for family in inet bridge arp; do
    nft delete table "$family" netd 2>/dev/null || :
done
rm -rf "$run_dir"
