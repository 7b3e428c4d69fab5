//! `<prefix>/config`: the cluster's configuration.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::{Map, Value};

use super::{
    LONGEST,
    fields::{Fields, boolean, network, number, parsed, shown, text},
    range::{Names, Wanted, Whole},
};
use crate::{BackendConfig, ClusterConfig, FamilyRange, WireguardMode};
use netd_domain::{Invalid, overlay::SecretKey, pool::unusable};

/// What a configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Checked, defaults filled in.
    pub config: ClusterConfig,
    /// What was ignored: unknown keys.
    pub warnings: Vec<String>,
}

/// Linux's port for vxlan, which flannel's `Port` 0 stands for (the kernel's default,
/// older than IANA's 4789).
const VXLAN_PORT: u16 = 8472;
const MAX_VNI: u32 = (1 << 24) - 1;

/// Reads the cluster's configuration as flannel 0.28 does, with its defaults.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn parse(json: &[u8]) -> Result<Read, Invalid> {
    if json.len() > LONGEST {
        let problem = format!("{} bytes; at most {LONGEST}", json.len());
        return Err(Invalid::field("config", problem));
    }
    let value: Value = serde_json::from_slice(json)
        .map_err(|e| Invalid::field("config", format!("not JSON: {e}")))?;
    let mut root = Fields::new(value, "")
        .ok_or_else(|| Invalid::field("config", "not a JSON object ({\"Network\": ...})"))?;
    let mut bad = Invalid::new();
    let enable_v4 = root.get("EnableIPv4", &mut bad, boolean).unwrap_or(true);
    let enable_v6 = root.get("EnableIPv6", &mut bad, boolean).unwrap_or(false);
    // netd's rules are nftables' in any case.
    root.get("EnableNFTables", &mut bad, boolean);
    let v4 = v4(&mut root, enable_v4, &mut bad);
    let v6 = v6(&mut root, enable_v6, &mut bad);
    if !enable_v4 && !enable_v6 {
        bad.add("EnableIPv4", "false, and so is EnableIPv6: the cluster has no addresses");
    }
    let mut warnings = vec![];
    let backend = backend(root.take("Backend"), enable_v6, &mut bad, &mut warnings);
    warnings.extend(root.unknown());
    bad.into_result()?;
    // Only a violation makes this `None`.
    let backend = backend.ok_or_else(|| Invalid::field("Backend", "unreadable"))?;
    let warnings = warnings.into_iter().map(|key| format!("{key}: unknown key, ignored"));
    Ok(Read { config: ClusterConfig { v4, v6, backend }, warnings: warnings.collect() })
}

const V4: Names =
    Names { network: "Network", len: "SubnetLen", min: "SubnetMin", max: "SubnetMax" };
const V6: Names = Names {
    network: "IPv6Network",
    len: "IPv6SubnetLen",
    min: "IPv6SubnetMin",
    max: "IPv6SubnetMax",
};

fn v4(
    root: &mut Fields,
    enabled: bool,
    bad: &mut Invalid,
) -> Option<FamilyRange<Ipv4Net, Ipv4Addr>> {
    let network = root.get(V4.network, bad, |v| {
        pods(network::<Ipv4Addr, Ipv4Net>(text(v)?), v, "an IPv4 network (\"10.5.0.0/16\")")
    });
    let ip = |v: &Value| parsed::<Ipv4Addr>(v, "an IPv4 address");
    let mut wanted =
        Wanted { len: root.get(V4.len, bad, |v| number(v, 0..=255)).unwrap_or(0), min: 0, max: 0 };
    wanted.min = root.get(V4.min, bad, ip).map_or(0, |ip| u32::from(ip).into());
    wanted.max = root.get(V4.max, bad, ip).map_or(0, |ip| u32::from(ip).into());
    let network = needed(network, enabled, "EnableIPv4", V4.network, bad)?;
    let IpNet::V4(network) = network else { return None };
    let base = u32::from(network.network()).into();
    let whole = Whole { base, prefix: network.prefix_len(), bits: 32 };
    // Sums and parts of addresses below 2^32 are below it, too.
    let back = |n: u128| Ipv4Addr::from(u32::try_from(n).unwrap_or(u32::MAX));
    let range = whole.range(wanted, &V4, |n| back(n).to_string(), bad)?;
    let (min, max) = (back(range.min), back(range.max));
    Some(FamilyRange { network, subnet_len: range.len, min, max })
}

