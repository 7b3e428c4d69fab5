//! The Kubernetes API as the source of the cluster's truth, and what the node tells it of itself.

use std::{io, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};

use crate::config::{self, ClusterSource, Config};
use crate::node::{self, NetworkView, Node};
use netd_cluster::membership::{DEFAULT_HOLD, Membership, Update};
use netd_dataplane::net_settings;
use netd_domain::Driver;
use netd_kubernetes::{KubernetesOptions, Problems};

/// Pods that flannel made are as they should be on a node that came from it.
const FOREIGN_PODS: &str = "foreign-pods";

/// Whether kube-proxy, or what does the same, is to be expected here.
pub(super) fn is_around(config: &Config) -> bool {
    config.overlay.as_ref().is_some_and(|overlay| {
        matches!(overlay.source, ClusterSource::Kubernetes(_)) || overlay.pod_cidr_of_node.is_some()
    })
}

/// Follows the API, and tells it whether this node is ready and what does not work.
///
/// # Errors
/// The state directory can't be made.
pub(super) async fn join(
    config: &Config,
    node: &Arc<Node>,
    kubernetes: &config::Kubernetes,
) -> io::Result<(Arc<Membership>, mpsc::Receiver<Update>)> {
    let options = KubernetesOptions {
        access: kubernetes.access.clone(),
        node_name: config.node.clone(),
        prefix: kubernetes.prefix.clone(),
        net_conf: kubernetes.net_conf.clone(),
        state_dir: config.state_dir.join("kubernetes"),
        hold: DEFAULT_HOLD,
        readiness: kubernetes.network_condition.then(|| follow_readiness(node.clone())),
        problems: follow_problems(node.clone()),
    };
    netd_kubernetes::start(options).await
}

/// What the Node's condition is to say: whether this node is ready, or why not.
fn follow_readiness(node: Arc<Node>) -> watch::Receiver<Result<(), String>> {
    /// Reasons change without a change of readiness.
    const INTERVAL: Duration = Duration::from_secs(5);
    let (tell, told) = watch::channel(node.health().ready());
    tokio::spawn(async move {
        let mut ready = node.health().watch();
        loop {
            let changed = tokio::time::timeout(INTERVAL, ready.changed()).await;
            if tell.is_closed() || matches!(changed, Ok(Err(_))) {
                return;
            }
            let now = node.health().ready();
            tell.send_if_modified(|old| std::mem::replace(old, now.clone()) != now);
        }
    });
    told
}

/// What the Node's events are to tell: all that does not work, and networks without an address left.
fn follow_problems(node: Arc<Node>) -> watch::Receiver<Problems> {
    const INTERVAL: Duration = Duration::from_secs(5);
    let (tell, told) = watch::channel(Problems::new());
    tokio::spawn(async move {
        while !tell.is_closed() {
            note_bridge_filter(&node);
            let now = problems(&node);
            tell.send_if_modified(|old| {
                *old != now && {
                    *old = now.clone();
                    true
                }
            });
            tokio::time::sleep(INTERVAL).await;
        }
    });
    told
}

/// kube-proxy translates the addresses of Services on the way through iptables or nftables, which
/// what is only bridged does not pass without br_netfilter.
fn note_bridge_filter(node: &Node) {
    const PART: &str = "network/br_netfilter";
    let is_bridge = |network: &NetworkView| network.state.network.driver == Driver::Bridge;
    let bridged = node.networks().iter().any(is_bridge);
    if bridged && !net_settings().join("bridge").exists() {
        let why = "br_netfilter is not loaded: a Service does not answer a pod when one of its pods \
                   on the same node is chosen; modprobe br_netfilter, and put it into \
                   /etc/modules-load.d/, or use the driver \"routed\"";
        node.health().advise(PART, why);
    } else {
        node.health().forget(PART);
    }
}

fn problems(node: &Node) -> Problems {
    let parts = node.health().parts().into_iter().filter(|part| part.name != FOREIGN_PODS);
    let mut all: Problems = parts.filter_map(|part| Some((part.name, part.problem?))).collect();
    for network in node.networks() {
        let name = &network.state.network.name;
        // A network that does not work is a part of its own.
        if let Some(full @ node::Error::Ipam { .. }) = node.obstacle(name) {
            all.entry(format!("network/{name}")).or_insert_with(|| full.to_string());
        }
    }
    all
}
