//! Starts the node's part of a cluster: etcd or the Kubernetes API, the leases, the overlay.

use std::sync::Arc;

use super::{
    join::{ClusterError, join, join_by_etcd},
    kubernetes, node_subnets, pods,
};
use crate::config::{self, ClusterSource, Config};
use crate::node::Node;
use netd_cluster::{Subnets, identity};
use netd_store::etcd::{EtcdOptions, EtcdStore, EtcdTls};

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
            let identity = identity::load(&config.state_dir)?;
            let (membership, updates) = kubernetes::join(config, node, source).await?;
            pods::follow(node, source.access.clone());
            join(node, settings, identity, (membership, updates, None)).await;
            Ok(())
        }
    }
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
