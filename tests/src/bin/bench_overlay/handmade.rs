//! The same ways made with iproute2 alone: what the kernel can do without netd.

use std::net::IpAddr;

use anyhow::Result;
use testbed::{Bed, Host, Namespace, cluster::flannel::FlannelNode};

/// Two pods and what leads from one to the other.
pub struct Way {
    pub from: Namespace,
    pub to: Namespace,
    pub ip: IpAddr,
    /// Kept as long as the way.
    _hosts: Vec<Host>,
}

/// Host to host: the underlay itself.
pub fn bare(bed: &Bed) -> Result<Way> {
    let (one, two) = (bed.host("bare1")?, bed.host("bare2")?);
    let ip = two.v4.into();
    let (from, to) = (Namespace::of(one.net.path()), Namespace::of(two.net.path()));
    Ok(Way { from, to, ip, _hosts: vec![one, two] })
}

/// A pod on a bridge on each of two nodes, and vxlan or routes between them.
pub fn pods(bed: &Bed, name: &str, vxlan: bool) -> Result<Way> {
    let one = FlannelNode::vxlan(bed, &format!("{name}1"), "10.6.1.0/24")?;
    let two = FlannelNode::vxlan(bed, &format!("{name}2"), "10.6.2.0/24")?;
    for (here, there) in [(&one, &two), (&two, &one)] {
        let (net, gateway, mac) = (there.subnet, there.subnet.network(), &there.mac);
        let public = there.host.v4;
        let script = if vxlan {
            format!(
                "ip neigh replace {gateway} lladdr {mac} dev flannel.1 nud permanent
                 bridge fdb replace {mac} dev flannel.1 dst {public}
                 ip route replace {net} via {gateway} dev flannel.1 onlink"
            )
        } else {
            format!("ip link delete flannel.1; ip route replace {net} via {public}")
        };
        here.host.net.sh(&script)?;
    }
    if !vxlan {
        for pod in [&one.pod, &two.pod] {
            pod.sh("ip link set eth0 mtu 1500")?;
        }
        for host in [&one.host, &two.host] {
            host.net.sh("ip link set pod mtu 1500")?;
        }
    }
    let ip = two.pod_ip;
    Ok(Way { from: one.pod, to: two.pod, ip, _hosts: vec![one.host, two.host] })
}
