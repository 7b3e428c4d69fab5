//! Networks, checked as a whole.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    access::PodAccess,
    error::Invalid,
    ids::{IfName, NetworkName, fnv1a},
    pool::Pool,
};

/// How endpoints of a network are wired on a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// One Linux bridge a network.
    #[default]
    Bridge,
    /// Host routes, no bridge.
    Routed,
}

/// What netd puts back when another program has changed it. The host's side of an endpoint is
/// always netd's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RepairScope {
    /// The host's side only. Inside a pod others may own what netd made: a sandbox with a
    /// network stack of its own, a virtual machine, plugins that come later in the chain.
    #[default]
    Host,
    /// The pod's side too.
    Pod,
}

impl RepairScope {
    fn is_host(&self) -> bool {
        *self == Self::Host
    }
}

/// A group of endpoints that reach each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredNetwork")]
pub struct Network {
    /// Unique.
    pub name: NetworkName,
    /// How endpoints are wired.
    pub driver: Driver,
    /// At least one; pools of one family are filled in this order.
    pub pools: Vec<Pool>,
    /// Bridge driver: the bridge's name.
    pub bridge: IfName,
    /// Bytes; `None`: the underlay's.
    pub mtu: Option<u32>,
    /// Pods have the node's address towards the outside (masquerade).
    pub masquerade: bool,
    /// No traffic to or from outside of the network.
    pub internal: bool,
    /// From outside of the network and of the node, endpoints are reached by host ports only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub published_only: bool,
    /// What is put back when another program has changed it.
    #[serde(default, skip_serializing_if = "RepairScope::is_host")]
    pub repair: RepairScope,
    /// Its pools are taken though the host itself is in a network that overlaps with them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_host_overlap: bool,
    /// The pools are the subnets that this node has of a cluster's overlay; `None`: they
    /// are the network's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leased: Option<Leased>,
    /// Which pods may use it. Stored only where it is not that of a new network of its name;
    /// earlier releases had no such thing.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "pods")]
    access: Option<PodAccess>,
}

/// What a network with leased pools knows of the overlay. It is stored, so that a node that
/// starts without the cluster's store makes the same network again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leased {
    /// The whole cluster's networks, at most one a family; empty as long as they aren't known.
    pub cluster: Vec<IpNet>,
    /// Largest MTU that fits into the overlay, bytes; `None` as long as it isn't known.
    pub mtu: Option<u32>,
    /// The node's subnets of which docker0 gives out the addresses, at most one a family;
    /// none of them is a pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub docker0: Vec<IpNet>,
}

/// A network as stored; checked like one that a caller sends.
#[derive(Deserialize)]
struct StoredNetwork {
    name: NetworkName,
    driver: Driver,
    pools: Vec<Pool>,
    bridge: IfName,
    mtu: Option<u32>,
    masquerade: bool,
    internal: bool,
    #[serde(default)]
    published_only: bool,
    #[serde(default)]
    repair: RepairScope,
    #[serde(default)]
    allow_host_overlap: bool,
    #[serde(default)]
    leased: Option<Leased>,
    #[serde(default)]
    pods: Option<PodAccess>,
}

impl TryFrom<StoredNetwork> for Network {
    type Error = Invalid;
    fn try_from(n: StoredNetwork) -> Result<Self, Invalid> {
        let options = NetworkOptions {
            driver: n.driver,
            bridge: Some(n.bridge),
            mtu: n.mtu,
            masquerade: n.masquerade,
            internal: n.internal,
            published_only: n.published_only,
            repair: n.repair,
            allow_host_overlap: n.allow_host_overlap,
            leased: n.leased,
            access: n.pods,
        };
        Self::new(n.name, n.pools, options)
    }
}

/// Smallest MTU of IPv6 (RFC 8200, section 5).
pub const MIN_MTU_V6: u32 = 1280;
/// Smallest MTU that every IPv4 host accepts (RFC 791).
pub const MIN_MTU_V4: u32 = 576;

