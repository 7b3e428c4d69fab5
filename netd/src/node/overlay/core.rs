//! [`Overlay`]: what it owns, and how it is put together.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify};

use crate::config;
use crate::node::error::{Error, Result};
use crate::tunnel::TunnelClient;
use netd_cluster::{
    ClusterConfig, Identity, Lease, Subnets,
    backend::Command,
    desired::Desired,
    membership::{Membership, OwnSubnets},
};
use netd_dataplane::OverlaySubject;
use netd_store::{Revision, Store, keys::ClusterKeys};

/// One node's part of the cluster.
#[derive(Debug)]
pub struct Overlay {
    pub(super) settings: config::Overlay,
    pub(super) membership: Arc<Membership>,
    /// `None`: the cluster's truth is elsewhere.
    pub(super) etcd: Option<EtcdRecords>,
    pub(super) tunnel: TunnelClient,
    /// Replaced when another machine turns out to have it.
    pub(super) identity: Mutex<Identity>,
    pub(super) state: AsyncMutex<ClusterModel>,
    /// Notified when the node has other subnets than before.
    pub(super) own_changed: Notify,
}

/// netd's own keys in the cluster's etcd.
#[derive(Debug, Clone)]
pub struct EtcdRecords {
    /// The cluster's store.
    pub store: Arc<dyn Store>,
    /// Where they are in it.
    pub keys: ClusterKeys,
}

/// What is needed to make an [`Overlay`].
#[derive(Debug)]
pub struct OverlayParts {
    /// As configured.
    pub settings: config::Overlay,
    /// The membership, already started.
    pub membership: Arc<Membership>,
    /// Where nodes tell which pod has which address; `None`: the cluster's truth is elsewhere.
    pub etcd: Option<EtcdRecords>,
    /// The client of netd-tunnel.
    pub tunnel: TunnelClient,
    /// The node's keys, which it keeps over restarts.
    pub identity: Identity,
}

/// A peer's lease, with its age.
#[derive(Debug, Clone)]
pub(super) struct PeerLease {
    pub(super) lease: Arc<Lease>,
    /// Of two leases that clash the older one is in force, on every node.
    pub(super) created: Revision,
    /// When this node first saw it, seconds since the Unix epoch.
    pub(super) since: u64,
}

#[derive(Debug, Default)]
pub(super) struct ClusterModel {
    pub(super) cluster: Option<Arc<ClusterConfig>>,
    pub(super) own: Vec<OwnSubnets>,
    /// The node's own addresses, as the cluster has them.
    pub(super) addresses: (Option<Ipv4Addr>, Option<Ipv6Addr>),
    /// Subnets on their way back to the cluster: no pools are made of them any more.
    pub(super) retiring: HashSet<Subnets>,
    /// Subnets that went to another node while pods had addresses of them.
    pub(super) lost: Vec<Subnets>,
    /// Whether `own` was told: else the network's pools are as they were at the last run.
    pub(super) own_known: bool,
    pub(super) peers: BTreeMap<String, PeerLease>,
    /// Keys that can't be read, and why; the last readable lease of each is in `peers`.
    pub(super) unreadable: BTreeMap<String, String>,
    /// Whether the node's keys are another machine's, and new ones could not be written yet.
    pub(super) renew_identity: bool,
    /// What was last logged about the underlay.
    pub(super) underlay: Option<String>,
    /// `None`: too little is known to apply anything.
    pub(super) desired: Option<Desired>,
    /// Whether all peers are known: unknown objects in the kernel are leftovers then.
    pub(super) complete: bool,
    /// Whether everything was applied since this node's addresses, devices or subnets
    /// changed: what is missing later is drift.
    pub(super) settled: bool,
    /// Not all of the node's subnets could become pools of its network: it is tried again.
    pub(super) withheld: bool,
    /// What the kernel refused last, with its error.
    pub(super) refused: HashMap<OverlaySubject, String>,
    /// Why the tunnels differ from what is wanted.
    pub(super) tunnel_problem: Option<String>,
    /// The extension backend's first command, and its output.
    pub(super) extension: Option<(String, String)>,
    /// Whether the extension backend's second command was run.
    pub(super) post_started: bool,
    /// The extension backend's commands for peers that were run.
    pub(super) commanded: HashSet<Command>,
}

impl Overlay {
    /// Puts an overlay together. Nothing is done yet, see [`Overlay::start`].
    pub fn new(parts: OverlayParts) -> Arc<Self> {
        let OverlayParts { settings, membership, etcd, tunnel, identity } = parts;
        Arc::new(Self {
            settings,
            membership,
            etcd,
            tunnel,
            identity: Mutex::new(identity),
            state: AsyncMutex::default(),
            own_changed: Notify::new(),
        })
    }

    /// netd's own keys in etcd.
    ///
    /// # Errors
    /// [`Error::NoEtcd`].
    pub(super) fn etcd(&self) -> Result<&EtcdRecords> {
        self.etcd.as_ref().ok_or(Error::NoEtcd)
    }

    /// The health component that says whether the cluster's truth is in reach.
    pub(super) fn source(&self) -> &'static str {
        if self.etcd.is_some() { "etcd" } else { "kubernetes" }
    }

    /// Whether the node can't have other subnets than those that it is given.
    pub(super) fn is_fixed(&self) -> bool {
        let settings = &self.settings;
        self.etcd.is_none() || settings.pod_cidr_of_node.is_some() || !settings.pod_cidr.is_empty()
    }
}
