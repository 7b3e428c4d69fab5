//! Which keys a configuration may have. One that nothing reads is refused: its author meant
//! another network than the pod would get.

use serde_json::Value;

use crate::json::{JsonNode, Reader};
use netd_api::suggest::closest;

/// The plugin's own keys and those of the CNI spec.
const KNOWN: &[&str] = &[
    "cniVersion",
    "name",
    "type",
    "network",
    "defaultRoute",
    "socket",
    "timeout",
    "capabilities",
    "dns",
    "args",
    "runtimeConfig",
    "prevResult",
];

/// What runtimes put in beside those: libcni passes a `.conf` file on with the keys that are
/// for itself, and Multus adds a device that belongs to the pod.
const INJECTED: &[&str] =
    &["cniVersions", "disableCheck", "disableGC", "loadOnlyInlinedPlugins", "deviceID", "pciBusID"];

/// Keys that begin so are the spec's, for instance GC's list.
const SPEC_PREFIX: &str = "cni.dev/";

/// What the plugin does for a runtime that asks for it in `runtimeConfig`.
pub(super) const CAPABILITIES: &[&str] = &[
    "portMappings",
    "bandwidth",
    "ips",
    "mac",
    "dns",
    "cgroupPath",
    super::capabilities::POD_ANNOTATIONS,
];

/// The keys of `args.cni` (CNI conventions).
const ARGS: &[&str] = &["ips", "mac", "labels"];

/// Keys of the plugins flannel, bridge, ptp, macvlan, ipvlan, host-device, host-local, portmap,
/// bandwidth, tuning and firewall, and keys of netd that belong elsewhere; what replaces each.
const ELSEWHERE: &[(&[&str], &str)] = &[
    (
        &[
            "ipam",
            "subnet",
            "ranges",
            "rangeStart",
            "rangeEnd",
            "gateway",
            "routes",
            "pool",
            "pools",
            "ipRanges",
            "addresses",
            "address",
        ],
        "netd assigns the addresses: they are the pools of the network ([[network.pool]] in \
         netd.toml, or `netd network create --pool`); remove the key",
    ),
    (
        &["delegate", "subnetFile", "dataDir"],
        "netd leases the node's subnet itself ([etcd] and [overlay] in netd.toml); remove the key",
    ),
    (
        &["bridge"],
        "each network has its bridge (`bridge` of [[network]] in netd.toml, or `netd network \
         create --bridge`); name the network by \"network\"",
    ),
    (&["isGateway"], "a network's bridge always has the gateway's address; remove the key"),
    (
        &["isDefaultGateway"],
        "eth0 gets the default route unless the network is internal; remove the key",
    ),
    (
        &["forceAddress", "hairpinMode", "enabledad", "disableContainerInterface", "driver"],
        "the network and its driver decide that in netd; remove it",
    ),
    (
        &["ipMasq", "ipMasqBackend", "masquerade"],
        "a network masquerades or not (`masquerade` of [[network]] in netd.toml, or `netd network \
         create --no-masquerade`); remove the key",
    ),
    (
        &["mtu"],
        "the MTU is the network's (`mtu` of [[network]] in netd.toml, or `netd network create \
         --mtu`); remove the key",
    ),
    (&["promiscMode", "promisc", "allmulti"], "netd has no promiscuous interfaces; remove the key"),
    (
        &["vlan", "vlanTrunk", "preserveDefaultVlan", "vlanId"],
        "netd has no VLANs: make a network for each and name it by \"network\"; remove the key",
    ),
    (
        &["macspoofchk"],
        "netd always drops packets with another pod's MAC or address; remove the key",
    ),
    (
        &["portIsolation", "ingressPolicy", "internal", "isolation"],
        "networks of their own isolate pods, and `internal` of [[network]] closes one; remove the \
         key",
    ),
    (
        &["resolvConf", "nameservers", "domain", "search", "options", "servers"],
        "the resolver's settings are dns.nameservers, dns.domain, dns.search and dns.options",
    ),
    (
        &["snat", "masqAll", "conditionsV4", "conditionsV6", "externalSetMarkChain", "backend"],
        "netd makes the host ports itself, by nftables (capability portMappings); remove the key",
    ),
    (&["markMasqBit"], "the mark is hostport_mark in netd.toml; remove the key"),
    (
        &["master", "mode", "linkInContainer", "device", "hwaddr", "kernelpath", "bcqueuelen"],
        "netd has no macvlan, ipvlan or host devices; a network's driver is bridge or routed; \
         remove the key",
    ),
    (
        &["sysctl", "txQLen", "tx_queue_len"],
        "the plugin `tuning`, chained after netd, sets that; remove the key here",
    ),
    (
        &["bandwidth", "ingressRate", "ingressBurst", "egressRate", "egressBurst"],
        "a pod's limits are runtimeConfig.bandwidth (capability bandwidth)",
    ),
    (&["ips"], "requested addresses are runtimeConfig.ips (capability ips) or args.cni.ips"),
    (&["mac"], "a requested MAC is runtimeConfig.mac (capability mac) or args.cni.mac"),
    (&["portMappings"], "host ports are runtimeConfig.portMappings (capability portMappings)"),
    (&["labels"], "labels are args.cni.labels"),
    (&["aliases"], "netd gives pods no names in DNS; remove the key"),
    (&["plugins"], "this is a list of plugins: its file's name has to end in .conflist"),
];

