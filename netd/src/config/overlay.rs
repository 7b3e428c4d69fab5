//! `[etcd]` and `[overlay]`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use toml::Value;

use super::{
    duration::duration,
    section::Section,
    values::{self, boolean, named, parsed, shown, text},
};
use netd_domain::NetworkName;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MOST_ENDPOINTS: usize = 32;

/// The cluster that this node is part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// Where the cluster's truth is.
    pub etcd: Etcd,
    /// The network whose pools are the node's leases.
    pub network: NetworkName,
    /// A target whose route leads out by the underlay's device, when no device is named.
    pub can_reach: Option<IpAddr>,
    /// What peers send to; `None`: the underlay device's first address.
    pub public_ip: Option<Ipv4Addr>,
    /// The same of IPv6.
    pub public_ipv6: Option<Ipv6Addr>,
    /// Subnets that somebody else has given to this node, at most one a family; none:
    /// chosen from the cluster's range.
    pub pod_cidr: Vec<IpNet>,
    /// How long the node's leases last without it, seconds at least.
    pub lease_ttl: Duration,
    /// Where flannel's environment file is written; `None`: nowhere.
    pub subnet_file: Option<PathBuf>,
    /// One of the node's subnets is docker0's: dockerd gives out its addresses, netd none.
    pub docker0: bool,
    /// Unused addresses of the node's subnets lead nowhere rather than out.
    pub blackhole: bool,
    /// Where netd-tunnel listens.
    pub tunnel_socket: PathBuf,
    /// How long a subnet beyond the first is kept when nothing uses it.
    pub keep_empty: Duration,
}

/// How to reach etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etcd {
    /// URLs, at least one.
    pub endpoints: Vec<String>,
    /// flannel's keys are under here.
    pub prefix: String,
    /// netd's own keys are under here.
    pub netd_prefix: String,
    /// PEM; `None`: the system's authorities.
    pub ca_file: Option<PathBuf>,
    /// PEM, with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// PEM, with `cert_file`.
    pub key_file: Option<PathBuf>,
    /// With `password_file`.
    pub username: Option<String>,
    /// Its first line is the password.
    pub password_file: Option<PathBuf>,
    /// Of one request.
    pub timeout: Duration,
}

/// Keys without a default: who sets one means an overlay.
const TELLING: [&str; 6] =
    ["ca_file", "cert_file", "username", "public_ip", "public_ipv6", "pod_cidr"];

/// Reads both sections; `None` without etcd endpoints.
pub(super) fn read(root: &mut Section<'_>, run_dir: &std::path::Path) -> Option<Overlay> {
    let mut etcd = root.section("etcd");
    let mut overlay = root.section("overlay");
    let configured = etcd.has("endpoints");
    if !configured && TELLING.iter().any(|key| etcd.has(key) || overlay.has(key)) {
        etcd.bad("endpoints", "needed for an overlay, e.g. [\"http://127.0.0.1:2379\"]");
    }
    let endpoints = etcd.get("endpoints", endpoints).unwrap_or_default();
    let etcd = etcd_section(etcd, endpoints);
    let read = overlay_section(&mut overlay, etcd, run_dir);
    overlay.finish();
    if configured { read } else { None }
}

fn etcd_section(mut s: Section<'_>, endpoints: Vec<String>) -> Etcd {
    let prefix = s.get("prefix", self::prefix);
    let netd_prefix = s.get("netd_prefix", self::prefix);
    let ca_file = s.get("ca_file", values::path);
    let (cert_file, key_file) = (s.get("cert_file", values::path), s.get("key_file", values::path));
    let username = s.get("username", text);
    let password_file = s.get("password_file", values::path);
    let timeout = s.get("timeout", |v| duration(v, Duration::from_millis(100)..=MINUTE));
    for (one, other) in [("cert_file", "key_file"), ("username", "password_file")] {
        let there = |key| match key {
            "cert_file" => cert_file.is_some(),
            "key_file" => key_file.is_some(),
            "username" => username.is_some(),
            _ => password_file.is_some(),
        };
        match (there(one), there(other)) {
            (true, false) => s.bad(other, format!("needed together with {one}")),
            (false, true) => s.bad(one, format!("needed together with {other}")),
            _ => {}
        }
    }
    let secure = endpoints.iter().filter(|e| e.starts_with("https:")).count();
    if secure != 0 && secure != endpoints.len() {
        s.bad("endpoints", "http and https can't be mixed");
    }
    if secure == 0 && (ca_file.is_some() || cert_file.is_some()) && !endpoints.is_empty() {
        s.bad("endpoints", "certificates are of no use to http; write https://...");
    }
    let prefix = prefix.unwrap_or_else(|| "/coreos.com/network".to_owned());
    let netd_prefix = netd_prefix.unwrap_or_else(|| "/netd/v1".to_owned());
    if prefix.starts_with(&format!("{netd_prefix}/")) || netd_prefix == prefix {
        s.bad("netd_prefix", format!("{prefix}, flannel's prefix, must not lie in it"));
    }
    s.finish();
    let timeout = timeout.unwrap_or(Duration::from_secs(3));
    Etcd {
        endpoints,
        prefix,
        netd_prefix,
        ca_file,
        cert_file,
        key_file,
        username,
        password_file,
        timeout,
    }
}

