//! Who reaches whom over the overlay, with which address and how large a packet.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Families, Node};
use crate::{
    hook::Sandbox,
    namespace::Namespace,
    net::probe::{self, Mirror},
    wait,
};

const PORT: u16 = 7000;

/// Whoever has addresses of the cluster.
#[derive(Debug)]
pub struct Member {
    /// For messages; unique.
    pub name: String,
    /// Where it is.
    pub net: Namespace,
    /// One of each family.
    pub ips: Vec<IpAddr>,
}

/// All pods reach all others both ways, over TCP and UDP, and are seen with their own
/// addresses. Answers how many ways were tried.
pub fn all_pairs(pods: &[Sandbox], families: Families) -> Result<usize> {
    let members = pods.iter().map(|pod| Member {
        name: pod.id.clone(),
        net: Namespace::of(pod.net.path()),
        ips: pod.ips.clone(),
    });
    all_members(&members.collect::<Vec<_>>(), families)
}

/// The same of pods and others.
pub fn all_members(members: &[Member], families: Families) -> Result<usize> {
    let mirrors = members.iter().map(|member| Mirror::serve(&member.net, PORT));
    let mirrors = mirrors.collect::<Result<Vec<_>>>()?;
    let mut ways = 0;
    for from in members {
        ensure!(from.ips.len() == families.count(), "{}: {:?}", from.name, from.ips);
        for to in members.iter().filter(|to| to.name != from.name) {
            for ip in &to.ips {
                let own = from.ips.iter().find(|own| own.is_ipv4() == ip.is_ipv4());
                let own = *own.with_context(|| format!("{} has no address for {ip}", from.name))?;
                let way = || format!("{} {own} to {} {ip}", from.name, to.name);
                for seen in [
                    probe::tcp(&from.net, *ip, PORT).with_context(way)?,
                    probe::udp(&from.net, *ip, PORT).with_context(way)?,
                ] {
                    ensure!(seen == own, "{}: seen as {seen}", way());
                }
                ways += 1;
            }
        }
    }
    drop(mirrors);
    Ok(ways)
}

/// Nodes reach the others' pods, and pods reach the other nodes.
pub fn hosts(nodes: &[Node], pods: &[Sandbox]) -> Result<()> {
    for (here, node) in nodes.iter().enumerate() {
        for (there, pod) in pods.iter().enumerate().filter(|(there, _)| *there != here) {
            for ip in &pod.ips {
                probe::ping(&node.host.net, *ip)
                    .with_context(|| format!("node {} to pod {there}", node.host.name))?;
            }
            let plan = [IpAddr::from(node.host.v4), node.host.v6.into()];
            for ip in
                plan.into_iter().filter(|ip| pod.ips.iter().any(|p| p.is_ipv4() == ip.is_ipv4()))
            {
                probe::ping(&pod.net, ip)
                    .with_context(|| format!("pod {there} to node {}", node.host.name))?;
            }
        }
    }
    Ok(())
}

/// Every pod's MTU is `mtu`; such a packet arrives in one piece, and one with a byte more
/// is refused with words.
pub fn largest(pods: &[Sandbox], mtu: u32) -> Result<()> {
    for from in pods {
        let shown = from.net.sh("ip -o link show dev eth0")?;
        ensure!(shown.contains(&format!("mtu {mtu} ")), "not {mtu}: {shown}");
        for to in pods.iter().filter(|to| to.id != from.id) {
            for ip in &to.ips {
                one_way(&from.net, *ip, mtu).with_context(|| format!("{} to {ip}", from.id))?;
            }
        }
    }
    Ok(())
}

fn one_way(from: &Namespace, to: IpAddr, mtu: u32) -> Result<()> {
    // IP's header and ICMP's 8 bytes.
    let payload = mtu - if to.is_ipv4() { 28 } else { 48 };
    let ping = |size: u32| from.sh(&format!("ping -n -c 1 -W 1 -M do -s {size} {to} 2>&1"));
    ping(payload).context("the largest packet")?;
    match ping(payload + 1) {
        Ok(printed) => bail!("a byte too much went through: {printed}"),
        Err(error) => {
            let said = format!("{error:#}").to_lowercase();
            ensure!(said.contains("message too long"), "no clear refusal: {said}");
        }
    }
    Ok(())
}

/// Packets of several times the MTU arrive if they may be cut into pieces.
pub fn in_pieces(pods: &[Sandbox], mtu: u32) -> Result<()> {
    for from in pods {
        for to in pods.iter().filter(|to| to.id != from.id) {
            for ip in &to.ips {
                from.net.sh(&format!("ping -n -c 1 -W 1 -M dont -s {} {ip}", 3 * mtu))?;
            }
        }
    }
    Ok(())
}

/// How many packets a namespace has cut into pieces.
pub fn fragmented(net: &Namespace) -> Result<u64> {
    let text = net.sh("cat /proc/net/snmp; cat /proc/net/snmp6")?;
    let ip: Vec<&str> = text.lines().filter(|line| line.starts_with("Ip: ")).collect();
    let (Some(names), Some(values)) = (ip.first(), ip.get(1)) else { bail!("{text}") };
    let mut both = names.split(' ').zip(values.split(' '));
    let v4 = both.find(|(name, _)| *name == "FragCreates").map(|(_, value)| value);
    let v6 = text.lines().find_map(|line| line.strip_prefix("Ip6FragCreates"));
    let (v4, v6) = (v4.context("no FragCreates")?, v6.context("no Ip6FragCreates")?);
    Ok(v4.trim().parse::<u64>()? + v6.trim().parse::<u64>()?)
}

/// Pings until an answer comes, within `limit`: how long that took.
pub fn until_reached(from: &Namespace, to: IpAddr, limit: Duration) -> Result<Duration> {
    let ping = || from.sh(&format!("ping -n -c 1 -W 0.2 {to}"));
    Ok(wait::until(limit, &format!("{to} answers"), ping)?.1)
}
