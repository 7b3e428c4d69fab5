//! Nodes, without pods and kernel: what they have and what they know.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, ensure};
use netd_cluster::{
    LeaseAttrs, Subnets, flannel,
    membership::{Membership, MembershipOptions, PeerUpdate, Update},
};
use netd_store::{
    LeaseStore,
    etcd::{EtcdOptions, EtcdStore},
    keys::ClusterKeys,
};
use parking_lot::Mutex;
use testbed::etcd::EtcdCluster;

/// What a node told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub own: BTreeSet<Subnets>,
    pub peers: BTreeMap<String, LeaseAttrs>,
    pub refused: BTreeSet<String>,
    pub lost: Vec<Subnets>,
    /// Names of leases that were removed.
    pub removed: Vec<String>,
    pub behind: usize,
    pub caught_up: usize,
    pub updates: usize,
}

/// A node of the cluster.
pub(crate) struct Node {
    pub membership: Arc<Membership>,
    pub store: Arc<EtcdStore>,
    pub told: Arc<Mutex<Told>>,
}

pub(crate) fn attrs(ip: &str) -> Result<LeaseAttrs> {
    let text = format!(
        r#"{{"PublicIP":"{ip}","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}}}}"#
    );
    Ok(flannel::value::parse(text.as_bytes())?)
}

impl Node {
    /// Starts one with its state below `dir`.
    pub(crate) async fn start(
        etcd: &EtcdCluster,
        dir: &Path,
        n: u8,
        ttl: Duration,
    ) -> Result<Self> {
        let mut options = EtcdOptions::new(etcd.endpoints());
        options.quiet_time = Duration::from_secs(1);
        let store = EtcdStore::open(options)?;
        let options = MembershipOptions {
            keys: ClusterKeys::default(),
            state_dir: dir.join(format!("node{n}")),
            run_dir: dir.join(format!("node{n}-run")),
            node_name: format!("node{n}"),
            version: "test".to_owned(),
            ttl,
            hold: Duration::from_secs(20),
            pod_cidr: None,
            previous: None,
        };
        let shared: Arc<dyn LeaseStore> = store.clone();
        let (membership, mut updates) = Membership::start(shared, options).await?;
        membership.announce(attrs(&format!("192.0.2.{n}"))?);
        let told = Arc::new(Mutex::new(Told::default()));
        let to = Arc::clone(&told);
        tokio::spawn(async move {
            while let Some(update) = updates.recv().await {
                to.lock().take(update);
            }
        });
        Ok(Self { membership, store, told })
    }

    pub(crate) fn own(&self) -> BTreeSet<Subnets> {
        self.told.lock().own.clone()
    }
}

impl Told {
    fn take(&mut self, update: Update) {
        self.updates += 1;
        match update {
            Update::Own(own) => self.own = own.into_iter().map(|own| own.subnets).collect(),
            Update::Lost(subnets) => self.lost.push(subnets),
            Update::Behind { .. } => self.behind += 1,
            Update::CaughtUp => self.caught_up += 1,
            Update::Peers(peers) => peers.into_iter().for_each(|update| self.take_peer(update)),
            Update::Config(_)
            | Update::ConfigProblem(_)
            | Update::Identity(_)
            | Update::Addresses { .. }
            | Update::Unreadable(_)
            | Update::NoSubnet(_)
            | Update::Synced => {}
        }
    }

    fn take_peer(&mut self, update: PeerUpdate) {
        match update {
            PeerUpdate::Set { key, lease, .. } => {
                self.refused.remove(&key);
                self.peers.insert(key, lease.attrs.clone());
            }
            PeerUpdate::Removed { key } => {
                self.peers.remove(&key);
                self.refused.remove(&key);
                self.removed.push(key);
            }
            PeerUpdate::Refused { key, .. } => drop(self.refused.insert(key)),
        }
    }
}

/// Waits until each node has what it should and knows all others, and `extra` leases.
pub(crate) async fn converge(nodes: &[Node], extra: &[&str], within: Duration) -> Result<Duration> {
    let start = tokio::time::Instant::now();
    loop {
        match check(nodes, extra) {
            Ok(()) => return Ok(start.elapsed()),
            Err(error) if start.elapsed() > within => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn check(nodes: &[Node], extra: &[&str]) -> Result<()> {
    let mut all: BTreeSet<String> = extra.iter().map(|name| (*name).to_owned()).collect();
    for node in nodes {
        let status = node.membership.status();
        ensure!(status.behind.is_none(), "{status:?}");
        ensure!(!node.own().is_empty(), "a node without a subnet: {status:?}");
        for subnets in node.own() {
            let name = flannel::key::name(&subnets);
            ensure!(all.insert(name.clone()), "{name} is had twice");
        }
    }
    for (n, node) in nodes.iter().enumerate() {
        let own: BTreeSet<_> = node.own().iter().map(flannel::key::name).collect();
        let known: BTreeSet<_> = node.told.lock().peers.keys().cloned().collect();
        let expected: BTreeSet<_> = all.difference(&own).cloned().collect();
        ensure!(known == expected, "node {n} knows {known:?} instead of {expected:?}");
    }
    Ok(())
}

/// Nothing was lost, and no peer that lives was removed.
pub(crate) fn ensure_unharmed(nodes: &[Node], had: &[BTreeSet<Subnets>]) -> Result<()> {
    for (n, (node, had)) in nodes.iter().zip(had).enumerate() {
        let told = node.told.lock();
        ensure!(told.own == *had, "node {n} had {had:?} and has {:?}", told.own);
        ensure!(told.lost.is_empty(), "node {n} lost {:?}", told.lost);
        ensure!(told.removed.is_empty(), "node {n} removed {:?}", told.removed);
    }
    Ok(())
}