fn v6(
    root: &mut Fields,
    enabled: bool,
    bad: &mut Invalid,
) -> Option<FamilyRange<Ipv6Net, Ipv6Addr>> {
    let network = root.get(V6.network, bad, |v| {
        pods(network::<Ipv6Addr, Ipv6Net>(text(v)?), v, "an IPv6 network (\"fd00:5::/48\")")
    });
    let ip = |v: &Value| parsed::<Ipv6Addr>(v, "an IPv6 address");
    let mut wanted =
        Wanted { len: root.get(V6.len, bad, |v| number(v, 0..=255)).unwrap_or(0), min: 0, max: 0 };
    wanted.min = root.get(V6.min, bad, ip).map_or(0, u128::from);
    wanted.max = root.get(V6.max, bad, ip).map_or(0, u128::from);
    let network = needed(network, enabled, "EnableIPv6", V6.network, bad)?;
    let IpNet::V6(network) = network else { return None };
    let base = network.network().into();
    let whole = Whole { base, prefix: network.prefix_len(), bits: 128 };
    let range = whole.range(wanted, &V6, |n| Ipv6Addr::from(n).to_string(), bad)?;
    let (min, max) = (range.min.into(), range.max.into());
    Some(FamilyRange { network, subnet_len: range.len, min, max })
}

/// A network that pods can have addresses of, without host bits.
fn pods<N: Into<IpNet>>(network: Option<N>, value: &Value, what: &str) -> Result<IpNet, String> {
    let network = network.ok_or_else(|| format!("{} is not {what}", shown(value)))?;
    let network = network.into().trunc();
    match unusable(network.addr()) {
        Some(what) => Err(format!("{network} is {what}; pods can't have it")),
        None if network.prefix_len() == 0 => Err(format!("{network} is the whole internet")),
        None => Ok(network),
    }
}

/// The network of an enabled family; that of another is checked and not used.
fn needed(
    network: Option<IpNet>,
    enabled: bool,
    switch: &str,
    name: &str,
    bad: &mut Invalid,
) -> Option<IpNet> {
    let wrong = bad.violations.iter().any(|v| v.field == name);
    if enabled && network.is_none() && !wrong {
        bad.add(name, format!("missing; it is needed as long as {switch} is true"));
    }
    network.filter(|_| enabled)
}

const TYPES: &str = "vxlan, host-gw, udp, wireguard, ipip, extension, alloc";

fn backend(
    value: Option<Value>,
    v6: bool,
    bad: &mut Invalid,
    warnings: &mut Vec<String>,
) -> Option<BackendConfig> {
    let fields = match value {
        // flannel's documentation says vxlan, its code takes udp.
        None => Fields::new(Value::Object(Map::from_iter([("Type".into(), "udp".into())])), ""),
        Some(value) => Fields::new(value, "Backend."),
    };
    let Some(mut f) = fields else {
        bad.add("Backend", "not an object ({\"Type\": \"vxlan\"})");
        return None;
    };
    let Some(kind) = f.take("Type") else {
        bad.add("Backend.Type", format!("missing; one of {TYPES}"));
        return None;
    };
    let name = bad.take("Backend.Type", text(&kind).map(str::to_ascii_lowercase))?;
    let config = match name.as_str() {
        "vxlan" => vxlan(&mut f, v6, bad),
        "host-gw" => BackendConfig::HostGw,
        "udp" => BackendConfig::Udp { port: port(&mut f, "Port", 8285, bad) },
        "wireguard" => wireguard(&mut f, bad),
        "ipip" => BackendConfig::Ipip { direct_routing: flag(&mut f, "DirectRouting", bad) },
        "extension" => extension(&mut f, bad),
        "alloc" => BackendConfig::Alloc,
        _ => {
            let kind = shown(&kind);
            bad.add("Backend.Type", format!("{kind} is not supported; one of {TYPES}"));
            return None;
        }
    };
    warnings.extend(f.unknown());
    Some(config)
}

