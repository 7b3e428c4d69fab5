//! Ranges of addresses, checked as a whole.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::error::Invalid;

/// A range of addresses for endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredPool")]
pub struct Pool {
    /// Host bits are zero.
    pub subnet: IpNet,
    /// In the subnet, never given out.
    pub gateway: IpAddr,
    /// First address given out.
    pub range_start: IpAddr,
    /// Last address given out.
    pub range_end: IpAddr,
    /// Never given out.
    pub reserved: Vec<IpNet>,
}

/// A pool as stored; checked like one that a caller sends.
#[derive(Deserialize)]
struct StoredPool {
    subnet: IpNet,
    gateway: IpAddr,
    range_start: IpAddr,
    range_end: IpAddr,
    #[serde(default)]
    reserved: Vec<IpNet>,
}

impl TryFrom<StoredPool> for Pool {
    type Error = Invalid;
    fn try_from(p: StoredPool) -> Result<Self, Invalid> {
        let range = (Some(p.range_start), Some(p.range_end));
        Self::new(p.subnet, Some(p.gateway), range, p.reserved)
    }
}

impl Pool {
    /// A pool of `subnet` with the defaults filled in: the first host address as
    /// gateway, every other host address given out.
    ///
    /// # Errors
    /// Names the field (`subnet`, `gateway`, `range_start`, ...) and the rule.
    pub fn new(
        subnet: IpNet,
        gateway: Option<IpAddr>,
        range: (Option<IpAddr>, Option<IpAddr>),
        reserved: Vec<IpNet>,
    ) -> Result<Self, Invalid> {
        let mut bad = Invalid::new();
        check_subnet(&subnet, &mut bad);
        bad.clone().into_result()?;
        let (first, last) = host_range(&subnet);
        let gateway = gateway.unwrap_or(first);
        let range_start = range.0.unwrap_or(first);
        let range_end = range.1.unwrap_or(last);
        for (field, ip) in
            [("gateway", gateway), ("range_start", range_start), ("range_end", range_end)]
        {
            if !subnet.contains(&ip) {
                bad.add(field, format!("{ip} is outside the subnet {subnet}"));
            } else if ip < first || ip > last {
                bad.add(field, format!("{ip} is the network or broadcast address of {subnet}"));
            }
        }
        if range_start > range_end {
            bad.add("range_end", format!("{range_end} is before range_start {range_start}"));
        }
        for (i, net) in reserved.iter().enumerate() {
            if !subnet.contains(net) {
                bad.add(format!("reserved[{i}]"), format!("{net} is outside the subnet {subnet}"));
            }
        }
        if range_start == range_end && range_start == gateway {
            bad.add("range_end", format!("only the gateway {gateway} is in the range"));
        }
        bad.into_result()?;
        Ok(Self { subnet, gateway, range_start, range_end, reserved })
    }

    /// Whether its addresses are IPv4.
    pub fn is_v4(&self) -> bool {
        matches!(self.subnet, IpNet::V4(_))
    }
}

fn check_subnet(subnet: &IpNet, bad: &mut Invalid) {
    if subnet.addr() != subnet.network() {
        bad.add("subnet", format!("{subnet} has host bits set; did you mean {}?", subnet.trunc()));
    }
    let (longest, shortest) = if matches!(subnet, IpNet::V4(_)) { (30, 8) } else { (126, 16) };
    if subnet.prefix_len() > longest || subnet.prefix_len() < shortest {
        let len = subnet.prefix_len();
        bad.add(
            "subnet",
            format!("{subnet}: prefix length {len} is not in {shortest}..={longest}"),
        );
    }
    if let Some(what) = unusable(subnet.addr()) {
        bad.add("subnet", format!("{subnet} is {what}; pods can't have it"));
    }
}

/// The kind of range that `ip` belongs to, if pods can't have addresses of that kind.
pub fn unusable(ip: IpAddr) -> Option<&'static str> {
    let mapped = matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let zero = ip.is_unspecified() || matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 0);
    let kind = [
        (mapped, "an IPv4-mapped IPv6 range; write it as IPv4"),
        (link_local, "a link-local range"),
        (ip.is_multicast(), "a multicast range"),
        (ip.is_loopback(), "a loopback range"),
        (matches!(ip, IpAddr::V4(v4) if v4.octets()[0] >= 240), "a reserved range"),
        (zero, "an unspecified range"),
    ];
    kind.into_iter().find(|(hit, _)| *hit).map(|(_, what)| what)
}

/// First and last address of `subnet` that a host may have: without the network
/// and broadcast addresses (IPv4) or the subnet-router anycast (RFC 4291, 2.6.1).
fn host_range(subnet: &IpNet) -> (IpAddr, IpAddr) {
    match subnet {
        IpNet::V4(n) => {
            let (a, b) = (u32::from(n.network()), u32::from(n.broadcast()));
            (IpAddr::V4((a + 1).into()), IpAddr::V4((b - 1).into()))
        }
        IpNet::V6(n) => {
            let (a, b) = (u128::from(n.network()), u128::from(n.broadcast()));
            (IpAddr::V6((a + 1).into()), IpAddr::V6(b.into()))
        }
    }
}
