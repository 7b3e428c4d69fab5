//! Makes an endpoint's wiring from a request and a network: pure arithmetic.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    access::{NotAllowed, Wish},
    bandwidth::Bandwidth,
    endpoint::{Dns, PodIdentity},
    error::Invalid,
    ids::{EndpointKey, IfName, Mac, NetworkName, fnv1a},
    network::{Driver, Network},
    pool::Pool,
    port_mapping::{self, PortMapping},
    wiring::{
        BridgeWiring, NetworkWiring, ROUTED_GATEWAY_V4, ROUTED_GATEWAY_V6, Route, WiredAddress,
        Wiring, WiringDriver,
    },
};

/// Whether a sandbox's default routes lead through an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DefaultRoute {
    /// Only if it is the first endpoint of its sandbox.
    #[default]
    First,
    /// In any case. Those of the sandbox's other endpoints stay, behind its own.
    Always,
    Never,
}

/// A caller's request for an endpoint. Each field is valid by itself.
#[derive(Debug, Clone)]
pub struct AttachSpec {
    /// Identity of the endpoint.
    pub key: EndpointKey,
    /// Path of the sandbox's network namespace, absolute; `None`: in no sandbox yet.
    pub netns_path: Option<PathBuf>,
    /// The network to join.
    pub network: NetworkName,
    /// The pod's identity.
    pub pod: PodIdentity,
    /// The pod's labels.
    pub labels: BTreeMap<String, String>,
    /// The pod's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Requested addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// Requested MAC.
    pub mac: Option<Mac>,
    /// Requested MTU, bytes.
    pub mtu: Option<u32>,
    /// Host ports.
    pub port_mappings: Vec<PortMapping>,
    /// Rate limits.
    pub bandwidth: Bandwidth,
    /// Resolver settings.
    pub dns: Dns,
    /// Whether the default routes lead through it.
    pub default_route: DefaultRoute,
    /// When the caller issued the request; CLOCK_BOOTTIME, ns.
    pub issued_at: u64,
    /// Name of the caller.
    pub source: String,
}

/// An address and the pool it is from.
#[derive(Debug, Clone)]
pub struct Assigned<'a> {
    /// The address.
    pub ip: IpAddr,
    /// Its pool.
    pub pool: &'a Pool,
}

impl Network {
    /// What the kernel has to hold for this network; `mtu` is the one to use, bytes.
    pub fn wiring(&self, mtu: u32) -> NetworkWiring {
        let gateways = self.pools.iter();
        let addresses =
            gateways.filter_map(|p| IpNet::new(p.gateway, p.subnet.prefix_len()).ok()).collect();
        let bridge = (self.driver == Driver::Bridge).then(|| BridgeWiring {
            name: self.bridge.clone(),
            mac: bridge_mac(&self.bridge),
            addresses,
        });
        NetworkWiring {
            name: self.name.clone(),
            bridge,
            mtu,
            subnets: self.pools.iter().map(|p| p.subnet).collect(),
            cluster: self.leased.iter().flat_map(|l| l.cluster.iter().copied()).collect(),
            docker0: self.leased.iter().flat_map(|l| l.docker0.iter().copied()).collect(),
            masquerade: self.masquerade,
            internal: self.internal,
            published_only: self.published_only,
        }
    }
}

/// The fixed MAC of a bridge.
pub fn bridge_mac(bridge: &IfName) -> Mac {
    Mac::derived(format!("bridge/{bridge}").as_bytes())
}