fn overlay_section(s: &mut Section<'_>, etcd: Etcd, run_dir: &std::path::Path) -> Option<Overlay> {
    let network = s.get("network", named);
    let network = network.or_else(|| NetworkName::DEFAULT.parse().ok());
    let can_reach = s.get("can_reach", |v| parsed(v, "an IP address"));
    let public_ip = s.get("public_ip", |v| parsed(v, "an IPv4 address").and_then(usable));
    let public_ipv6 = s.get("public_ipv6", |v| parsed(v, "an IPv6 address").and_then(usable));
    let pod_cidr = s.get("pod_cidr", pod_cidr).unwrap_or_default();
    let lease_ttl = s.get("lease_ttl", |v| duration(v, Duration::from_secs(5)..=365 * DAY));
    let subnet_file = s.get("subnet_file", |v| match v.as_str() {
        Some("off") => Ok(None),
        _ => values::path(v).map(Some),
    });
    let docker0 = s.get("docker0", boolean).unwrap_or(false);
    let blackhole = s.get("blackhole", boolean).unwrap_or(false);
    let tunnel_socket = s.get("tunnel_socket", values::socket);
    let keep_empty = s.get("keep_empty", |v| duration(v, Duration::from_secs(1)..=30 * DAY));
    Some(Overlay {
        etcd,
        network: network?,
        can_reach,
        public_ip,
        public_ipv6,
        pod_cidr,
        lease_ttl: lease_ttl.unwrap_or(DAY),
        subnet_file: subnet_file.unwrap_or_else(|| Some("/run/flannel/subnet.env".into())),
        docker0,
        blackhole,
        tunnel_socket: tunnel_socket.unwrap_or_else(|| run_dir.join("tunnel.sock")),
        keep_empty: keep_empty.unwrap_or(5 * MINUTE),
    })
}

/// A list, or a text with commas (flags and environment).
fn list(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Array(all) => all.iter().map(text).collect(),
        other => Ok(text(other)?.split(',').map(|s| s.trim().to_owned()).collect()),
    }
}

fn endpoints(value: &Value) -> Result<Vec<String>, String> {
    let all = list(value)?;
    if all.is_empty() || all.len() > MOST_ENDPOINTS {
        return Err(format!("{} URLs; 1 to {MOST_ENDPOINTS} are possible", all.len()));
    }
    for url in &all {
        let parsed = url.parse::<http::Uri>().ok();
        let right = parsed.as_ref().is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
                && matches!(uri.path_and_query().map(|p| p.as_str()), None | Some("/"))
        });
        if !right {
            let url = shown(&Value::String(url.clone()));
            return Err(format!("{url} is not a URL like \"https://192.0.2.1:2379\""));
        }
    }
    Ok(all)
}

/// A key prefix as flannel takes it: `/a/b`, without the slash at the end.
fn prefix(value: &Value) -> Result<String, String> {
    let given = text(value)?;
    let given = given.trim_end_matches('/');
    if !given.starts_with('/') || given.contains("//") || given.len() > 255 {
        return Err(format!("{} is not a prefix like \"/coreos.com/network\"", shown(value)));
    }
    Ok(given.to_owned())
}

/// An address that other nodes can send to.
fn usable<T: Into<IpAddr> + Copy>(ip: T) -> Result<T, String> {
    let wide: IpAddr = ip.into();
    if wide.is_unspecified() || wide.is_loopback() || wide.is_multicast() {
        return Err(format!("{wide} can't be reached from other nodes"));
    }
    Ok(ip)
}

fn pod_cidr(value: &Value) -> Result<Vec<IpNet>, String> {
    let mut nets: Vec<IpNet> = Vec::new();
    for one in list(value)? {
        let net: IpNet = one.parse().map_err(|_| {
            let shown = shown(&Value::String(one.clone()));
            format!("{shown} is not a subnet like \"10.244.7.0/24\"")
        })?;
        if net.addr() != net.network() {
            return Err(format!("{net} has host bits set; did you mean {}?", net.trunc()));
        }
        let v4 = matches!(net, IpNet::V4(_));
        if nets.iter().any(|n| matches!(n, IpNet::V4(_)) == v4) {
            return Err(format!("{net} is the second subnet of its family; one is possible"));
        }
        nets.push(net);
    }
    Ok(nets)
}
