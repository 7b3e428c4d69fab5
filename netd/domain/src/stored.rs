//! Checks of records that were read back from the store. They were valid when they were
//! written, but a damaged disk, an editor of the store or another release may have changed
//! them since, and netd changes the kernel by what they say.

use std::{net::IpAddr, os::unix::ffi::OsStrExt as _};

use ipnet::IpNet;

use super::{
    Endpoint, EndpointKey, Invalid, NetworkName, Stage, Tombstone, WiredAddress, Wiring,
    WiringDriver, network::MIN_MTU_V6, pool::unusable, port_mapping,
};

/// Largest `sequence` of a record: enough for a million attaches a second during 290,000
/// years.
pub const MAX_SEQUENCE: u64 = i64::MAX as u64;
/// Smallest MTU of an Ethernet device (`ETH_MIN_MTU`).
const MIN_MTU: u32 = 68;
/// Largest MTU of a veth (`ETH_MAX_MTU`).
const MAX_MTU: u32 = 65535;

impl Endpoint {
    /// Whether netd can have written this record.
    ///
    /// # Errors
    /// Every field that is wrong; those of the wiring as `wiring.mtu`.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut bad = Invalid::new();
        check_sequence(self.sequence, &mut bad);
        match &self.netns_path {
            Some(path) if !path.is_absolute() || path.as_os_str().as_bytes().contains(&0) => {
                bad.add("netns_path", format!("{path:?} is not an absolute path"));
            }
            None if self.stage() != Some(Stage::Created) => {
                bad.add("netns_path", "missing; only an endpoint in no sandbox has none");
            }
            _ => {}
        }
        let mut wiring = Wiring::clone(&self.wiring);
        if let Some(placed) = &self.runtime_placed {
            // The runtime chooses the name, and sets the routes.
            wiring.ifname = self.key.ifname.clone();
            wiring.routes.extend(placed.routes.iter().cloned());
        }
        if let Err(inner) = wiring.check(&self.key, &self.network) {
            bad.nest("wiring", inner);
        }
        bad.into_result()
    }
}

impl Tombstone {
    /// Whether netd can have written this record.
    ///
    /// # Errors
    /// Every field that is wrong.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut bad = Invalid::new();
        check_sequence(self.sequence, &mut bad);
        for (i, ip) in self.addresses.iter().enumerate() {
            if self.addresses.iter().take(i).any(|other| other.is_ipv4() == ip.is_ipv4()) {
                bad.add(format!("addresses[{i}]"), format!("{ip} is the second of its family"));
            }
        }
        bad.into_result()
    }
}

fn check_sequence(sequence: u64, bad: &mut Invalid) {
    if sequence > MAX_SEQUENCE {
        bad.add("sequence", format!("{sequence} is above {MAX_SEQUENCE}"));
    }
}

impl Wiring {
    /// Whether [`super::AttachSpec`] can have made this wiring for `key` in `network`. Above
    /// all its devices must be the endpoint's own.
    ///
    /// # Errors
    /// Every field that is wrong.
    pub fn check(&self, key: &EndpointKey, network: &NetworkName) -> Result<(), Invalid> {
        let mut bad = Invalid::new();
        if self.network != *network {
            bad.add("network", format!("{} is not the endpoint's, {network}", self.network));
        }
        if self.host_ifname != key.host_ifname() {
            let (is, own) = (&self.host_ifname, key.host_ifname());
            bad.add("host_ifname", format!("{is} is not the endpoint's own device, {own}"));
        }
        if self.ifname != key.ifname {
            bad.add("ifname", format!("{} is not the endpoint's, {}", self.ifname, key.ifname));
        }
        if let WiringDriver::Bridge(bridge) = &self.driver
            && bridge.is_endpoint_device()
        {
            bad.add("driver.bridge", format!("{bridge} is the name of an endpoint's device"));
        }
        self.check_mtu(&mut bad);
        self.check_addresses(&mut bad);
        self.check_routes(&mut bad);
        if let Err(inner) = port_mapping::check(self.port_mappings.iter().enumerate()) {
            bad.violations.extend(inner.violations);
        }
        if let Err(inner) = self.bandwidth.check() {
            bad.nest("bandwidth", inner);
        }
        bad.into_result()
    }

