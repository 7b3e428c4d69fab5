use std::{sync::Arc, time::Duration};

use super::*;
use crate::membership::records::{OwnerRecord, render};
use netd_store::{LeaseStore, embedded::HistoryLimit, testing::MemoryStore};

const GONE: &str = "11111111-1111-1111-1111-111111111111";
const SELF: &str = "22222222-2222-2222-2222-222222222222";

fn keys() -> ClusterKeys {
    ClusterKeys::default()
}

fn value(ip: &str) -> Vec<u8> {
    format!(r#"{{"PublicIP":"{ip}","BackendType":"host-gw"}}"#).into_bytes()
}

fn record(id: &str, name: &str, ip: &str) -> NodeRecord {
    NodeRecord {
        id: id.into(),
        name: name.into(),
        version: "1".into(),
        public_ip: Some(ip.parse().unwrap()),
        public_ipv6: None,
        backend: None,
        since: 1,
        incarnation: Some("boot".into()),
        contender: None,
    }
}

async fn put(store: &dyn LeaseStore, pairs: Vec<(String, Vec<u8>)>) {
    let lease = store.grant(Duration::from_secs(3600)).await.unwrap();
    let change = |(key, value)| Change::Put { key, value, lease };
    let changes = pairs.into_iter().map(change).collect();
    store.commit(Txn { compares: vec![], changes }).await.unwrap();
}

async fn node(store: &dyn LeaseStore, id: &str, name: &str, ip: &str, leases: &[&str]) {
    let mut pairs = vec![(keys().node(id), render(&record(id, name, ip)))];
    for lease in leases {
        let owner = OwnerRecord { id: id.into(), node: name.into(), since: 1, reserved: None };
        pairs.push((keys().owner(lease), render(&owner)));
        pairs.push((keys().lease(lease), value(ip)));
        pairs.push((format!("{}10.5.0.9", keys().endpoints_of(lease)), b"{}".to_vec()));
    }
    put(store, pairs).await;
}

/// A node that is gone, this one, and one of flannel's.
async fn cluster() -> Arc<dyn LeaseStore> {
    let store = MemoryStore::new(HistoryLimit::default());
    node(&*store, GONE, "gone", "192.0.2.1", &["10.5.1.0-24", "10.5.2.0-24"]).await;
    node(&*store, SELF, "self", "192.0.2.2", &["10.5.3.0-24"]).await;
    put(&*store, vec![(keys().lease("10.5.4.0-24"), value("192.0.2.4"))]).await;
    store
}

async fn removed(
    store: &Arc<dyn LeaseStore>,
    target: &str,
    force: bool,
) -> Result<Removed, RemovalError> {
    let removal = Removal { target: target.into(), force, own_id: SELF.into() };
    remove(&**store, keys(), &removal).await
}

async fn left(store: &Arc<dyn LeaseStore>) -> Vec<String> {
    let mut left = Vec::new();
    for prefix in ["/coreos.com/", "/netd/"] {
        let snapshot = store.list(prefix).await.unwrap();
        left.extend(snapshot.entries.into_iter().map(|entry| entry.key));
    }
    left
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_answer_is_removed_with_all_it_has() {
    for target in ["gone", "192.0.2.1", GONE] {
        let store = cluster().await;
        let removed = removed(&store, target, false).await.unwrap();
        assert_eq!((removed.node.as_str(), removed.subnets.len()), ("gone", 2), "{target}");
        let left = left(&store).await;
        assert_eq!(left.len(), 5, "{target}: {left:?}");
        assert!(left.iter().all(|key| !key.contains("10.5.1.0") && !key.contains(GONE)));
    }
}

#[tokio::test(start_paused = true)]
async fn one_subnet_goes_alone_and_the_last_one_takes_the_record() {
    let store = cluster().await;
    let first = removed(&store, "10.5.1.0/24", false).await.unwrap();
    assert_eq!(first.subnets, [flannel::key::parse("10.5.1.0-24").unwrap()]);
    assert!(left(&store).await.contains(&keys().node(GONE)));
    // The question of before was not answered: forced, for it stands in the record.
    removed(&store, "10.5.2.0/24", true).await.unwrap();
    assert!(!left(&store).await.contains(&keys().node(GONE)));
}

#[tokio::test(start_paused = true)]
async fn what_runs_is_refused() {
    let store = cluster().await;
    let answers = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            loop {
                let entry = store.get(&keys().node(GONE)).await.unwrap().unwrap();
                if NodeRecord::parse(&entry.value).unwrap().contender.is_some() {
                    break node(&*store, GONE, "gone", "192.0.2.1", &[]).await;
                }
                sleep(Duration::from_millis(20)).await;
            }
        })
    };
    let before = left(&store).await;
    let refused = removed(&store, "gone", false).await.unwrap_err();
    assert!(matches!(refused, RemovalError::Alive(_)), "{refused}");
    answers.await.unwrap();
    assert_eq!(left(&store).await, before);
    removed(&store, "gone", true).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_meant_or_asked_is_refused() {
    let store = cluster().await;
    node(&*store, "33333333-3333-3333-3333-333333333333", "gone", "192.0.2.9", &["10.5.9.0-24"])
        .await;
    type Expected = fn(&RemovalError) -> bool;
    let cases: [(&str, bool, Expected); 7] = [
        ("self", true, |e| matches!(e, RemovalError::Own(_))),
        ("192.0.2.2", true, |e| matches!(e, RemovalError::Own(_))),
        ("10.5.3.0/24", true, |e| matches!(e, RemovalError::Own(_))),
        ("gone", true, |e| matches!(e, RemovalError::Ambiguous { .. })),
        ("nobody", true, |e| matches!(e, RemovalError::NotFound(_))),
        ("192.0.2.4", false, |e| matches!(e, RemovalError::Unknown { .. })),
        ("10.5.4.0/24", false, |e| matches!(e, RemovalError::Unknown { .. })),
    ];
    let before = left(&store).await;
    for (target, force, is_right) in cases {
        let refused = removed(&store, target, force).await.unwrap_err();
        assert!(is_right(&refused), "{target}: {refused}");
    }
    assert_eq!(left(&store).await, before);
    let flannels = removed(&store, "192.0.2.4", true).await.unwrap();
    assert_eq!((flannels.node.as_str(), flannels.subnets.len()), ("", 1));
}

#[tokio::test(start_paused = true)]
async fn an_administrators_reservation_stays() {
    let store = cluster().await;
    let key = keys().lease("10.5.1.0-24");
    let change = Change::Put { key: key.clone(), value: value("192.0.2.1"), lease: 0 };
    store.commit(Txn { compares: vec![], changes: vec![change] }).await.unwrap();
    removed(&store, "gone", true).await.unwrap();
    assert!(left(&store).await.contains(&key));
}
