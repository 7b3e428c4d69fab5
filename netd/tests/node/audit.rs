//! Memory, store and kernel agree, and nothing is left over.

use std::collections::{BTreeMap, BTreeSet};

use netd::node::KernelStatus;
use netd_domain::Endpoint;
use netd_store::keys;

use super::bed::{Bed, Process};

/// Names of netd's host sides that a text mentions.
fn host_names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let ours = |w: &&str| w.len() == 14 && w.starts_with("nd");
    words.filter(ours).map(str::to_owned).collect()
}

/// To be called while no request is running.
pub(crate) fn audit(bed: &Bed, netd: &Process) -> Vec<Endpoint> {
    netd.settle();
    let list = |prefix| netd.run(async { netd.node.store().list(prefix).await }).unwrap().entries;
    let stored: Vec<Endpoint> =
        list(keys::ENDPOINTS).iter().map(|e| serde_json::from_slice(&e.value).unwrap()).collect();

    let mut owners = BTreeMap::new();
    for endpoint in &stored {
        let (held, work) = netd.node.endpoint(&endpoint.key).expect("stored, but not known");
        assert_eq!(*held, *endpoint, "memory and store differ");
        assert_eq!(work, KernelStatus::Attached, "{}", endpoint.key);
        for ip in endpoint.ips() {
            let address = keys::address(&endpoint.network, ip);
            let other = owners.insert(address, endpoint.key.to_string());
            assert_eq!(other, None, "{ip} is given out twice");
        }
    }
    assert_eq!(netd.node.counts().endpoints, stored.len(), "known, but not stored");

    let held: BTreeMap<_, _> = list(keys::ADDRESSES)
        .into_iter()
        .map(|e| (e.key, String::from_utf8(e.value).unwrap()))
        .collect();
    assert_eq!(held, owners, "addresses in the store");
    let used: u64 = netd.node.networks().iter().flat_map(|n| &n.pools).map(|pool| pool.used).sum();
    assert_eq!(used, owners.len() as u64, "addresses in memory");

    let wanted: BTreeSet<_> = stored.iter().map(|e| e.wiring.host_ifname.to_string()).collect();
    assert_eq!(host_names(&bed.host.ip("-o link show type veth")), wanted, "links");
    let rules = bed.host.run("nft", "list ruleset").unwrap();
    assert_eq!(host_names(&rules), wanted, "firewall");
    stored
}