    fn check_mtu(&self, bad: &mut Invalid) {
        let v6 = self.addresses.iter().any(|a| a.address.addr().is_ipv6());
        let least = if v6 { MIN_MTU_V6 } else { MIN_MTU };
        if !(least..=MAX_MTU).contains(&self.mtu) {
            bad.add("mtu", format!("{} is not in {least}..={MAX_MTU}", self.mtu));
        }
    }

    fn check_addresses(&self, bad: &mut Invalid) {
        if self.addresses.is_empty() {
            bad.add("addresses", "none; an endpoint has at least one");
        }
        for (i, one) in self.addresses.iter().enumerate() {
            let field = format!("addresses[{i}]");
            let ip = one.address.addr();
            let earlier = self.addresses.iter().take(i).map(|a| a.address.addr());
            if let Some(first) = earlier.into_iter().find(|f| f.is_ipv4() == ip.is_ipv4()) {
                bad.add(&field, format!("{ip} is the second of its family, after {first}"));
            }
            if let Some(what) = unusable(ip) {
                bad.add(&field, format!("{ip} is {what}; pods can't have it"));
            }
            match self.driver {
                WiringDriver::Bridge(_) => check_bridged(one, &field, bad),
                WiringDriver::Routed => check_routed(one, &field, bad),
            }
        }
    }

    fn check_routes(&self, bad: &mut Invalid) {
        for (i, route) in self.routes.iter().enumerate() {
            let field = format!("routes[{i}]");
            let to = route.destination;
            if to.addr() != to.network() {
                bad.add(&field, format!("{to} has host bits set"));
            }
            let other = |ip: &IpAddr| ip.is_ipv4() != to.addr().is_ipv4();
            if let Some(gateway) = route.gateway.filter(other) {
                bad.add(&field, format!("{to} via {gateway}: two address families"));
            }
            if !self.addresses.iter().any(|a| a.address.addr().is_ipv4() == to.addr().is_ipv4()) {
                bad.add(&field, format!("{to}: the endpoint has no address of this family"));
            }
        }
    }
}

/// On a bridge: the pool's prefix, in which the gateway is another address.
fn check_bridged(one: &WiredAddress, field: &str, bad: &mut Invalid) {
    let net = one.address;
    let lengths = if matches!(net, IpNet::V4(_)) { 8..=30 } else { 16..=126 };
    if !lengths.contains(&net.prefix_len()) {
        let (shortest, longest) = (lengths.start(), lengths.end());
        bad.add(field, format!("{net}: the prefix length is not in {shortest}..={longest}"));
        return;
    }
    let edge = net.addr() == net.network()
        || (matches!(net, IpNet::V4(_)) && net.addr() == net.broadcast());
    if edge {
        bad.add(field, format!("{net} is the network or the broadcast address"));
    }
    match one.gateway {
        Some(gateway) if !net.contains(&gateway) || gateway == net.addr() => {
            bad.add(field, format!("{gateway} can't be the gateway of {net}"));
        }
        _ => {}
    }
}

/// Routed: the address alone, and a link-local next hop.
fn check_routed(one: &WiredAddress, field: &str, bad: &mut Invalid) {
    let net = one.address;
    if net.prefix_len() != net.max_prefix_len() {
        let only = net.max_prefix_len();
        bad.add(field, format!("{net}: a routed address has the prefix length {only}"));
    }
    let fits = |gateway: &IpAddr| match (net, gateway) {
        (IpNet::V4(_), IpAddr::V4(ip)) => ip.is_link_local(),
        (IpNet::V6(_), IpAddr::V6(ip)) => ip.is_unicast_link_local(),
        _ => false,
    };
    if let Some(gateway) = one.gateway.filter(|g| !fits(g)) {
        bad.add(field, format!("{gateway} is not a link-local gateway of {net}'s family"));
    }
}

#[cfg(test)]
#[path = "stored_tests.rs"]
mod tests;
