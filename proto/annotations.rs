//! The annotations of pods and containers that netd's hooks read.

/// What each of them begins with; a key of this kind that nothing reads is refused.
pub const PREFIX: &str = "netd.io/";

/// Of a pod, read by the NRI front: additional networks.
pub const NETWORKS: &str = "netd.io/networks";
/// Of a pod, read by the NRI front: which CNI plugin creates the pod's eth0, `netd` or `other`.
pub const PRIMARY: &str = "netd.io/primary";

/// Of a container, read by the OCI hook: networks, separated by commas.
pub const NETWORK: &str = "netd.io/network";
/// Of a container, read by the OCI hook: addresses in the first network, separated by commas.
pub const IP: &str = "netd.io/ip";
/// Of a container, read by the OCI hook: the interface through which the default routes lead,
/// `eth1` for example. Without it that is eth0.
pub const DEFAULT_ROUTE: &str = "netd.io/default-route";
/// Of a container, read by the OCI hook: MAC address in the first network.
pub const MAC: &str = "netd.io/mac";
/// Of a container, read by the OCI hook: host ports, `[HOST-IP:]HOST-PORT:PORT[/PROTOCOL]`,
/// separated by commas; an IPv6 address in brackets.
pub const PORTS: &str = "netd.io/ports";

/// Those of pods.
pub const OF_PODS: [&str; 2] = [NETWORKS, PRIMARY];
/// Those of containers that no CRI runtime made.
pub const OF_CONTAINERS: [&str; 5] = [NETWORK, IP, DEFAULT_ROUTE, MAC, PORTS];

/// Whether the key is netd's, and nothing reads it where only `known` keys are read.
pub fn is_unread(key: &str, known: &[&str]) -> bool {
    key.starts_with(PREFIX) && !known.contains(&key)
}
