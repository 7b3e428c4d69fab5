//! Records that are missing or can't be read: what they had is left alone.

use netd_store::{Change, Store as _, Txn, keys};

use super::{
    audit::audit,
    bed::{Bed, key, spec},
    space::Space,
};

/// Changes the store while no netd is running.
fn tamper(bed: &Bed, change: Change) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let txn = Txn { compares: vec![], changes: vec![change] };
        bed.open_store().commit(txn).await.unwrap();
    });
}

#[test]
fn an_endpoint_whose_network_is_gone_goes_on_and_can_be_detached() {
    let mut bed = Bed::new();
    let pod = Space::new();
    let key = key("s1", "eth0");
    let netd = bed.start();
    netd.attach(spec(&key, &pod, "small")).unwrap();
    drop(netd);
    tamper(&bed, Change::Delete { key: keys::network(&"small".parse().unwrap()) });
    bed.networks = String::new();
    let netd = bed.start();
    assert!(netd.node.network(&"small".parse().unwrap()).is_err());
    assert_eq!(netd.node.health().ready(), Ok(()));
    netd.run(netd.node.check(&key, None, None)).unwrap();
    netd.detach(&key).unwrap();
    assert!(audit(&bed, &netd).is_empty());
}

#[test]
fn an_unreadable_record_costs_its_pod_neither_link_nor_address() {
    let (bed, pod, other) = (Bed::new(), Space::new(), Space::new());
    let damaged = key("s1", "eth0");
    let netd = bed.start();
    let before = netd.attach(spec(&damaged, &pod, "default")).unwrap();
    drop(netd);
    let value = b"{\"key\": 7".to_vec();
    tamper(&bed, Change::Put { key: keys::endpoint(&damaged), value, lease: 0 });
    let netd = bed.start();
    bed.host.ip(&format!("link show {}", before.wiring.host_ifname));
    assert!(netd.node.health().problem("records").unwrap().contains("s1/eth0"));
    assert_eq!(netd.node.health().ready(), Ok(()));
    let mut same = spec(&key("s2", "eth0"), &other, "default");
    same.addresses.push(before.ips().next().unwrap());
    assert!(netd.attach(same.clone()).unwrap_err().to_string().contains("in use"));
    same.addresses.clear();
    assert_ne!(netd.attach(same).unwrap().ips().next(), before.ips().next());
}
