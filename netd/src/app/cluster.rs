//! Starts the node's part of a cluster: etcd or the Kubernetes API, the leases, the overlay.

use std::{fs, io, path::Path, sync::Arc};

use tokio::sync::mpsc;

use super::{kubernetes, node_subnets, pods};
use crate::config::{self, ClusterSource, Config};
use crate::node::{
    Node,
    overlay::{EtcdRecords, Overlay, OverlayParts},
};
use crate::tunnel::TunnelClient;
use netd_cluster::{
    Subnets,
    flannel::subnet_env::SubnetEnv,
    identity,
    membership::{DEFAULT_HOLD, Membership, MembershipOptions, Update},
};
use netd_store::{
    StoreError,
    etcd::{EtcdOptions, EtcdStore, EtcdTls},
    keys::ClusterKeys,
};

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

/// Starts the node's part of the cluster if one is configured. etcd may be out of reach.
///
/// # Errors
/// A certificate, the password file or the node's identity can't be read.
pub(super) async fn start(config: &Config, node: &Arc<Node>) -> Result<(), ClusterError> {
    let Some(settings) = config.overlay.clone() else { return Ok(()) };
    match &settings.source {
        ClusterSource::Etcd(etcd) => {
            let store = EtcdStore::open(options(etcd))?;
            node.metrics().external().watch_etcd(store.metrics());
            match settings.pod_cidr_of_node.clone() {
                Some(access) => node_subnets::join(config, node, settings, store, access).await,
                None => {
                    let subnets = pod_cidr(&settings);
                    join_by_etcd(config, node, settings, store, subnets).await
                }
            }
        }
        ClusterSource::Kubernetes(source) => {
            let (membership, updates) = kubernetes::join(config, node, source).await?;
            pods::follow(node, source.access.clone());
            join(config, node, settings, (membership, updates, None)).await
        }
    }
}

/// What a source gives: etcd also a place for records.
type Joined = (Arc<Membership>, mpsc::Receiver<Update>, Option<EtcdRecords>);

async fn join(
    config: &Config,
    node: &Arc<Node>,
    settings: config::Overlay,
    (membership, updates, etcd): Joined,
) -> Result<(), ClusterError> {
    let identity = identity::load(&config.state_dir)?;
    let tunnel = TunnelClient::new(&settings.tunnel_socket);
    let overlay = Overlay::new(OverlayParts { settings, membership, etcd, tunnel, identity });
    node.join_cluster(overlay, updates).await;
    Ok(())
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
    join(config, node, settings, (membership, updates, Some(EtcdRecords { store, keys }))).await
}

fn options(etcd: &config::Etcd) -> EtcdOptions {
    let tls = etcd.endpoints.iter().any(|url| url.starts_with("https:")).then(|| EtcdTls {
        ca_file: etcd.ca_file.clone(),
        cert_file: etcd.cert_file.clone(),
        key_file: etcd.key_file.clone(),
    });
    let mut options = EtcdOptions::new(etcd.endpoints.clone());
    options.tls = tls;
    if let (Some(name), Some(file)) = (&etcd.username, &etcd.password_file) {
        options.user = Some((name.clone(), String::new()));
        options.password_file = Some(file.clone());
    }
    options.request_timeout = etcd.timeout;
    options
}

fn pod_cidr(settings: &config::Overlay) -> Option<Subnets> {
    let mut subnets = Subnets { v4: None, v6: None };
    for net in &settings.pod_cidr {
        match net {
            ipnet::IpNet::V4(v4) => subnets.v4 = Some(*v4),
            ipnet::IpNet::V6(v6) => subnets.v6 = Some(*v6),
        }
    }
    (!settings.pod_cidr.is_empty()).then_some(subnets)
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