fn flag(f: &mut Fields, name: &str, bad: &mut Invalid) -> bool {
    f.get(name, bad, boolean).unwrap_or(false)
}

/// A port that peers have to know: not the kernel's choice.
fn port(f: &mut Fields, name: &str, default: u16, bad: &mut Invalid) -> u16 {
    f.get(name, bad, |v| number(v, 1..=u16::MAX)).unwrap_or(default)
}

/// MTU of the underlay; 0 says nothing.
fn mtu(f: &mut Fields, bad: &mut Invalid) -> Option<u32> {
    let read = |v: &Value| match v.as_u64() {
        Some(0) => Ok(None),
        _ => number(v, 576..=65535).map(Some),
    };
    f.get("MTU", bad, read).flatten()
}

fn vxlan(f: &mut Fields, v6: bool, bad: &mut Invalid) -> BackendConfig {
    // The number is in the device's name, which has 15 bytes.
    let (most, device) = if v6 { (9999, "flannel-v6.") } else { (9_999_999, "flannel.") };
    let vni = f.get("VNI", bad, |v| {
        let vni = number(v, 0..=MAX_VNI)?;
        let long = format!("{vni} is above {most}: {device}{vni} is too long for a device's name");
        if vni > most { Err(long) } else { Ok(vni) }
    });
    let port = f.get("Port", bad, |v| number(v, 0..=u16::MAX)).filter(|p| *p != 0);
    BackendConfig::Vxlan {
        vni: vni.unwrap_or(1),
        port: port.unwrap_or(VXLAN_PORT),
        gbp: flag(f, "GBP", bad),
        learning: flag(f, "Learning", bad),
        direct_routing: flag(f, "DirectRouting", bad),
        mtu: mtu(f, bad),
    }
}

fn wireguard(f: &mut Fields, bad: &mut Invalid) -> BackendConfig {
    let mode = f.get("Mode", bad, |v| match text(v)? {
        "separate" => Ok(WireguardMode::Separate),
        "auto" => Ok(WireguardMode::Auto),
        "ipv4" => Ok(WireguardMode::Ipv4),
        "ipv6" => Ok(WireguardMode::Ipv6),
        _ => Err(format!("{} is none of separate, auto, ipv4, ipv6", shown(v))),
    });
    BackendConfig::Wireguard {
        mode: mode.unwrap_or(WireguardMode::Separate),
        preshared_key: f.get("PSK", bad, preshared_key).flatten(),
        port: port(f, "ListenPort", 51820, bad),
        port_v6: port(f, "ListenPortV6", 51821, bad),
        mtu: mtu(f, bad),
        keepalive: f
            .get("PersistentKeepaliveInterval", bad, |v| number(v, 0..=u16::MAX))
            .unwrap_or(0),
    }
}

/// The value itself is never shown: it is secret.
fn preshared_key(value: &Value) -> Result<Option<SecretKey>, String> {
    let text = value.as_str().ok_or("not a string")?;
    if text.is_empty() {
        return Ok(None);
    }
    let bytes = BASE64_STANDARD.decode(text).ok();
    let key = bytes.and_then(|b| <[u8; 32]>::try_from(b).ok());
    key.map(|k| Some(SecretKey(k))).ok_or_else(|| "not 32 bytes in base64 (`wg genpsk`)".to_owned())
}

fn extension(f: &mut Fields, bad: &mut Invalid) -> BackendConfig {
    let mut command = |name: &str| {
        f.get(name, bad, |v| {
            let command = text(v)?;
            let zero = command.contains('\0');
            if zero { Err("holds a zero byte".to_owned()) } else { Ok(command.to_owned()) }
        })
        .unwrap_or_default()
    };
    BackendConfig::Extension {
        pre_startup: command("PreStartupCommand"),
        post_startup: command("PostStartupCommand"),
        subnet_add: command("SubnetAddCommand"),
        subnet_remove: command("SubnetRemoveCommand"),
    }
}
