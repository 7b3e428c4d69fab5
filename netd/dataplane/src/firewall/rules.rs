//! The rules. Only two marks in them depend on the configuration. Pure.
//!
//! Isolation and masquerade look at sets of subnets, so that the number of rules does
//! not grow with networks; `peers` holds a pair for every two subnets of one network.

use super::settings::FirewallSettings;
use crate::netlink::link_group::ENDPOINT_GROUP;

/// `inet netd`'s chains.
pub(super) fn inet(settings: &FirewallSettings) -> String {
    let FirewallSettings { hostport_mark: bit, kube_proxy_mark: kube, .. } = settings;
    let (port, clear) = (format!("0x{bit:08x}"), format!("0x{:08x}", !bit));
    INET.replace("@PORT@", &port)
        .replace("@CLEAR@", &clear)
        .replace("@KUBE@", &format!("0x{kube:08x}"))
        .replace("@GROUP@", &ENDPOINT_GROUP.to_string())
}

/// `bridge netd`'s chains.
pub(super) fn bridge() -> String {
    BRIDGE.replace("@GROUP@", &ENDPOINT_GROUP.to_string())
}

/// `arp netd`'s chains.
pub(super) fn arp() -> String {
    ARP.replace("@GROUP@", &ENDPOINT_GROUP.to_string())
}

/// Order matters in `forward`: replies first (what was allowed once is answered), then
/// what stays inside a network, then internal networks, then isolation.
///
/// `hostports` marks the connection before it looks for a port, since a translation
/// that is found ends the chain, and takes the mark back when there was none.
///
/// 127.0.0.0/8 from outside is dropped here because host ports need `route_localnet`,
/// which turns the kernel's own check off (CVE-2020-8558).
const INET: &str = r#"
	# Routed pods send with their own MAC and address only; an endpoint's link that is not
	# known sends nothing. (Packets of bridge ports come from the bridge here, checked already.)
	chain guard {
		type filter hook prerouting priority raw; policy accept;
		iifname "lo" accept
		ip daddr 127.0.0.0/8 drop
		ip saddr 127.0.0.0/8 drop
		iifgroup != @GROUP@ accept
		iifname . ether saddr . ip saddr @owners4 accept
		iifname . ether saddr . ip6 saddr @owners6 goto routed6
		drop
	}

	chain routed6 {
		icmpv6 type { nd-router-advert, nd-redirect } drop
	}

	# What conntrack can't assign to a connection is not translated either: a packet of a pod
	# behind a host port or a masquerade would arrive from an address that its receiver does
	# not know, and the receiver's reset ends the connection.
	chain invalid_of_pods {
		type filter hook prerouting priority mangle; policy accept;
		ct state invalid ip saddr @own4 goto invalid4
		ct state invalid ip6 saddr @own6 goto invalid6
	}

	# To the host, which masquerades what comes back to a pod, and out of the network.
	chain invalid4 {
		fib daddr type local drop
		ip saddr . ip daddr @peers4 accept
		ip daddr != 224.0.0.0/4 drop
	}

	chain invalid6 {
		fib daddr type local drop
		ip6 saddr . ip6 daddr @peers6 accept
		ip6 daddr != ff00::/8 drop
	}

	# Networks don't reach each other, except through a host port; internal ones reach
	# nothing but themselves and the host; some are reached by host ports only.
	chain forward {
		type filter hook forward priority filter; policy accept;
		ct direction reply ct state established,related accept
		iifname . oifname @bridges accept
		ip saddr . ip daddr @peers4 accept
		ip6 saddr . ip6 daddr @peers6 accept
		ip saddr @closed4 drop
		ip daddr @closed4 drop
		ip6 saddr @closed6 drop
		ip6 daddr @closed6 drop
		ct mark & @PORT@ != 0 accept
		ip daddr @published4 drop
		ip6 daddr @published6 drop
		ip saddr @pods4 ip daddr @pods4 drop
		ip6 saddr @pods6 ip6 daddr @pods6 drop
	}

	# A port without an address of its own is on the node's addresses (node4, node6): neither
	# on a service's, which another program keeps on a dummy device, nor on 127.0.0.53.
	chain hostports {
		ct mark set ct mark | @PORT@
		dnat ip to ip daddr . meta l4proto . th dport map @bound4
		dnat ip6 to ip6 daddr . meta l4proto . th dport map @bound6
		ip daddr @node4 dnat ip to meta l4proto . th dport map @ports4
		ip6 daddr @node6 dnat ip6 to meta l4proto . th dport map @ports6
		ct mark set ct mark & @CLEAR@
	}

	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local goto hostports
	}

	chain output {
		type nat hook output priority -100; policy accept;
		fib daddr type local goto hostports
	}

	# Through a host port from the pod itself or a neighbour, or from 127.0.0.1: the
	# answer must come back through the host. Else the source stays inside the cluster,
	# and what enters the overlay from outside of it gets the node's address there.
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		meta mark & @KUBE@ != 0 return
		ct mark & @PORT@ != 0 ip saddr . ip daddr @peers4 masquerade fully-random
		ct mark & @PORT@ != 0 ip6 saddr . ip6 daddr @peers6 masquerade fully-random
		ct mark & @PORT@ != 0 ip saddr 127.0.0.0/8 masquerade fully-random
		ip saddr @masq4 ip daddr != @pods4 ip daddr != { 224.0.0.0/4, 255.255.255.255 } masquerade fully-random
		ip6 saddr @masq6 ip6 daddr != @pods6 ip6 daddr != ff00::/8 masquerade fully-random
		ip daddr @cluster4 ip daddr != @masq4 ip saddr != @pods4 masquerade fully-random
		ip6 daddr @cluster6 ip6 daddr != @masq6 ip6 saddr != @pods6 masquerade fully-random
	}
