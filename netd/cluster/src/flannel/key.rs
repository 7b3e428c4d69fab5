//! Names of leases: `10.5.52.0-24`, `10.5.52.0-24&fc00:5::-64`; of a cluster without IPv4
//! `0.0.0.0-0&fc00:5::-64`.

use std::{
    fmt::Display,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::fields::network;
use crate::{Subnets, peer_problem::PeerProblem};

/// Longest name: both families, every digit.
const LONGEST: usize = 19 + 1 + 43;

/// Stands for "no IPv4".
const NO_V4: &str = "0.0.0.0-0";

/// The name of a lease, as flannel writes it.
pub fn name(subnets: &Subnets) -> String {
    let v4 = subnets
        .v4
        .map_or_else(|| NO_V4.to_owned(), |n| format!("{}-{}", n.network(), n.prefix_len()));
    match subnets.v6 {
        Some(n) => format!("{v4}&{}-{}", n.network(), n.prefix_len()),
        None => v4,
    }
}

/// Reads the last part of a lease's key, what comes after `<prefix>/subnets/`.
///
/// # Errors
/// It isn't the name of a lease; flannel and netd write no such.
pub fn parse(name: &str) -> Result<Subnets, PeerProblem> {
    let wrong = |why: &dyn Display| PeerProblem {
        field: "key",
        problem: format!(
            "{:?}: {why}; a lease is named like 10.5.52.0-24 or 10.5.52.0-24&fc00:5::-64",
            name.chars().take(LONGEST + 1).collect::<String>()
        ),
    };
    if name.len() > LONGEST {
        return Err(wrong(&"too long"));
    }
    let (v4, v6) = match name.split_once('&') {
        Some((v4, v6)) => (v4, Some(v6)),
        None => (name, None),
    };
    let v6 = v6.map(|t| part::<Ipv6Addr, Ipv6Net>(t, 126)).transpose().map_err(|e| wrong(&e))?;
    if v6.is_some_and(|n| n.addr().to_ipv4_mapped().is_some()) {
        return Err(wrong(&"an IPv4 subnet written as IPv6"));
    }
    let v4 = match v4 {
        NO_V4 if v6.is_some() => None,
        _ => Some(part::<Ipv4Addr, Ipv4Net>(v4, 30).map_err(|e| wrong(&e))?),
    };
    Ok(Subnets { v4, v6 })
}

/// `ADDRESS-LENGTH` without host bits.
fn part<A, N>(text: &str, longest: u8) -> Result<N, String>
where
    A: FromStr,
    N: FromStr + Copy,
    IpNet: From<N>,
{
    let (address, len) = text.split_once('-').ok_or("no prefix length")?;
    let digits = !len.is_empty() && len.bytes().all(|b| b.is_ascii_digit());
    if !digits || (len.len() > 1 && len.starts_with('0')) {
        return Err(format!("{len:?} is not a prefix length"));
    }
    let subnet = network::<A, N>(&format!("{address}/{len}"));
    let subnet = subnet.ok_or_else(|| format!("{text:?} is not a subnet"))?;
    let net = IpNet::from(subnet);
    if net.addr() != net.network() {
        return Err(format!("{net} has host bits set"));
    }
    if !(1..=longest).contains(&net.prefix_len()) {
        return Err(format!("the prefix length of {net} is not in 1..={longest}"));
    }
    Ok(subnet)
}
