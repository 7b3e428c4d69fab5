//! Leases. Times are whole seconds and answers generous: etcd counts in seconds.

use std::{sync::Arc, time::Duration};

use super::helpers::{delete, events, put, revision_of, told, txn};
use crate::{Change, LeaseId, LeaseStore, Revision, Store, StoreError, TxnOutcome};

const TTL: Duration = Duration::from_secs(2);

fn leased(key: &str, lease: LeaseId) -> Change {
    Change::Put { key: key.to_owned(), value: b"v".to_vec(), lease }
}

async fn commit(store: &Arc<dyn LeaseStore>, changes: &[Change]) -> Revision {
    let store: Arc<dyn Store> = Arc::clone(store) as Arc<dyn Store>;
    super::helpers::commit(&store, changes).await
}

async fn is_there(store: &Arc<dyn LeaseStore>, key: &str) -> bool {
    store.get(key).await.unwrap().is_some()
}

/// A lease that is not kept alive ends, and all its keys go at one revision.
pub(super) async fn expiry(store: &Arc<dyn LeaseStore>, at: &str) {
    let [a, b, c] = ["a", "b", "c"].map(|k| format!("{at}{k}"));
    let lease = store.grant(TTL).await.unwrap();
    assert_ne!(lease, 0);
    let other = store.grant(Duration::from_secs(600)).await.unwrap();
    assert_ne!(lease, other);
    let after = commit(store, &[leased(&a, lease), leased(&b, lease), leased(&c, other)]).await;
    assert_eq!(store.get(&a).await.unwrap().unwrap().lease, lease);
    let mut watch = store.watch(at, after).await.unwrap();
    let (seen, _) = events(&mut watch, 2).await;
    let mut keys: Vec<_> = seen.iter().map(|e| told(e, at)).collect();
    keys.sort();
    assert_eq!(keys, ["-a", "-b"]);
    assert_eq!(revision_of(&seen[0]), revision_of(&seen[1]));
    assert!(!is_there(store, &a).await && is_there(store, &c).await);
    gone(store, lease, at).await;
    store.revoke(other).await.unwrap();
}

/// An ended lease can be neither kept alive nor used; ending it again succeeds.
async fn gone(store: &Arc<dyn LeaseStore>, lease: LeaseId, at: &str) {
    let alive = store.keep_alive(lease).await;
    assert!(matches!(alive, Err(StoreError::LeaseGone(l)) if l == lease), "{alive:?}");
    let (late, with) = (format!("{at}late"), format!("{at}with"));
    let used = store.commit(txn(&[], &[put(&with, "v"), leased(&late, lease)])).await;
    assert!(matches!(used, Err(StoreError::LeaseGone(l)) if l == lease), "{used:?}");
    assert!(!is_there(store, &late).await && !is_there(store, &with).await);
    store.revoke(lease).await.unwrap();
}

/// A lease kept alive outlives its time; no longer kept alive, it ends.
pub(super) async fn keep_alive(store: &Arc<dyn LeaseStore>, at: &str) {
    let key = format!("{at}k");
    let lease = store.grant(TTL).await.unwrap();
    let after = commit(store, &[leased(&key, lease)]).await;
    for _ in 0..6 {
        tokio::time::sleep(TTL / 4).await;
        store.keep_alive(lease).await.unwrap();
    }
    assert!(is_there(store, &key).await, "kept alive for 1.5 times its time");
    let mut watch = store.watch(at, after).await.unwrap();
    let (seen, _) = events(&mut watch, 1).await;
    assert_eq!(told(&seen[0], at), "-k");
}

/// Ending a lease removes its keys before it returns.
pub(super) async fn revocation(store: &Arc<dyn LeaseStore>, at: &str) {
    let [a, b] = ["a", "b"].map(|k| format!("{at}{k}"));
    let lease = store.grant(Duration::from_secs(600)).await.unwrap();
    commit(store, &[leased(&a, lease)]).await;
    let after = commit(store, &[leased(&b, lease)]).await;
    let mut watch = store.watch(at, after).await.unwrap();
    store.revoke(lease).await.unwrap();
    assert!(!is_there(store, &a).await && !is_there(store, &b).await);
    let (seen, _) = events(&mut watch, 2).await;
    assert_eq!(revision_of(&seen[0]), revision_of(&seen[1]));
    gone(store, lease, at).await;
    store.revoke(i64::MAX - 7).await.unwrap();
}

/// The last put decides which lease a key is bound to.
pub(super) async fn rebinding(store: &Arc<dyn LeaseStore>, at: &str) {
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|k| format!("{at}{k}"));
    let first = store.grant(Duration::from_secs(600)).await.unwrap();
    let second = store.grant(Duration::from_secs(600)).await.unwrap();
    let all = [&a, &b, &c, &d].map(|k| leased(k, first));
    commit(store, &all).await;
    commit(store, &[put(&a, "free"), leased(&b, second), delete(&d)]).await;
    commit(store, &[put(&d, "again")]).await;
    store.revoke(first).await.unwrap();
    let left = [&a, &b, &c, &d];
    let mut there = vec![];
    for key in left {
        there.push(is_there(store, key).await);
    }
    assert_eq!(there, [true, true, false, true], "a freed, b rebound, c bound, d recreated");
    store.revoke(second).await.unwrap();
    assert!(!is_there(store, &b).await && is_there(store, &a).await);
    let outcome = store.commit(txn(&[], &[leased(&a, second)])).await;
    assert!(!matches!(outcome, Ok(TxnOutcome::Committed(_))));
}