/// The optional parts of a network; see [`Network::new`].
#[derive(Debug, Clone, Default)]
pub struct NetworkOptions {
    /// How endpoints are wired.
    pub driver: Driver,
    /// Name of the bridge.
    pub bridge: Option<IfName>,
    /// Bytes.
    pub mtu: Option<u32>,
    /// Pods have the node's address towards the outside.
    pub masquerade: bool,
    /// No traffic to or from outside of the network.
    pub internal: bool,
    /// From outside, endpoints are reached by host ports only.
    pub published_only: bool,
    /// What is put back when another program has changed it.
    pub repair: RepairScope,
    /// The host may be in a network that overlaps with a pool.
    pub allow_host_overlap: bool,
    /// The pools come and go with the node's leases; there may be none yet.
    pub leased: Option<Leased>,
    /// Which pods may use it; `None`: see [`PodAccess::of_new`].
    pub access: Option<PodAccess>,
}

impl Network {
    /// Puts a network together and checks it as a whole.
    ///
    /// # Errors
    /// `pools`, `mtu`, `bridge`: what is wrong with each.
    pub fn new(
        name: NetworkName,
        pools: Vec<Pool>,
        options: NetworkOptions,
    ) -> Result<Self, Invalid> {
        let mut bad = Invalid::new();
        if pools.is_empty() && options.leased.is_none() {
            bad.add("pools", "a network needs at least one pool, e.g. 10.88.0.0/16");
        }
        for (i, pool) in pools.iter().enumerate() {
            let earlier = pools.iter().take(i).find(|p| overlap(&p.subnet, &pool.subnet));
            if let Some(other) = earlier {
                let text = format!("{} overlaps with the pool {}", pool.subnet, other.subnet);
                bad.add(format!("pools[{i}].subnet"), text);
            }
        }
        let v6 = pools.iter().any(|p| !p.is_v4());
        let least = if v6 { MIN_MTU_V6 } else { MIN_MTU_V4 };
        if let Some(mtu) = options.mtu
            && !(least..=65535).contains(&mtu)
        {
            bad.add("mtu", format!("{mtu} is not in {least}..=65535"));
        }
        let bridge = match options.bridge {
            Some(name) => name,
            None => default_bridge(&name).map_err(|e| Invalid::field("bridge", e))?,
        };
        if bridge.is_endpoint_device() {
            bad.add("bridge", format!("{bridge}: such names are those of endpoints' devices"));
        }
        bad.into_result()?;
        let access = options.access.filter(|access| *access != PodAccess::of_new(&name));
        Ok(Self {
            bridge,
            name,
            driver: options.driver,
            pools,
            mtu: options.mtu,
            masquerade: options.masquerade && !options.internal,
            internal: options.internal,
            published_only: options.published_only,
            repair: options.repair,
            allow_host_overlap: options.allow_host_overlap,
            leased: options.leased,
            access,
        })
    }

    /// Which pods may use the network, and what they may ask for.
    pub fn access(&self) -> PodAccess {
        self.access.clone().unwrap_or_else(|| PodAccess::of_new(&self.name))
    }

    /// Whether its access is another than that of a new network of its name.
    pub fn has_own_access(&self) -> bool {
        self.access.is_some()
    }

    /// The same network, open to other pods.
    pub fn with_access(&self, access: PodAccess) -> Self {
        let access = Some(access).filter(|access| *access != PodAccess::of_new(&self.name));
        Self { access, ..self.clone() }
    }

