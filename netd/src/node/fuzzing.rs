//! For fuzzing: what start does with stored records, without a store and a kernel.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    record::{decode, encode},
    state::{KernelStatus, Loaded, NodeState, Placement},
};
use netd_domain::{
    AttachSpec, Driver, Endpoint, EndpointKey, NetnsId, Network, NetworkName, Pool, Tombstone,
    network::NetworkOptions,
};
use netd_store::{Entry, keys};

/// Loads the records, each tried as every kind under the key that it claims, and does
/// with the node_state what a running netd does.
pub(crate) fn rebuild<'a>(records: impl Iterator<Item = &'a [u8]>) {
    let mut entries = BTreeMap::new();
    for value in records {
        for key in claimed_keys(value) {
            entries.insert(key, value);
        }
    }
    let (node_state, loaded) = read(entries);
    node_state.load(loaded);
    netd_dataplane::fuzzing::state(&node_state.firewall());
    attach_everywhere(&node_state);
    for (endpoint, _) in node_state.endpoints() {
        netd_dataplane::fuzzing::plan(&endpoint.wiring);
        node_state.of_sandbox(&endpoint.key.sandbox);
        node_state.set_status(&endpoint.key, KernelStatus::LinkDetached);
        let tombstone = node_state.make_tombstone(&endpoint);
        node_state.released(&endpoint, tombstone);
    }
    assert!(node_state.endpoints().is_empty(), "an endpoint could not be released");
    attach_everywhere(&node_state);
}

fn claimed_keys(value: &[u8]) -> Vec<String> {
    let network = serde_json::from_slice::<Network>(value).map(|n| keys::network(&n.name));
    let endpoint = serde_json::from_slice::<Endpoint>(value).map(|e| keys::endpoint(&e.key));
    let tombstone = serde_json::from_slice::<Tombstone>(value).map(|t| keys::tombstone(&t.key));
    [network, endpoint, tombstone].into_iter().flatten().collect()
}

fn read(entries: BTreeMap<String, &[u8]>) -> (NodeState, Loaded) {
    let (node_state, mut loaded, mut networks) = (NodeState::default(), Loaded::default(), vec![]);
    for (key, value) in entries {
        let entry = entry(key, value);
        networks.extend(decode::network(&entry));
        loaded.endpoints.extend(decode::endpoint(&entry));
        loaded.tombstones.extend(decode::tombstone(&entry));
    }
    for network in decode::without_clashes(networks).0 {
        place(&node_state, network);
    }
    (node_state, loaded)
}

/// A network that a caller asked for, with an endpoint on it.
pub(crate) fn network(network: Network) {
    let value = encode::json(&network).unwrap_or_default();
    let entry = entry(keys::network(&network.name), &value);
    assert_eq!(decode::network(&entry).as_ref(), Ok(&network));
    let node_state = NodeState::default();
    place(&node_state, network);
    netd_dataplane::fuzzing::state(&node_state.firewall());
    attach_everywhere(&node_state);
}

/// An endpoint that a caller asked for, on a network of each driver.
pub(crate) fn attach(spec: AttachSpec) {
    for driver in [Driver::Bridge, Driver::Routed] {
        let Some(network) = dual_stack(spec.network.clone(), driver) else { continue };
        let node_state = NodeState::default();
        place(&node_state, network);
        let Ok(endpoint) =
            node_state.reserve(&spec, Placement::In(NetnsId { dev: 1, inode: 1, cookie: None }))
        else {
            continue;
        };
        let value = encode::json(&*endpoint).unwrap_or_default();
        let entry = entry(keys::endpoint(&endpoint.key), &value);
        assert_eq!(decode::endpoint(&entry).as_ref(), Ok(&*endpoint));
        netd_dataplane::fuzzing::plan(&endpoint.wiring);
        netd_dataplane::fuzzing::state(&node_state.firewall());
    }
}

fn dual_stack(name: NetworkName, driver: Driver) -> Option<Network> {
    let pool = |subnet: &str| Pool::new(subnet.parse().ok()?, None, (None, None), vec![]).ok();
    let pools = vec![pool("10.1.0.0/16")?, pool("10.2.0.0/24")?, pool("fd00:1::/64")?];
    Network::new(name, pools, NetworkOptions { driver, ..Default::default() }).ok()
}

fn place(node_state: &NodeState, network: Network) {
    let wiring = Arc::new(network.wiring(network.mtu.unwrap_or(1500)));
    node_state.put_network(Arc::new(network), wiring);
}

fn entry(key: String, value: &[u8]) -> Entry {
    Entry { key, value: value.to_vec(), create_revision: 1, mod_revision: 1, lease: 0 }
}

/// One more endpoint on each network: its record must be one that would be taken back.
fn attach_everywhere(node_state: &NodeState) {
    for state in node_state.networks() {
        let Some(spec) = spec(&state.network) else { continue };
        let reserved =
            node_state.reserve(&spec, Placement::In(NetnsId { dev: 1, inode: 1, cookie: None }));
        if let Ok(endpoint) = reserved {
            assert_eq!(endpoint.check(), Ok(()), "an attach makes a record that is refused");
            node_state.drop_reservation(&endpoint, &[]);
        }
    }
}

fn spec(network: &Network) -> Option<AttachSpec> {
    let key = EndpointKey { sandbox: "fuzz".parse().ok()?, ifname: "eth9".parse().ok()? };
    Some(AttachSpec {
        netns_path: Some("/run/netns/fuzz".into()),
        ..AttachSpec::for_endpoint(key, network.name.clone(), 1)
    })
}
