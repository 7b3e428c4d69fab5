//! The sections `[etcd]`, `[kubernetes]` and `[overlay]`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use toml::Value;

use super::{
    duration::duration,
    kubernetes::{self, Kubernetes},
    section::Section,
    values::{self, boolean, named, parsed, shown, text},
};
use netd_cluster::is_reachable;
use netd_domain::NetworkName;
use netd_kubernetes::ApiAccess;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MAX_ENDPOINTS: usize = 32;

/// The cluster that this node is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// What holds the cluster's leases and configuration.
    pub source: ClusterSource,
    /// The network whose pools are the node's leases.
    pub network: NetworkName,
    /// If `underlay` is not set: the underlay is the device of the route to this address.
    pub can_reach: Option<IpAddr>,
    /// The IPv4 address that other nodes send to; `None`: the underlay's first address.
    pub public_ip: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub public_ipv6: Option<Ipv6Addr>,
    /// The subnets to lease, at most one of each family; empty: netd chooses them from the
    /// cluster's range.
    pub pod_cidr: Vec<IpNet>,
    /// With etcd: the subnets to lease are the Node's `spec.podCIDRs` in the Kubernetes API, which
    /// is reached so.
    pub pod_cidr_of_node: Option<ApiAccess>,
    /// How long the node's leases last when it no longer renews them; at least 5 s.
    pub lease_ttl: Duration,
    /// flannel's environment file (`subnet.env`); `None`: it is not written.
    pub subnet_file: Option<PathBuf>,
    /// Leases one subnet for docker0: dockerd gives out its addresses, netd gives out none.
    pub docker0: bool,
    /// Adds blackhole routes for the node's subnets, so that packets to unused addresses are
    /// dropped instead of leaving the node.
    pub blackhole: bool,
    /// netd-tunnel's Unix socket.
    pub tunnel_socket: PathBuf,
    /// How long a subnet other than the first is kept when no endpoint uses it.
    pub keep_empty: Duration,
}

/// What holds the cluster's truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterSource {
    /// An etcd: flannel's keys and netd's.
    Etcd(Etcd),
    /// The Kubernetes API: flannel's annotations of Nodes.
    Kubernetes(Kubernetes),
}

/// How to reach etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etcd {
    /// URLs, at least one.
    pub endpoints: Vec<String>,
    /// The prefix of flannel's keys.
    pub prefix: String,
    /// The prefix of netd's own keys.
    pub netd_prefix: String,
    /// PEM file of the authorities that sign etcd's certificates; `None`: the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of this node's certificate; needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// PEM file of the certificate's key; needs `cert_file`.
    pub key_file: Option<PathBuf>,
    /// etcd's user; needs `password_file`.
    pub username: Option<String>,
    /// The user's password is the first line of this file.
    pub password_file: Option<PathBuf>,
    /// The time limit of one request: 100 ms to 1 min.
    pub timeout: Duration,
}

/// `pod_cidr` with this value: the Node's.
const OF_NODE: &str = "node";

/// Keys without a default. Setting one without etcd endpoints is a mistake.
const NEED_ENDPOINTS: [&str; 3] = ["ca_file", "cert_file", "username"];
/// The same of the overlay.
const NEED_A_CLUSTER: [&str; 3] = ["public_ip", "public_ipv6", "pod_cidr"];

