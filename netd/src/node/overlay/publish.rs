//! Tells the cluster which pod has which address: every endpoint of the leased network
//! under netd's own prefix, bound to the node's lease. An attach does not wait for it: this
//! task follows what attaches recorded on this node, and writes many at a time to etcd.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    core::{EtcdRecords, Overlay},
    local_node::LocalNode,
};
use crate::node::record::encode;
use netd_cluster::{membership::OwnSubnets, published::Published};
use netd_domain::{Backoff, Endpoint, Phase};
use netd_store::{Change, LeaseId, StoreError, Txn, WatchUpdate, keys};

/// A burst of attaches may bring more events within this time.
const COALESCE_DELAY: Duration = Duration::from_millis(50);
/// Changes in one transaction; etcd's default limit is 128.
const MAX_CHANGES_PER_TXN: usize = 100;
const RETRY_BACKOFF: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));

/// What is published, by key.
type Records = BTreeMap<String, Vec<u8>>;

/// Publishes until netd ends.
pub(super) async fn run(overlay: Arc<Overlay>, node: Arc<dyn LocalNode>, etcd: EtcdRecords) {
    let mut backoff = RETRY_BACKOFF;
    loop {
        match publish(&overlay, &*node, &etcd, &mut backoff).await {
            Ok(()) => backoff.reset(),
            Err(error) => {
                tracing::debug!(%error, "endpoints can't be published to etcd: {error}");
                node.health().advise("overlay/endpoints", format!("not published: {error}"));
                tokio::time::sleep(backoff.next_delay(fastrand::f64())).await;
            }
        }
    }
}

/// Publishes everything, then what changes, until the node's subnets or its lease do.
async fn publish(
    overlay: &Overlay,
    node: &dyn LocalNode,
    etcd: &EtcdRecords,
    backoff: &mut Backoff,
) -> Result<(), StoreError> {
    let changed = overlay.own_changed.notified();
    tokio::pin!(changed);
    // No change is missed from here on.
    changed.as_mut().enable();
    let own = overlay.state.lock().await.own.clone();
    let (Some(lease), false) = (overlay.membership.status().lease, own.is_empty()) else {
        // A lease may come without a change of the subnets.
        let _ = tokio::time::timeout(Duration::from_secs(5), changed).await;
        return Ok(());
    };
    let store = node.store();
    let revision = store.list(keys::PROBE_VOLATILE).await?.revision;
    let mut watch = store.watch(keys::ENDPOINTS, revision).await?;
    let mut published = listed(etcd, &own, lease).await?;
    loop {
        let wanted = wanted(overlay, node, etcd, &own);
        update(etcd, lease, &mut published, wanted).await?;
        node.health().good("overlay/endpoints");
        backoff.reset();
        tokio::select! {
            () = changed.as_mut() => return Ok(()),
            next = watch.next() => match next {
                Some(Ok(WatchUpdate::Changes { .. })) => tokio::time::sleep(COALESCE_DELAY).await,
                Some(Ok(WatchUpdate::Compacted)) | None => return Ok(()),
                Some(Err(error)) => return Err(error),
            },
        }
        // etcd removed what was bound to the lease together with it.
        if overlay.membership.status().lease != Some(lease) {
            return Ok(());
        }
    }
}

/// What is published of this node's subnets.
async fn listed(
    etcd: &EtcdRecords,
    own: &[OwnSubnets],
    lease: LeaseId,
) -> Result<Records, StoreError> {
    let mut all = Records::new();
    for own in own {
        let range = etcd.keys.endpoints_of(&own.key);
        for entry in etcd.store.list(&range).await?.entries {
            // A key that is bound to an earlier lease would expire with that lease.
            let value = if entry.lease == lease { entry.value } else { vec![] };
            all.insert(entry.key, value);
        }
    }
    Ok(all)
}

/// What is to be published of this node's subnets.
fn wanted(
    overlay: &Overlay,
    node: &dyn LocalNode,
    etcd: &EtcdRecords,
    own: &[OwnSubnets],
) -> Records {
    let mut all = Records::new();
    for endpoint in node.endpoints() {
        if endpoint.phase != Phase::Attached || endpoint.network != overlay.settings.network {
            continue;
        }
        let Ok(value) = record(node, &endpoint) else { continue };
        for ip in endpoint.ips() {
            let holds = |own: &&OwnSubnets| own.subnets.iter().any(|net| net.contains(&ip));
            if let Some(own) = own.iter().find(holds) {
                all.insert(etcd.keys.endpoint_at(&own.key, ip), value.clone());
            }
        }
    }
    all
}

fn record(node: &dyn LocalNode, endpoint: &Endpoint) -> crate::node::error::Result<Vec<u8>> {
    encode::json(&Published::of(&node.config().node, endpoint))
}

/// Puts the difference into etcd.
async fn update(
    etcd: &EtcdRecords,
    lease: LeaseId,
    published: &mut Records,
    wanted: Records,
) -> Result<(), StoreError> {
    let puts = wanted.iter().filter(|(key, value)| published.get(*key) != Some(*value));
    let mut changes: Vec<Change> = puts
        .map(|(key, value)| Change::Put { key: key.clone(), value: value.clone(), lease })
        .collect();
    let gone: BTreeSet<_> = published.keys().filter(|key| !wanted.contains_key(*key)).collect();
    changes.extend(gone.into_iter().map(|key| Change::Delete { key: key.clone() }));
    for part in changes.chunks(MAX_CHANGES_PER_TXN) {
        etcd.store.commit(Txn { compares: vec![], changes: part.to_vec() }).await?;
    }
    *published = wanted;
    Ok(())
}