    /// The same network with other leased subnets.
    ///
    /// # Errors
    /// `pools[i].subnet`: a subnet that no pool can be made of.
    pub fn with_leases(&self, subnets: &[IpNet], leased: Leased) -> Result<Self, Invalid> {
        let mut pools = Vec::with_capacity(subnets.len());
        for (i, subnet) in subnets.iter().enumerate() {
            let kept = self.pools.iter().find(|p| p.subnet == *subnet).cloned();
            let made = kept.map_or_else(|| Pool::new(*subnet, None, (None, None), vec![]), Ok);
            pools.push(made.map_err(|e| Invalid::field(format!("pools[{i}].subnet"), e))?);
        }
        let options = NetworkOptions {
            driver: self.driver,
            bridge: Some(self.bridge.clone()),
            mtu: self.mtu,
            masquerade: self.masquerade,
            internal: self.internal,
            published_only: self.published_only,
            repair: self.repair,
            allow_host_overlap: self.allow_host_overlap,
            leased: Some(leased),
            access: self.access.clone(),
        };
        Self::new(self.name.clone(), pools, options)
    }

    /// The MTU of its endpoints, bytes, on an underlay whose device has `underlay`.
    pub fn effective_mtu(&self, underlay: u32) -> u32 {
        let leased = self.leased.as_ref().and_then(|leased| leased.mtu);
        self.mtu.or(leased).unwrap_or(underlay)
    }

    /// Every address range of the network, on this node and on others, each once.
    pub fn ranges(&self) -> Vec<IpNet> {
        let cluster = self.leased.iter().flat_map(|l| l.cluster.iter().copied());
        let mut all: Vec<IpNet> = cluster.collect();
        for pool in &self.pools {
            if !all.iter().any(|net| net.contains(&pool.subnet)) {
                all.push(pool.subnet);
            }
        }
        all
    }

    /// The reason, if the two can't be on one node: overlapping pools, or the same bridge.
    pub fn clash(&self, other: &Network) -> Option<String> {
        if let Some((mine, theirs)) = self.conflict(other) {
            return Some(format!(
                "pool {mine} overlaps with {theirs} of network \"{}\"",
                other.name
            ));
        }
        let bridges = self.driver == Driver::Bridge && other.driver == Driver::Bridge;
        (bridges && self.bridge == other.bridge)
            .then(|| format!("bridge {} belongs to network \"{}\"", self.bridge, other.name))
    }

    /// A range of this network and one of `other` that overlap.
    pub fn conflict(&self, other: &Network) -> Option<(IpNet, IpNet)> {
        let theirs = other.ranges();
        let mine = self.ranges();
        let mut pairs = mine.iter().flat_map(|a| theirs.iter().map(move |b| (*a, *b)));
        pairs.find(|(a, b)| overlap(a, b))
    }
}

/// `cni0` for the default network, else a name made from the network's.
fn default_bridge(name: &NetworkName) -> Result<IfName, super::ids::NameError> {
    if name.as_str() == NetworkName::DEFAULT {
        return "cni0".parse();
    }
    format!("nbr{:012x}", fnv1a(name.as_str().as_bytes()) >> 16).parse()
}

