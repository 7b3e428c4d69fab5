//! The sections `[[network]]` and `[[network.pool]]`.

use std::net::IpAddr;

use ipnet::IpNet;
use toml::Value;

use super::{
    section::{Problems, Section},
    values::{boolean, mtu, named, parsed, shown, text},
};
use netd_domain::{
    Driver, IfName, Invalid, Network, NetworkName, PodAccess, Pool, RepairScope,
    network::{Leased, NetworkOptions, overlap},
};

const MAX_NETWORKS: usize = 256;
const MAX_POOLS: usize = 64;
const MAX_RESERVED: usize = 1024;
const DEFAULT_POOLS: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/64"];

/// Reads every network; the default network if none is configured. `leased` names the
/// network whose pools are the node's leases; it is added if it is not configured.
pub(super) fn read(
    root: &mut Section<'_>,
    report: &Problems,
    leased: Option<&NetworkName>,
) -> Vec<Network> {
    let sections = root.sections("network", MAX_NETWORKS);
    if sections.is_empty() && leased.is_none() {
        return default_network().map_err(|e| report.add("network", e)).into_iter().collect();
    }
    // Errors name a network by its place in the file, so networks with errors count too.
    let read: Vec<Option<Network>> =
        sections.into_iter().map(|s| network(s, report, leased)).collect();
    check_together(&read, report);
    let mut read: Vec<Network> = read.into_iter().flatten().collect();
    if let Some(name) = leased.filter(|name| !read.iter().any(|n| n.name == **name)) {
        let options = NetworkOptions {
            masquerade: true,
            leased: Some(Leased::default()),
            ..Default::default()
        };
        let made = Network::new(name.clone(), vec![], options);
        read.extend(made.map_err(|e| report.add("overlay.network", e)).ok());
    }
    read
}

fn default_network() -> Result<Network, Invalid> {
    let mut pools = vec![];
    for text in DEFAULT_POOLS {
        let subnet = text.parse().map_err(|e| Invalid::field("subnet", e))?;
        pools.push(Pool::new(subnet, None, (None, None), vec![])?);
    }
    let name = NetworkName::DEFAULT.parse().map_err(|e| Invalid::field("name", e))?;
    Network::new(name, pools, NetworkOptions { masquerade: true, ..Default::default() })
}

fn network(mut s: Section<'_>, report: &Problems, leased: Option<&NetworkName>) -> Option<Network> {
    let name: Option<NetworkName> = s.required("name", "a network needs a name", named);
    let driver = s.get("driver", driver).unwrap_or_default();
    let bridge: Option<IfName> = s.get("bridge", named);
    let mtu = s.get("mtu", mtu);
    let masquerade = s.get("masquerade", boolean);
    let internal = s.get("internal", boolean).unwrap_or(false);
    let published_only = s.get("published_only", boolean).unwrap_or(false);
    let namespaces = s.get("pod_namespaces", texts);
    let wishes = (s.get("pod_addresses", boolean), s.get("pod_macs", boolean));
    let repair = s.get("repair", repair).unwrap_or_default();
    let allow_host_overlap = s.get("allow_host_overlap", boolean).unwrap_or(false);
    if driver == Driver::Routed && bridge.is_some() {
        s.bad("bridge", "the routed driver has no bridge; remove the key");
    }
    if internal && masquerade == Some(true) {
        s.bad("masquerade", "an internal network has no way out to masquerade; remove the key");
    }
    let path = s.path().to_owned();
    let sections = s.sections("pool", MAX_POOLS);
    s.finish();
    let wanted = sections.len();
    let pools: Vec<Pool> = sections.into_iter().filter_map(|p| pool(p, report)).collect();
    // If a pool has errors, checking the others would report them under wrong indexes.
    if pools.len() != wanted {
        return None;
    }
    let masquerade = masquerade.unwrap_or(true);
    let name = name?;
    let leased = (leased == Some(&name)).then(Leased::default);
    if leased.is_some() && wanted > 0 {
        let text = "the pools of the overlay's network are the node's leases; remove them";
        report.add(&format!("{path}.pool"), text);
        return None;
    }
    let access = access(&name, namespaces, wishes);
    let access = access.map_err(|inner| nest(report, &path, inner)).ok()?;
    let options = NetworkOptions {
        driver,
        bridge,
        mtu,
        masquerade,
        internal,
        published_only,
        repair,
        allow_host_overlap,
        leased,
        access: Some(access),
    };
    let made = Network::new(name, pools, options);
    made.map_err(|e| nest(report, &path, e)).ok()
}

