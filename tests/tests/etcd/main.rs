//! The etcd store on a real etcd: what every store has to do, and what only a
//! cluster can do to it.

mod access;
mod conform;
mod failover;
mod history;
mod scale;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use netd_store::{
    Change, Event, Revision, Store, StoreError, Txn, TxnOutcome, Watch, WatchUpdate,
    etcd::{EtcdOptions, EtcdStore},
};
use testbed::etcd::EtcdCluster;
use tokio::time::{Instant, timeout};

/// All that a test may take until everything works again.
const RECOVERY: Duration = Duration::from_secs(30);

/// A store on all members, that tells how far it is every 200 ms.
fn open(cluster: &EtcdCluster) -> Result<Arc<EtcdStore>> {
    let mut options = EtcdOptions::new(cluster.endpoints());
    options.quiet_time = Duration::from_millis(200);
    Ok(EtcdStore::open(options)?)
}

fn put(key: &str, value: &str) -> Txn {
    let (key, value) = (key.to_owned(), value.as_bytes().to_vec());
    Txn { compares: vec![], changes: vec![Change::Put { key, value, lease: 0 }] }
}

async fn write(store: &EtcdStore, key: &str, value: &str) -> Result<Revision, StoreError> {
    match store.commit(put(key, value)).await? {
        TxnOutcome::Committed(revision) => Ok(revision),
        TxnOutcome::Conflict(_) => {
            Err(StoreError::Unavailable("a conflict without compare".into()))
        }
    }
}

/// Writes until it succeeds: how long it took, and how often it failed.
async fn write_at_last(store: &EtcdStore, key: &str, value: &str) -> Result<(Duration, usize)> {
    let (start, mut failures) = (Instant::now(), 0);
    loop {
        match write(store, key, value).await {
            Ok(_) => return Ok((start.elapsed(), failures)),
            Err(StoreError::Unavailable(why)) if start.elapsed() < RECOVERY => {
                eprintln!("write: {why}");
                failures += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(error).context("a write"),
        }
    }
}

/// What a watch yields next, which must come in time.
async fn next(watch: &mut Box<dyn Watch>) -> Result<Result<WatchUpdate, StoreError>> {
    let next = timeout(RECOVERY, watch.next()).await.context("a watch stayed silent")?;
    next.context("a watch ended")
}

/// Events until `key` is put with `value`, as `key=value` and `-key`, and the errors before.
async fn until(
    watch: &mut Box<dyn Watch>,
    key: &str,
    value: &str,
) -> Result<(Vec<String>, Vec<String>)> {
    let (mut seen, mut errors) = (Vec::new(), Vec::new());
    let last = format!("{key}={value}");
    while seen.last() != Some(&last) {
        match next(watch).await? {
            Ok(WatchUpdate::Changes { events, .. }) => seen.extend(events.iter().map(told)),
            Ok(WatchUpdate::Compacted) => bail!("compacted after {seen:?}"),
            Err(StoreError::Unavailable(why)) => errors.push(why),
            Err(error) => bail!("a watch yielded {error}"),
        }
    }
    Ok((seen, errors))
}

fn told(event: &Event) -> String {
    match event {
        Event::Put(entry) => format!("{}={}", entry.key, String::from_utf8_lossy(&entry.value)),
        Event::Delete { key, .. } => format!("-{key}"),
    }
}