/// Reads the sections; `None` where neither etcd nor Kubernetes is configured.
pub(super) fn read(root: &mut Section<'_>, run_dir: &std::path::Path) -> Option<Overlay> {
    let mut etcd = root.section("etcd");
    let mut overlay = root.section("overlay");
    let asks_for_node = overlay.peek("pod_cidr").is_some_and(is_of_node);
    let kubernetes = kubernetes::read(root.section("kubernetes"), asks_for_node);
    let node_access = asks_for_node.then(|| kubernetes.settings.access.clone());
    let kubernetes = kubernetes.enabled.then_some(kubernetes.settings);
    let by_etcd = etcd.has("endpoints");
    let needs_etcd = NEED_ENDPOINTS.iter().any(|key| etcd.has(key));
    let needs_any = NEED_A_CLUSTER.iter().any(|key| overlay.has(key));
    match &kubernetes {
        Some(_) if by_etcd => etcd
            .bad("endpoints", "kubernetes.enabled is true: one of both can be the cluster's truth"),
        Some(_) if needs_etcd => etcd.bad(
            "endpoints",
            "needed for the keys of [etcd], which kubernetes.enabled makes useless",
        ),
        None if !by_etcd && (needs_etcd || needs_any) => etcd.bad(
            "endpoints",
            "needed for an overlay, e.g. [\"http://127.0.0.1:2379\"]; or kubernetes.enabled = true",
        ),
        _ => {}
    }
    let endpoints = etcd.get("endpoints", endpoints).unwrap_or_default();
    let etcd = etcd_section(etcd, endpoints);
    let configured = by_etcd || kubernetes.is_some();
    let source = kubernetes.map_or(ClusterSource::Etcd(etcd), ClusterSource::Kubernetes);
    let read = overlay_section(&mut overlay, source, node_access, run_dir);
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

fn overlay_section(
    s: &mut Section<'_>,
    source: ClusterSource,
    pod_cidr_of_node: Option<ApiAccess>,
    run_dir: &std::path::Path,
) -> Option<Overlay> {
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
    if matches!(source, ClusterSource::Kubernetes(_)) {
        let has_cidr = !pod_cidr.is_empty() || pod_cidr_of_node.is_some();
        for (key, given) in [("pod_cidr", has_cidr), ("docker0", docker0)] {
            if given {
                s.bad(key, "kubernetes.enabled is true: the Node's spec.podCIDRs are the node's only subnets");
            }
        }
    }
    let blackhole = s.get("blackhole", boolean).unwrap_or(false);
    let tunnel_socket = s.get("tunnel_socket", values::socket);
    let keep_empty = s.get("keep_empty", |v| duration(v, Duration::from_secs(1)..=30 * DAY));
    Some(Overlay {
        source,
        network: network?,
        can_reach,
        public_ip,
        public_ipv6,
        pod_cidr,
        pod_cidr_of_node,
        lease_ttl: lease_ttl.unwrap_or(DAY),
        subnet_file: subnet_file.unwrap_or_else(|| Some("/run/flannel/subnet.env".into())),
        docker0,
        blackhole,
        tunnel_socket: tunnel_socket.unwrap_or_else(|| run_dir.join("tunnel.sock")),
        keep_empty: keep_empty.unwrap_or(5 * MINUTE),
    })
}

/// A list, or a string with commas (flags and environment).
fn list(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Array(all) => all.iter().map(text).collect(),
        other => Ok(text(other)?.split(',').map(|s| s.trim().to_owned()).collect()),
    }
}

fn endpoints(value: &Value) -> Result<Vec<String>, String> {
    let all = list(value)?;
    if all.is_empty() || all.len() > MAX_ENDPOINTS {
        return Err(format!("{} URLs; 1 to {MAX_ENDPOINTS} are possible", all.len()));
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

/// A key prefix as flannel uses it: `/a/b`, without a slash at the end.
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
    if !is_reachable(wide) {
        return Err(format!("{wide} can't be reached from other nodes"));
    }
    Ok(ip)
}

fn is_of_node(value: &Value) -> bool {
    list(value).is_ok_and(|all| all == [OF_NODE])
}

fn pod_cidr(value: &Value) -> Result<Vec<IpNet>, String> {
    if is_of_node(value) {
        return Ok(Vec::new());
    }
    let mut nets: Vec<IpNet> = Vec::new();
    for one in list(value)? {
        if one == OF_NODE {
            return Err(format!("\"{OF_NODE}\" can't stand beside subnets"));
        }
        let net: IpNet = one.parse().map_err(|_| {
            let shown = shown(&Value::String(one.clone()));
            format!("{shown} is not a subnet like \"10.244.7.0/24\", nor \"{OF_NODE}\"")
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