/// Which pods may use the network; what is left out is as in a new one.
fn access(
    name: &NetworkName,
    namespaces: Option<Vec<String>>,
    (addresses, macs): (Option<bool>, Option<bool>),
) -> Result<PodAccess, Invalid> {
    let mut access = PodAccess::of_new(name);
    access.addresses = addresses.unwrap_or(access.addresses);
    access.macs = macs.unwrap_or(access.macs);
    match namespaces {
        Some(names) => access.for_namespaces(names),
        None => Ok(access),
    }
}

fn texts(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Array(list) => list.iter().map(text).collect(),
        other => Err(format!("{} is not a list; write [\"shop\"]", shown(other))),
    }
}

fn driver(value: &Value) -> Result<Driver, String> {
    match text(value)?.as_str() {
        "bridge" => Ok(Driver::Bridge),
        "routed" => Ok(Driver::Routed),
        _ => Err(format!("{} is neither \"bridge\" nor \"routed\"", shown(value))),
    }
}

fn repair(value: &Value) -> Result<RepairScope, String> {
    match text(value)?.as_str() {
        "host" => Ok(RepairScope::Host),
        "pod" => Ok(RepairScope::Pod),
        _ => Err(format!("{} is neither \"host\" nor \"pod\"", shown(value))),
    }
}

fn pool(mut s: Section<'_>, report: &Problems) -> Option<Pool> {
    let subnet: Option<IpNet> = s.required("subnet", "a pool needs a subnet", |v| {
        parsed(v, "a subnet like \"10.88.0.0/16\" or \"fd00:88::/64\"")
    });
    let ip = |v: &Value| parsed::<IpAddr>(v, "an IP address without prefix length");
    let gateway = s.get("gateway", ip);
    let range = (s.get("range_start", ip), s.get("range_end", ip));
    let reserved = s.get("reserved", reserved).unwrap_or_default();
    let path = s.path().to_owned();
    s.finish();
    Pool::new(subnet?, gateway, range, reserved).map_err(|e| nest(report, &path, e)).ok()
}

fn reserved(value: &Value) -> Result<Vec<IpNet>, String> {
    let list = match value {
        Value::Array(list) if list.len() <= MAX_RESERVED => list,
        Value::Array(list) => {
            return Err(format!("{} entries; at most {MAX_RESERVED}", list.len()));
        }
        other => return Err(format!("{} is not a list; write [\"10.88.0.9\"]", shown(other))),
    };
    let one = |v: &Value| match text(v)?.parse::<IpAddr>() {
        Ok(ip) => Ok(IpNet::from(ip)),
        Err(_) => parsed(v, "an address or a subnet"),
    };
    list.iter().map(one).collect()
}

/// Renames the domain's fields `pools[i]` and `namespaces[i]` to the file's.
fn nest(report: &Problems, path: &str, found: Invalid) {
    for v in found.violations {
        let renamed = [("pools", "pool"), ("namespaces", "pod_namespaces")];
        let renamed = renamed.iter().find_map(|(from, to)| {
            let rest = v.field.strip_prefix(from)?;
            Some(format!("{to}{rest}"))
        });
        let field = renamed.unwrap_or(v.field);
        report.add(&format!("{path}.{field}"), v.problem);
    }
}

/// Reports names, bridges and subnets that two networks have in common.
fn check_together(all: &[Option<Network>], report: &Problems) {
    for (i, later) in all.iter().enumerate() {
        let Some(later) = later else { continue };
        for (j, earlier) in all.iter().enumerate().take(i) {
            let Some(earlier) = earlier else { continue };
            if earlier.name == later.name {
                let text = format!("\"{}\" is network[{j}]'s name too", later.name);
                report.add(&format!("network[{i}].name"), text);
            } else if bridged(earlier) && bridged(later) && earlier.bridge == later.bridge {
                let text = format!("{} is network[{j}]'s bridge too", later.bridge);
                report.add(&format!("network[{i}].bridge"), text);
            }
            check_subnets((i, later), (j, earlier), report);
        }
    }
}

fn bridged(network: &Network) -> bool {
    network.driver == Driver::Bridge
}

fn check_subnets(later: (usize, &Network), earlier: (usize, &Network), report: &Problems) {
    for (p, mine) in later.1.pools.iter().enumerate() {
        let other = earlier.1.pools.iter().find(|o| overlap(&o.subnet, &mine.subnet));
        if let Some(other) = other {
            let (i, j) = (later.0, earlier.0);
            let text = format!("{} overlaps with network[{j}]'s {}", mine.subnet, other.subnet);
            report.add(&format!("network[{i}].pool[{p}].subnet"), text);
        }
    }
}
