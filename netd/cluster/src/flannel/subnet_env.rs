//! `subnet.env`: what flannel tells its CNI plugin and dockerd's start script.

use std::{fmt::Write as _, str::FromStr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::Subnets;
use netd_domain::Invalid;

/// Longest file that is read, bytes; flannel's have about 200.
const LONGEST: usize = 16 * 1024;

/// One family's half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Half<N> {
    /// `FLANNEL_NETWORK`: the whole cluster's.
    pub network: N,
    /// `FLANNEL_SUBNET`, which is written with the first host's address. Without host bits.
    pub subnet: N,
}

/// The file's contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubnetEnv {
    /// IPv4.
    pub v4: Option<Half<Ipv4Net>>,
    /// IPv6.
    pub v6: Option<Half<Ipv6Net>>,
    /// `FLANNEL_MTU`, bytes.
    pub mtu: u32,
    /// `FLANNEL_IPMASQ`
    pub ip_masq: bool,
}

const V4: [&str; 2] = ["FLANNEL_NETWORK", "FLANNEL_SUBNET"];
const V6: [&str; 2] = ["FLANNEL_IPV6_NETWORK", "FLANNEL_IPV6_SUBNET"];
const MTU: &str = "FLANNEL_MTU";
const IPMASQ: &str = "FLANNEL_IPMASQ";

impl SubnetEnv {
    /// The subnets that the node has, if any.
    pub fn subnets(&self) -> Option<Subnets> {
        let subnets =
            Subnets { v4: self.v4.map(|half| half.subnet), v6: self.v6.map(|half| half.subnet) };
        (subnets.v4.is_some() || subnets.v6.is_some()).then_some(subnets)
    }

    /// The file, byte by byte as flannel writes it.
    pub fn render(&self) -> String {
        let mut out = String::new();
        if let Some(half) = &self.v4 {
            half_of(&mut out, V4, half.network.into(), half.subnet.into());
        }
        if let Some(half) = &self.v6 {
            half_of(&mut out, V6, half.network.into(), half.subnet.into());
        }
        // Writing to a string has no way to fail.
        let _ = write!(out, "{MTU}={}\n{IPMASQ}={}\n", self.mtu, self.ip_masq);
        out
    }

    /// Reads what flannel or netd wrote.
    ///
    /// # Errors
    /// Every variable that is missing or wrong.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.len() > LONGEST {
            let problem = format!("{} bytes; at most {LONGEST}", text.len());
            return Err(Invalid::field("subnet.env", problem));
        }
        let mut bad = Invalid::new();
        let v4 = half(text, V4, Ipv4Net::trunc, &mut bad);
        let v6 = half(text, V6, Ipv6Net::trunc, &mut bad);
        let mtu = required(text, MTU, &mut bad);
        let ip_masq = required(text, IPMASQ, &mut bad);
        bad.into_result()?;
        let (Some(mtu), Some(ip_masq)) = (mtu, ip_masq) else {
            return Err(Invalid::field("subnet.env", "unreadable"));
        };
        Ok(Self { v4, v6, mtu, ip_masq })
    }
}

fn half_of(out: &mut String, names: [&str; 2], network: IpNet, subnet: IpNet) {
    // The first host's address; a subnet has at least four.
    let first = subnet.hosts().find(|ip| *ip != subnet.network()).unwrap_or(subnet.addr());
    let len = subnet.prefix_len();
    let _ = write!(out, "{}={network}\n{}={first}/{len}\n", names[0], names[1]);
}

/// The last value of a variable: the file may be sourced by a shell.
fn variable<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = |line: &'a str| line.trim().strip_prefix(name)?.strip_prefix('=').map(str::trim);
    let value = text.lines().rev().find_map(line)?;
    let quoted = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
    Some(quoted('"').or_else(|| quoted('\'')).unwrap_or(value))
}

/// The two variables of a family: both or neither.
fn half<N: FromStr>(
    text: &str,
    names: [&str; 2],
    trunc: fn(&N) -> N,
    bad: &mut Invalid,
) -> Option<Half<N>> {
    let [network, subnet] = names;
    if variable(text, network).is_none() && variable(text, subnet).is_none() {
        return None;
    }
    let network = required(text, network, bad);
    let subnet = required(text, subnet, bad);
    Some(Half { network: trunc(&network?), subnet: trunc(&subnet?) })
}

fn required<T: FromStr>(text: &str, name: &str, bad: &mut Invalid) -> Option<T> {
    let Some(value) = variable(text, name) else {
        bad.add(name, "missing");
        return None;
    };
    let shown: String = value.chars().take(64).collect();
    bad.take(name, value.parse().map_err(|_| format!("{shown:?} is unreadable")))
}