/// Records every key that asks for something that nothing does.
pub(super) fn check(root: &JsonNode<'_>, reader: &mut Reader) {
    for (key, node) in root.fields() {
        if KNOWN.contains(&key) || INJECTED.contains(&key) || key.starts_with(SPEC_PREFIX) {
            continue;
        }
        match elsewhere(key) {
            Some(text) => reader.add(node.path(), text),
            None => reader.unknown(key, &node, KNOWN),
        }
    }
    capabilities(root, reader);
    runtime_config(root, reader);
    // A runtime may say more there, for other plugins; what only looks like one of these
    // keys is a mistake.
    let args = root.get("args").and_then(|args| args.get("cni"));
    for (key, node) in args.iter().flat_map(JsonNode::fields) {
        if !ARGS.contains(&key) && closest(key, ARGS).is_some() {
            reader.unknown(key, &node, ARGS);
        }
    }
}

/// A capability that is switched on must be one that netd has: the runtime would send what
/// nothing reads.
fn capabilities(root: &JsonNode<'_>, reader: &mut Reader) {
    let Some(object) = reader.object(root.get("capabilities")) else { return };
    for (key, node) in object.fields() {
        match node.as_bool() {
            None => reader.wrong(&node, "true or false"),
            Some(true) if !CAPABILITIES.contains(&key) => unserved(key, &node, reader),
            Some(_) => {}
        }
    }
}

fn runtime_config(root: &JsonNode<'_>, reader: &mut Reader) {
    let Some(runtime) = root.get("runtimeConfig") else { return };
    for (key, node) in runtime.fields() {
        let asks = match node.value() {
            Value::Object(fields) => !fields.is_empty(),
            Value::Array(list) => !list.is_empty(),
            _ => true,
        };
        let same = |name: &&str| name.eq_ignore_ascii_case(key);
        if !CAPABILITIES.contains(&key) && (asks || CAPABILITIES.iter().any(same)) {
            unserved(key, &node, reader);
        }
    }
}

fn unserved(key: &str, node: &JsonNode<'_>, reader: &mut Reader) {
    match elsewhere(key) {
        Some(text) => reader.add(node.path(), text),
        None => reader.unknown(key, node, CAPABILITIES),
    }
}

fn elsewhere(key: &str) -> Option<&'static str> {
    ELSEWHERE.iter().find(|(keys, _)| keys.contains(&key)).map(|(_, text)| *text)
}
