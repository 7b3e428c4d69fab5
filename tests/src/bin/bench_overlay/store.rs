//! The leases of a large cluster, written as flannel nodes write them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use netd_store::{
    Change, LeaseId, LeaseStore as _, Store as _, Txn, TxnOutcome,
    etcd::{EtcdOptions, EtcdStore},
};
use testbed::cluster::{PREFIX, flannel};

/// Keys in one transaction.
const AT_ONCE: usize = 100;
const TTL: Duration = Duration::from_secs(24 * 3600);

/// Node number `n`'s lease: name and value.
pub(crate) fn lease(n: usize) -> Result<(String, String)> {
    let [_, a, b, c] = u32::try_from(n)?.to_be_bytes();
    // 10.1.0.0/24 and on; the nodes are elsewhere than the bed's own.
    let name = format!("10.{}.{c}.0-24", b + 1);
    let value = flannel::vxlan_value(
        format!("172.16.{b}.{c}").parse()?,
        &format!("02:00:00:{a:02x}:{b:02x}:{c:02x}"),
    );
    Ok((name, value))
}

/// A client in the current thread's network namespace.
pub(crate) fn open(endpoint: String) -> Result<Arc<EtcdStore>> {
    Ok(EtcdStore::open(EtcdOptions::new(vec![endpoint]))?)
}

fn put(n: usize, lease: LeaseId) -> Result<Change> {
    let (name, value) = self::lease(n)?;
    Ok(Change::Put { key: format!("{PREFIX}/subnets/{name}"), value: value.into(), lease })
}

async fn commit(store: &EtcdStore, changes: Vec<Change>) -> Result<()> {
    match store.commit(Txn { compares: vec![], changes }).await? {
        TxnOutcome::Committed(_) => Ok(()),
        TxnOutcome::Conflict(_) => bail!("a conflict without compare"),
    }
}

/// Writes the leases of nodes 0 to `count`, a hundred at a time.
pub(crate) async fn fill(store: &EtcdStore, count: usize) -> Result<()> {
    let lease = store.grant(TTL).await?;
    for from in (0..count).step_by(AT_ONCE) {
        let numbers = from..(from + AT_ONCE).min(count);
        let changes = numbers.map(|n| put(n, lease)).collect::<Result<Vec<_>>>()?;
        commit(store, changes).await?;
    }
    Ok(())
}

/// One node's lease, as it starts; when it was acknowledged.
pub(crate) async fn add(store: &EtcdStore, n: usize, lease: LeaseId) -> Result<(Instant, Instant)> {
    let asked = Instant::now();
    commit(store, vec![put(n, lease)?]).await?;
    Ok((asked, Instant::now()))
}

/// As flannel renews: a new etcd lease and the same value again, `count` times.
pub(crate) async fn renew_as_flannel(store: &EtcdStore, nodes: usize, count: usize) -> Result<()> {
    for n in 0..count {
        let lease = store.grant(TTL).await?;
        commit(store, vec![put(n % nodes, lease)?]).await?;
    }
    Ok(())
}

/// As netd renews.
pub(crate) async fn keep_alive(store: &EtcdStore, count: usize) -> Result<()> {
    let lease = store.grant(TTL).await?;
    for _ in 0..count {
        store.keep_alive(lease).await?;
    }
    Ok(())
}