/// Whether two subnets share an address.
pub fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pool(s: &str) -> Result<Pool, Invalid> {
        Pool::new(s.parse().unwrap(), None, (None, None), vec![])
    }

    #[test]
    fn defaults_keep_out_network_broadcast_and_name_the_first_host_gateway() {
        let p = pool("10.88.0.0/16").unwrap();
        assert_eq!(p.gateway.to_string(), "10.88.0.1");
        assert_eq!(p.range_start.to_string(), "10.88.0.1");
        assert_eq!(p.range_end.to_string(), "10.88.255.254");
        let p = pool("fd00:88::/64").unwrap();
        assert_eq!(p.gateway.to_string(), "fd00:88::1");
    }

    #[test]
    fn unusable_subnets_are_refused_by_name() {
        for (subnet, word) in [
            ("10.0.0.1/16", "host bits"),
            ("10.0.0.0/31", "prefix length"),
            ("10.0.0.0/32", "prefix length"),
            ("::ffff:10.0.0.0/112", "IPv4-mapped"),
            ("224.0.0.0/8", "multicast"),
            ("127.0.0.0/8", "loopback"),
            ("169.254.0.0/16", "link-local"),
            ("fe80::/64", "link-local"),
            ("0.0.0.0/8", "unspecified"),
            ("240.0.0.0/8", "reserved"),
        ] {
            let err = pool(subnet).unwrap_err().to_string();
            assert!(err.contains(word) && err.contains(subnet), "{err}");
        }
    }

    #[test]
    fn gateway_and_range_must_lie_inside() {
        let net: IpNet = "10.1.0.0/24".parse().unwrap();
        let ip = |s: &str| Some(s.parse().unwrap());
        let err =
            Pool::new(net, ip("10.2.0.1"), (ip("10.1.0.0"), ip("10.1.0.255")), vec![]).unwrap_err();
        let fields: Vec<_> = err.violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["gateway", "range_start", "range_end"]);
        assert!(Pool::new(net, None, (ip("10.1.0.9"), ip("10.1.0.5")), vec![]).is_err());
        assert!(Pool::new(net, None, (None, None), vec!["10.2.0.0/24".parse().unwrap()]).is_err());
    }

    #[test]
    fn a_leased_network_may_have_no_pool_yet_and_reaches_over_the_whole_cluster() {
        let options = NetworkOptions { leased: Some(Leased::default()), ..Default::default() };
        let network = Network::new("default".parse().unwrap(), vec![], options).unwrap();
        assert!(network.ranges().is_empty());
        let nets: Vec<IpNet> =
            ["10.5.7.0/24", "172.30.1.0/24"].iter().map(|s| s.parse().unwrap()).collect();
        let cluster = vec!["10.5.0.0/16".parse().unwrap()];
        let leased = Leased { cluster, mtu: Some(1450), ..Default::default() };
        let network = network.with_leases(&nets, leased).unwrap();
        let ranges: Vec<_> = network.ranges().iter().map(ToString::to_string).collect();
        assert_eq!(ranges, ["10.5.0.0/16", "172.30.1.0/24"]);
        let other = vec![pool("10.5.200.0/24").unwrap()];
        let other = Network::new("blue".parse().unwrap(), other, NetworkOptions::default());
        assert!(network.clash(&other.unwrap()).unwrap().contains("10.5.0.0/16"));
    }

    #[test]
    fn a_record_of_an_earlier_release_is_open_to_pods_only_if_it_is_default() {
        for (name, open) in [("default", true), ("blue", false)] {
            let pools = vec![pool("10.1.0.0/16").unwrap()];
            let network = Network::new(name.parse().unwrap(), pools, NetworkOptions::default());
            let stored = serde_json::to_value(network.unwrap()).unwrap();
            assert!(stored.get("pods").is_none(), "earlier releases had no such key");
            let read: Network = serde_json::from_value(stored).unwrap();
            assert_eq!(read.access().admits("shop"), open);
            let access = PodAccess::default().for_namespaces(vec!["shop".into()]).unwrap();
            let changed = read.with_access(access);
            let stored = serde_json::to_value(&changed).unwrap();
            assert_eq!(serde_json::from_value::<Network>(stored).unwrap(), changed);
            assert!(changed.access().admits("shop") && !changed.access().admits("bank"));
        }
    }

    #[test]
    fn overlapping_pools_and_wrong_mtus_are_refused() {
        let name: NetworkName = "blue".parse().unwrap();
        let pools = vec![pool("10.1.0.0/16").unwrap(), pool("10.1.2.0/24").unwrap()];
        let err = Network::new(name.clone(), pools, NetworkOptions::default()).unwrap_err();
        assert_eq!(err.violations[0].field, "pools[1].subnet");
        let small = NetworkOptions { mtu: Some(1000), ..Default::default() };
        let v6 = vec![pool("fd00::/64").unwrap()];
        assert!(Network::new(name.clone(), v6, small).is_err());
        assert!(Network::new(name, vec![], NetworkOptions::default()).is_err());
    }
}
