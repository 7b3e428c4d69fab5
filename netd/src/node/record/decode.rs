//! Reads records: they are decoded, compared with their key, and checked. A record that
//! fails is refused as a whole.

use std::collections::HashSet;

use serde::de::DeserializeOwned;

use netd_domain::{Endpoint, IfName, Network, Tombstone};
use netd_store::{Entry, keys};

fn decode<T: DeserializeOwned>(entry: &Entry) -> Result<T, String> {
    serde_json::from_slice(&entry.value).map_err(|e| e.to_string())
}

/// A record under another one's key would be a second record of the same thing.
fn same_key(entry: &Entry, own: &str) -> Result<(), String> {
    if entry.key == own { Ok(()) } else { Err(format!("is a record of {own}")) }
}

/// A network's record.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn network(entry: &Entry) -> Result<Network, String> {
    let network: Network = decode(entry)?;
    same_key(entry, &keys::network(&network.name))?;
    Ok(network)
}

/// An endpoint's record.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn endpoint(entry: &Entry) -> Result<Endpoint, String> {
    let endpoint: Endpoint = decode(entry)?;
    same_key(entry, &keys::endpoint(&endpoint.key))?;
    endpoint.check().map_err(|bad| bad.to_string())?;
    Ok(endpoint)
}

/// A tombstone.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn tombstone(entry: &Entry) -> Result<Tombstone, String> {
    let tombstone: Tombstone = decode(entry)?;
    same_key(entry, &keys::tombstone(&tombstone.key))?;
    tombstone.check().map_err(|bad| bad.to_string())?;
    Ok(tombstone)
}

/// The host interface of the endpoint whose record has this key, whatever the record says.
pub(crate) fn device(key: &str) -> Option<IfName> {
    keys::endpoint_of(key).map(|key| key.host_ifname())
}

/// The networks that can exist on one node, of two that clash the first one; and the others,
/// each with the reason.
pub(crate) fn without_clashes(networks: Vec<Network>) -> (Vec<Network>, Vec<(Network, String)>) {
    let (mut kept, mut refused): (Vec<Network>, Vec<_>) = (Vec::new(), Vec::new());
    for network in networks {
        match kept.iter().find_map(|earlier| network.clash(earlier)) {
            Some(why) => refused.push((network, why)),
            None => kept.push(network),
        }
    }
    (kept, refused)
}

/// Records that were refused at the start.
#[derive(Debug, Default)]
pub(crate) struct RefusedRecords {
    /// How many records.
    pub(crate) records: usize,
    /// Host interfaces of endpoints among them: they are not stray links.
    pub(crate) devices: HashSet<IfName>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use netd_domain::EndpointKey;

    fn entry(key: &str, value: &str) -> Entry {
        Entry {
            key: key.into(),
            value: value.into(),
            create_revision: 1,
            mod_revision: 1,
            lease: 0,
        }
    }

    const TOMBSTONE: &str = r#"{"key":{"sandbox":"a","ifname":"eth0"},"issued_at":1,
        "released_at":1,"network":null,"addresses":[],"sequence":1}"#;

    #[test]
    fn a_record_under_another_ones_key_is_refused() {
        let right = entry("/netd/v1/node/tombstones/a/eth0", TOMBSTONE);
        assert_eq!(tombstone(&right).unwrap().sequence, 1);
        let wrong = entry("/netd/v1/node/tombstones/b/eth0", TOMBSTONE);
        let error = tombstone(&wrong).unwrap_err();
        assert_eq!(error, "is a record of /netd/v1/node/tombstones/a/eth0");
    }

    #[test]
    fn a_record_that_would_make_netd_act_on_another_device_is_refused() {
        let seed = include_str!("../../../../fuzz/seeds/stored_records/bridge.json");
        let good = seed.lines().nth(1).unwrap();
        let key = "/netd/v1/node/endpoints/s1/eth0";
        let host = endpoint(&entry(key, good)).unwrap().wiring.host_ifname.to_string();
        let error = endpoint(&entry(key, &good.replace(&host, "eth0"))).unwrap_err();
        assert!(error.starts_with("wiring.host_ifname: eth0"), "{error}");
        assert_eq!(device(key).unwrap().as_str(), host);
    }

    #[test]
    fn the_device_of_a_refused_record_follows_from_its_key() {
        let key = EndpointKey { sandbox: "a".parse().unwrap(), ifname: "eth0".parse().unwrap() };
        assert_eq!(device(&keys::endpoint(&key)), Some(key.host_ifname()));
        assert_eq!(device("/netd/v1/node/endpoints/a"), None);
        assert_eq!(device("/netd/v1/networks/a/eth0"), None);
    }

    #[test]
    fn of_two_networks_that_clash_the_first_is_kept() {
        let network = |name: &str, subnet: &str| {
            let pool = netd_domain::Pool::new(subnet.parse().unwrap(), None, (None, None), vec![]);
            Network::new(name.parse().unwrap(), vec![pool.unwrap()], Default::default()).unwrap()
        };
        let all = [("a", "10.1.0.0/16"), ("b", "10.1.2.0/24"), ("c", "10.2.0.0/16")];
        let (kept, refused) = without_clashes(all.map(|(n, s)| network(n, s)).to_vec());
        let names: Vec<_> = kept.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
        assert_eq!(refused.len(), 1);
        assert!(refused[0].1.contains("10.1.0.0/16"), "{}", refused[0].1);
    }
}
