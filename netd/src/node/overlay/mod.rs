//! The overlay at work: this node's leases become its pools, the others' leases become
//! what the kernel and the tunnels hold.
//!
//! Who owns what:
//! - [`Membership`]: which subnets this node has, what is known of the others, on disk too;
//! - [`State`]: what follows from that ([`Desired`]), and what the kernel refused of it;
//! - the kernel and the tunnel process: what is programmed; read back, never assumed.
//!
//! News of leases and drift take one way: [`Overlay::on_update`] changes what is wanted and
//! programs the difference; whatever may differ otherwise is a [`Target::Overlay`], which
//! compares the whole. One lock is held over both, so that they never cross.

mod apply;
mod capacity;
mod command;
mod docker0;
mod local;
mod malloc_trim;
mod on_update;
mod publish;
mod read_model;
mod subnet_file;
mod tunnels;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{Mutex as AsyncMutex, Notify, mpsc};

use super::core::Node;
use crate::config;
use crate::tunnel::TunnelClient;
use netd_cluster::{
    ClusterConfig, Identity, Lease,
    backend::Command,
    desired::Desired,
    membership::{Membership, OwnSubnets, Update},
};
use netd_dataplane::OverlaySubject;
use netd_store::{Revision, Store, keys::ClusterKeys};

pub use read_model::{ClusterView, NodeView, RouteView};

/// One node's part of the cluster.
#[derive(Debug)]
pub struct Overlay {
    settings: config::Overlay,
    membership: Arc<Membership>,
    /// The cluster's.
    store: Arc<dyn Store>,
    tunnel: TunnelClient,
    identity: Identity,
    state: AsyncMutex<State>,
    /// Rung when the node has other subnets than before.
    own_changed: Notify,
}

/// What is needed to make an [`Overlay`].
#[derive(Debug)]
pub struct OverlayParts {
    /// As configured.
    pub settings: config::Overlay,
    /// Started.
    pub membership: Arc<Membership>,
    /// The cluster's.
    pub store: Arc<dyn Store>,
    /// To netd-tunnel.
    pub tunnel: TunnelClient,
    /// Kept over restarts.
    pub identity: Identity,
}

/// A peer's lease and what goes with it.
#[derive(Debug, Clone)]
struct Peer {
    lease: Arc<Lease>,
    /// Of two that contradict each other the older one counts, on every node.
    created: Revision,
    /// When this node first saw it, seconds since the Unix epoch.
    since: u64,
}

#[derive(Debug, Default)]
struct State {
    cluster: Option<Arc<ClusterConfig>>,
    own: Vec<OwnSubnets>,
    peers: BTreeMap<String, Peer>,
    /// What can't be read, and why; what was known of the key is in `peers`.
    unreadable: BTreeMap<String, String>,
    /// `None`: not known well enough to program anything.
    desired: Option<Desired>,
    /// Whether all peers are known: what is beyond them is a leftover.
    complete: bool,
    /// Whether it was all made true since this node's facts changed: from then on what
    /// is missing is somebody else's doing.
    settled: bool,
    /// The network could not be given all of the node's subnets: to be tried again.
    withheld: bool,
    /// What the kernel refused when last asked, in its words.
    refused: HashMap<OverlaySubject, String>,
    /// Why the tunnels are not as they should be.
    tunnel_problem: Option<String>,
    /// Output of the extension backend's first command, by the command.
    extension: Option<(String, String)>,
    /// Whether the command was run that follows it.
    post_started: bool,
    /// Its commands about peers in force that were run.
    commanded: HashSet<Command>,
}

impl Overlay {
    /// Puts an overlay together; nothing is done yet, see [`Overlay::start`].
    pub fn new(parts: OverlayParts) -> Arc<Self> {
        let OverlayParts { settings, membership, store, tunnel, identity } = parts;
        Arc::new(Self {
            settings,
            membership,
            store,
            tunnel,
            identity,
            state: AsyncMutex::default(),
            own_changed: Notify::new(),
        })
    }

    fn keys(&self) -> ClusterKeys {
        ClusterKeys::new(&self.settings.etcd.prefix, &self.settings.etcd.netd_prefix)
    }

    /// Follows the cluster's news for ever. What was remembered is in force before this
    /// returns, if it comes within a second: pods that are attached then have the subnet
    /// and the MTU that they had before.
    pub async fn start(self: Arc<Self>, node: Arc<Node>, mut updates: mpsc::Receiver<Update>) {
        const REMEMBERED: Duration = Duration::from_secs(1);
        node.health.bad("overlay", "waiting for the cluster's configuration and a subnet");
        // Set once, here.
        let _ = node.overlay.set(self.clone());
        let first = tokio::time::timeout(REMEMBERED, batch(&mut updates)).await;
        if let Ok(Some(first)) = first {
            self.on_update(&node, first).await;
        }
        tokio::spawn(publish::run(self.clone(), node.clone()));
        tokio::spawn(capacity::run(self.clone(), node.clone()));
        tokio::spawn(async move {
            while let Some(news) = batch(&mut updates).await {
                self.on_update(&node, news).await;
            }
        });
    }
}

/// What has come, at least one.
async fn batch(updates: &mut mpsc::Receiver<Update>) -> Option<Vec<Update>> {
    const MOST: usize = 1024;
    let mut all = Vec::new();
    (updates.recv_many(&mut all, MOST).await > 0).then_some(all)
}
