//! The same ways made with iproute2 alone: what the kernel can do without netd.

use std::net::IpAddr;

use anyhow::Result;
use testbed::{Bed, Host, Namespace, cluster::flannel::FlannelNode};

/// Two pods and what leads from one to the other.
pub(crate) struct Way {
    pub from: Namespace,
    pub to: Namespace,
    pub ip: IpAddr,
    /// Kept as long as the way.
    _hosts: Vec<Host>,
}

/// Host to host: the underlay itself.
pub(crate) fn bare(bed: &Bed) -> Result<Way> {
    let (one, two) = (bed.host("bare1")?, bed.host("bare2")?);
    let ip = two.v4.into();
    let (from, to) = (Namespace::of(one.net.path()), Namespace::of(two.net.path()));
    Ok(Way { from, to, ip, _hosts: vec![one, two] })
}

/// A pod on a bridge on each of two nodes, and vxlan between them.
pub(crate) fn vxlan(bed: &Bed) -> Result<Way> {
    let nodes = nodes(bed, "vx")?;
    lead(&nodes)?;
    Ok(way(nodes))
}

fn lead(nodes: &[FlannelNode; 2]) -> Result<()> {
    each(nodes, |here, there| {
        let (net, gateway, mac) = (there.subnet, there.subnet.network(), &there.mac);
        here.host.net.sh(&format!(
            "ip neigh replace {gateway} lladdr {mac} dev flannel.1 nud permanent
             bridge fdb replace {mac} dev flannel.1 dst {}
             ip route replace {net} via {gateway} dev flannel.1 onlink",
            there.host.v4
        ))?;
        Ok(())
    })
}

/// The same with routes between them.
pub(crate) fn routes(bed: &Bed) -> Result<Way> {
    let nodes = nodes(bed, "gw")?;
    each(&nodes, |here, there| {
        let (net, public) = (there.subnet, there.host.v4);
        here.host
            .net
            .sh(&format!("ip link delete flannel.1; ip route replace {net} via {public}"))?;
        set_mtu(here, 1500)
    })?;
    Ok(way(nodes))
}

/// As [`vxlan`], with the one rule that flannel's nodes have for what leaves the cluster:
/// with it the kernel tracks connections, as it does for netd's rules.
pub(crate) fn tracked_vxlan(bed: &Bed) -> Result<Way> {
    let nodes = nodes(bed, "vt")?;
    lead(&nodes)?;
    each(&nodes, |here, _| {
        here.host.net.sh("nft add table ip masq
             nft add chain ip masq out '{ type nat hook postrouting priority srcnat; }'
             nft add rule ip masq out ip saddr 10.6.0.0/16 ip daddr != 10.6.0.0/16 masquerade")?;
        Ok(())
    })?;
    Ok(way(nodes))
}

/// Two nodes with a pod on a bridge each; nothing leads from one to the other.
pub(crate) fn nodes(bed: &Bed, name: &str) -> Result<[FlannelNode; 2]> {
    let node = |number: u8| {
        FlannelNode::vxlan(bed, &format!("{name}{number}"), &format!("10.6.{number}.0/24"))
    };
    Ok([node(1)?, node(2)?])
}

/// Does something on each node, which is told the other.
pub(crate) fn each(
    [one, two]: &[FlannelNode; 2],
    work: impl Fn(&FlannelNode, &FlannelNode) -> Result<()>,
) -> Result<()> {
    work(one, two)?;
    work(two, one)
}

/// The pod's MTU.
pub(crate) fn set_mtu(node: &FlannelNode, mtu: u32) -> Result<()> {
    node.pod.sh(&format!("ip link set eth0 mtu {mtu}"))?;
    node.host.net.sh(&format!("ip link set pod mtu {mtu}"))?;
    Ok(())
}

/// From the first one's pod to the second one's.
pub(crate) fn way([one, two]: [FlannelNode; 2]) -> Way {
    let ip = two.pod_ip;
    Way { from: one.pod, to: two.pod, ip, _hosts: vec![one.host, two.host] }
}