impl AttachSpec {
    /// An endpoint in no sandbox yet, with nothing asked for but its network.
    pub fn for_endpoint(key: EndpointKey, network: NetworkName, issued_at: u64) -> Self {
        Self {
            key,
            netns_path: None,
            network,
            pod: PodIdentity::default(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            addresses: Vec::new(),
            mac: None,
            mtu: None,
            port_mappings: Vec::new(),
            bandwidth: Bandwidth::default(),
            dns: Dns::default(),
            default_route: DefaultRoute::First,
            issued_at,
            source: String::new(),
        }
    }

    /// Whether `network` gives the pod what it asks for.
    ///
    /// # Errors
    /// [`NotAllowed`].
    pub fn check_access(&self, network: &Network) -> Result<(), NotAllowed> {
        let asked = [
            (Wish::Network, true),
            (Wish::Addresses, !self.addresses.is_empty()),
            (Wish::Mac, self.mac.is_some()),
        ];
        let wishes: Vec<Wish> =
            asked.into_iter().filter(|(_, asked)| *asked).map(|(wish, _)| wish).collect();
        if self.pod.namespace.is_empty() {
            return Ok(());
        }
        network.access().check(&network.name, &self.pod.namespace, &wishes)
    }

    /// The endpoint's wiring in `network` with these addresses; `mtu` is the MTU of the
    /// network, bytes; `first`: the sandbox has no other endpoint.
    ///
    /// # Errors
    /// `mtu`, `port_mappings[i].host_ip`: values that don't fit the network.
    pub fn build_wiring(
        &self,
        network: &Network,
        assigned: &[Assigned<'_>],
        mtu: u32,
        first: bool,
    ) -> Result<Wiring, Invalid> {
        self.check_against(assigned, mtu)?;
        let first_ip = assigned.first().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |a| a.ip);
        let (driver, addresses, routes) = match network.driver {
            Driver::Bridge => self.bridged(network, assigned, first),
            Driver::Routed => self.routed(network, assigned, first),
        };
        Ok(Wiring {
            network: network.name.clone(),
            driver,
            host_ifname: self.key.host_ifname(),
            ifname: self.key.ifname.clone(),
            mac: self.mac.unwrap_or_else(|| Mac::of_ip(first_ip)),
            host_mac: Mac::derived(format!("host/{}", self.key).as_bytes()),
            mtu: self.mtu.unwrap_or(mtu),
            addresses,
            routes,
            port_mappings: self.port_mappings.clone(),
            bandwidth: self.bandwidth,
            pod_mac: None,
        })
    }

    fn leads_out(&self, network: &Network, first: bool) -> bool {
        let asked = match self.default_route {
            DefaultRoute::First => first,
            DefaultRoute::Always => true,
            DefaultRoute::Never => false,
        };
        asked && !network.internal
    }

    fn check_against(&self, assigned: &[Assigned<'_>], mtu: u32) -> Result<(), Invalid> {
        let mut bad = Invalid::new();
        let v6 = assigned.iter().any(|a| a.ip.is_ipv6());
        let least = if v6 { super::network::MIN_MTU_V6 } else { super::network::MIN_MTU_V4 };
        if let Some(asked) = self.mtu
            && !(least..=mtu).contains(&asked)
        {
            bad.add("mtu", format!("{asked} is not in {least}..={mtu}, the network's MTU"));
        }
        let ips = assigned.iter().map(|a| a.ip);
        if let Err(inner) = port_mapping::check_families(&self.port_mappings, ips) {
            bad.violations.extend(inner.violations);
        }
        bad.into_result()
    }

    fn bridged(
        &self,
        network: &Network,
        assigned: &[Assigned<'_>],
        first: bool,
    ) -> (WiringDriver, Vec<WiredAddress>, Vec<Route>) {
        let (mut addresses, mut routes) = (Vec::new(), Vec::new());
        for Assigned { ip, pool } in assigned {
            let Ok(address) = IpNet::new(*ip, pool.subnet.prefix_len()) else { continue };
            addresses.push(WiredAddress { address, gateway: Some(pool.gateway) });
            // The network's other pools are on the same bridge. Leased ones come and go, but
            // the gateway has a route to each.
            let pools = if network.leased.is_some() { &[] } else { network.pools.as_slice() };
            let others = pools.iter().filter(|p| p.is_v4() == pool.is_v4());
            let others = others.filter(|p| p.subnet != pool.subnet);
            routes.extend(others.map(|p| Route { destination: p.subnet, gateway: None }));
            let gateway = Some(pool.gateway);
            if self.leads_out(network, first) {
                routes.extend(default(*ip, first).map(|net| Route { destination: net, gateway }));
            } else {
                routes.extend(cluster(network, *ip).map(|net| Route { destination: net, gateway }));
            }
        }
        (WiringDriver::Bridge(network.bridge.clone()), addresses, routes)
    }

    fn routed(
        &self,
        network: &Network,
        assigned: &[Assigned<'_>],
        first: bool,
    ) -> (WiringDriver, Vec<WiredAddress>, Vec<Route>) {
        let (mut addresses, mut routes) = (Vec::new(), Vec::new());
        for Assigned { ip, pool } in assigned {
            let gateway = self.routed_gateway(*ip, first);
            addresses.push(WiredAddress { address: IpNet::from(*ip), gateway: Some(gateway) });
            routes.push(Route { destination: IpNet::from(gateway), gateway: None });
            if !self.leads_out(network, first) {
                let pools = network.pools.iter().filter(|p| p.is_v4() == pool.is_v4());
                let mut there: Vec<IpNet> = pools.map(|p| p.subnet).collect();
                if network.leased.is_some() {
                    there = cluster(network, *ip).collect();
                }
                let via = |net| Route { destination: net, gateway: Some(gateway) };
                routes.extend(there.into_iter().map(via));
            } else {
                let via = |net| Route { destination: net, gateway: Some(gateway) };
                routes.extend(default(*ip, first).map(via));
            }
        }
        (WiringDriver::Routed, addresses, routes)
    }

    /// The well-known next hop. Additional interfaces have one of their own, because two
    /// interfaces of a sandbox can't have the same on-link route.
    fn routed_gateway(&self, ip: IpAddr, first: bool) -> IpAddr {
        let hash = fnv1a(self.key.ifname.as_str().as_bytes());
        match (ip, !first || self.default_route == DefaultRoute::Never) {
            (IpAddr::V4(_), false) => ROUTED_GATEWAY_V4,
            (IpAddr::V6(_), false) => ROUTED_GATEWAY_V6,
            (IpAddr::V4(_), true) => {
                let [a, b, ..] = hash.to_be_bytes();
                IpAddr::V4(Ipv4Addr::new(169, 254, 2 + a % 250, 1 + b % 250))
            }
            (IpAddr::V6(_), true) => {
                IpAddr::V6(Ipv6Addr::from((0xfe80u128 << 112) | u128::from(hash | 2)))
            }
        }
    }
}

/// The ranges of the network's endpoints on all nodes, in the family of `ip`.
fn cluster(network: &Network, ip: IpAddr) -> impl Iterator<Item = IpNet> {
    let all = network.leased.iter().flat_map(|l| l.cluster.iter().copied());
    all.filter(move |net| matches!(net, IpNet::V4(_)) == ip.is_ipv4())
}

/// The default route's destination in the family of `ip`. An endpoint that is not the first of its
/// sandbox has two halves instead: they come before the others' default routes, which stay. Two
/// default routes would take turns: the kernel looks for one whose gateway answers.
fn default(ip: IpAddr, first: bool) -> impl Iterator<Item = IpNet> {
    let all = match ip {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
    };
    let halves = all.subnets(1).into_iter().flatten().filter(move |_| !first);
    first.then_some(all).into_iter().chain(halves)
}