"#;

/// Comes before the bridge learns a frame's source and before br_netfilter.
///
/// IPv6: sources are the pod's address and the link-local one of its MAC (neighbour
/// discovery uses it where the kernel has made one). Duplicate address detection asks
/// from `::` for the pod's own address; multicast reports from `::` are dropped, the
/// bridge floods without them. `@th,64,128` is the target of a solicitation or an
/// advertisement (RFC 4861, 4.3, 4.4).
///
/// No maps of verdicts: when the rules are taken away, by `nft flush ruleset` say, the kernel
/// empties a map a moment before a packet is through with the rule that asks it.
const BRIDGE: &str = r#"
	# Bridged pods send IP, ARP and neighbour discovery with their own MAC and address
	# only; a port that is not known sends nothing.
	chain guard {
		type filter hook prerouting priority -350; policy accept;
		iifgroup != @GROUP@ accept
		ether type ip goto from_ip4
		ether type ip6 goto from_ip6
		ether type arp goto from_arp
		drop
	}

	chain from_ip4 {
		ip daddr 127.0.0.0/8 drop
		iifname . ether saddr . ip saddr @owners4 accept
		drop
	}

	chain from_arp {
		iifname . ether saddr . arp saddr ip @owners4 iifname . arp saddr ether . arp saddr ip @owners4 accept
		drop
	}

	chain from_ip6 {
		iifname . ether saddr . ip6 saddr @owners6 goto own_ip6
		icmpv6 type nd-neighbor-solicit ip6 saddr :: iifname . ether saddr . @th,64,128 @targets6 accept
		drop
	}

	chain own_ip6 {
		icmpv6 type { nd-router-advert, nd-redirect } drop
		icmpv6 type nd-neighbor-advert goto advert
		accept
	}

	chain advert {
		iifname . ether saddr . @th,64,128 @targets6 accept
		drop
	}

	# A port with hairpin, by which a pod reaches itself through a host port or a Service,
	# gets what it floods back: a pod would hear its own multicast twice.
	chain reflected {
		type filter hook forward priority filter; policy accept;
		meta pkttype { broadcast, multicast } goto own_frames
	}

	chain own_frames {
		oifname . ether saddr . ip saddr @owners4 drop
		oifname . ether saddr . arp saddr ip @owners4 drop
		oifname . ether saddr . ip6 saddr @owners6 drop
		ip6 saddr :: icmpv6 type nd-neighbor-solicit oifname . ether saddr . @th,64,128 @targets6 drop
	}
"#;

const ARP: &str = r#"
	# Routed pods and the host know each other by permanent entries: any ARP of theirs
	# could only fill the host's table.
	chain guard {
		type filter hook input priority filter; policy accept;
		iifgroup @GROUP@ drop
	}
"#;
