//! Joins a cluster whose truth is known how to be reached.

use std::{fs, io, path::Path, sync::Arc};

use tokio::sync::mpsc;

use crate::config::{self, ClusterSource, Config};
use crate::node::{
    Node,
    overlay::{EtcdRecords, Overlay, OverlayParts},
};
use crate::tunnel::TunnelClient;
use netd_cluster::{
    Subnets,
    flannel::subnet_env::SubnetEnv,
    identity::{self, Identity},
    membership::{DEFAULT_HOLD, Membership, MembershipOptions, Update},
};
use netd_store::{StoreError, etcd::EtcdStore, keys::ClusterKeys};

/// Why the node can't join its cluster; only problems that waiting does not solve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// The settings for etcd are unusable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file can't be read.
    #[error("{0}")]
    File(#[from] io::Error),
}

/// What a source gives: etcd also a place for records.
pub(super) type Joined = (Arc<Membership>, mpsc::Receiver<Update>, Option<EtcdRecords>);

/// Makes the node's part of the cluster and starts it.
pub(super) async fn join(
    node: &Arc<Node>,
    settings: config::Overlay,
    identity: Identity,
    (membership, updates, etcd): Joined,
) {
    let tunnel = TunnelClient::new(&settings.tunnel_socket);
    let overlay = Overlay::new(OverlayParts { settings, membership, etcd, tunnel, identity });
    node.join_cluster(overlay, updates).await;
}

/// Joins by the leases in `store`. `pod_cidr`: the only subnets that the node is to have.
///
/// # Errors
/// The node's identity can't be read.
pub(super) async fn join_by_etcd(
    config: &Config,
    node: &Arc<Node>,
    settings: config::Overlay,
    store: Arc<EtcdStore>,
    pod_cidr: Option<Subnets>,
) -> Result<(), ClusterError> {
    let ClusterSource::Etcd(etcd) = &settings.source else { return Ok(()) };
    // Before anything is leased.
    let identity = identity::load(&config.state_dir)?;
    let keys = ClusterKeys::new(&etcd.prefix, &etcd.netd_prefix);
    let options = MembershipOptions {
        keys: keys.clone(),
        state_dir: config.state_dir.join("overlay"),
        run_dir: config.run_dir.join("overlay"),
        node_name: config.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ttl: settings.lease_ttl,
        hold: DEFAULT_HOLD,
        pod_cidr,
        previous: settings.subnet_file.as_deref().and_then(previous),
    };
    let (membership, updates) = Membership::start(store.clone(), options).await?;
    let records = Some(EtcdRecords { store, keys });
    join(node, settings, identity, (membership, updates, records)).await;
    Ok(())
}

/// This node's subnets as flannel, or an earlier netd, wrote them to its file.
fn previous(path: &Path) -> Option<Subnets> {
    let text = fs::read_to_string(path).ok()?;
    match SubnetEnv::parse(&text) {
        Ok(env) => env.subnets(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot read flannel's subnet file; it will be overwritten");
            None
        }
    }
}
