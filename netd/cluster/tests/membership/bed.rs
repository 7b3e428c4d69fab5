//! A store that can be counted, cut off, and shared by nodes that die with their tasks.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use netd_cluster::{LeaseAttrs, flannel, membership::MembershipOptions};
use netd_store::{
    Change, Entry, LeaseId, LeaseStore, Revision, Snapshot, Store, StoreError, Txn, TxnOutcome,
    Watch, WatchUpdate, embedded::HistoryLimit, keys::ClusterKeys, testing::MemoryStore,
};
use tokio::{runtime::Handle, sync::Notify};

pub(crate) const CONFIG: &str = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;

/// A new store in memory.
pub(crate) fn memory_store() -> Arc<dyn LeaseStore> {
    MemoryStore::new(HistoryLimit::default())
}

pub(crate) async fn put(
    store: &Arc<dyn LeaseStore>,
    pairs: impl IntoIterator<Item = (String, String)>,
) {
    let lease = store.grant(Duration::from_secs(3600)).await.unwrap();
    let change = |(key, value): (String, String)| Change::Put {
        lease: if key.ends_with("/config") { 0 } else { lease },
        key,
        value: value.into_bytes(),
    };
    let changes = pairs.into_iter().map(change).collect();
    store.commit(Txn { compares: vec![], changes }).await.unwrap();
}

pub(crate) async fn put_config(store: &Arc<dyn LeaseStore>, config: &str) {
    put(store, [(ClusterKeys::default().config(), config.to_owned())]).await;
}

pub(crate) fn attrs(ip: &str) -> LeaseAttrs {
    let text = format!(
        r#"{{"PublicIP":"{ip}","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}}}}"#
    );
    flannel::value::parse(text.as_bytes()).unwrap()
}

pub(crate) fn options(dir: &Path, name: &str) -> MembershipOptions {
    MembershipOptions {
        keys: ClusterKeys::default(),
        state_dir: dir.join(name),
        run_dir: dir.join(format!("{name}-run")),
        node_name: name.to_owned(),
        version: "test".to_owned(),
        ttl: Duration::from_secs(3600),
        hold: Duration::from_secs(2),
        pod_cidr: None,
        previous: None,
    }
}

/// A store behind a network: requests are done by the runtime of the store, whatever
/// becomes of who asked.
#[derive(Debug)]
pub(crate) struct Remote {
    inner: Arc<dyn LeaseStore>,
    runtime: Handle,
    gate: Arc<Gate>,
    pub requests: AtomicUsize,
    pub writes: AtomicUsize,
}

/// Whether the store can be reached.
#[derive(Debug, Default)]
struct Gate {
    away: AtomicBool,
    change: Notify,
}

impl Gate {
    fn is_away(&self) -> bool {
        self.away.load(Ordering::SeqCst)
    }
}

impl Remote {
    /// To be called on the store's runtime.
    pub(crate) fn new(inner: Arc<dyn LeaseStore>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            runtime: Handle::current(),
            gate: Arc::default(),
            requests: AtomicUsize::new(0),
            writes: AtomicUsize::new(0),
        })
    }

    pub(crate) fn set_away(&self, away: bool) {
        self.gate.away.store(away, Ordering::SeqCst);
        self.gate.change.notify_waiters();
    }

    async fn ask<T, F>(&self, ask: impl FnOnce(Arc<dyn LeaseStore>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        if self.gate.is_away() {
            return Err(away());
        }
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.runtime.spawn(ask(Arc::clone(&self.inner))).await.unwrap()
    }
}

fn away() -> StoreError {
    StoreError::Unavailable("cut off by the test".into())
}

#[async_trait]
impl Store for Remote {
    fn kind(&self) -> &'static str {
        "remote"
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let key = key.to_owned();
        self.ask(move |store| async move { store.get(&key).await }).await
    }

    async fn list(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        let prefix = prefix.to_owned();
        self.ask(move |store| async move { store.list(&prefix).await }).await
    }

    async fn commit(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.ask(move |store| async move { store.commit(txn).await }).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let prefix = prefix.to_owned();
        let inner = self.ask(move |store| async move { store.watch(&prefix, after).await }).await?;
        Ok(Box::new(RemoteWatch { inner, gate: Arc::clone(&self.gate), after, was_away: false }))
    }
}

#[async_trait]
impl LeaseStore for Remote {
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.ask(move |store| async move { store.grant(ttl).await }).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask(move |store| async move { store.keep_alive(lease).await }).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask(move |store| async move { store.revoke(lease).await }).await
    }
}

/// Gets over being away as the trait says: one error, later an empty batch.
struct RemoteWatch {
    inner: Box<dyn Watch>,
    gate: Arc<Gate>,
    after: Revision,
    was_away: bool,
}

#[async_trait]
impl Watch for RemoteWatch {
    async fn next(&mut self) -> Option<Result<WatchUpdate, StoreError>> {
        loop {
            let gate = Arc::clone(&self.gate);
            let change = gate.change.notified();
            match (self.gate.is_away(), self.was_away) {
                (true, false) => {
                    self.was_away = true;
                    return Some(Err(away()));
                }
                (true, true) => change.await,
                (false, true) => {
                    self.was_away = false;
                    let back = WatchUpdate::Changes { events: vec![], revision: self.after };
                    return Some(Ok(back));
                }
                (false, false) => tokio::select! {
                    next = self.inner.next() => {
                        if let Some(Ok(WatchUpdate::Changes { revision, .. })) = &next {
                            self.after = *revision;
                        }
                        return next;
                    }
                    () = change => {}
                },
            }
        }
    }
}
