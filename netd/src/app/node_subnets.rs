//! Joins a cluster of etcd with the subnets that the Kubernetes API has for this machine's Node.

use std::{sync::Arc, time::Duration};

use super::{
    join::{self, ClusterError},
    pods,
};
use crate::config::{Config, Overlay};
use crate::node::Node;
use netd_cluster::Subnets;
use netd_kubernetes::{
    ApiAccess,
    node_subnets::{self, NodeSubnets},
};
use netd_store::etcd::EtcdStore;
use tokio::sync::watch;

/// The component in `netd status`.
const COMPONENT: &str = "overlay/pod-cidr";

/// Joins as soon as the subnets are known: at once where the API tells them, or an earlier start
/// learned them.
///
/// # Errors
/// The state directory can't be made.
pub(super) async fn join(
    config: &Config,
    node: &Arc<Node>,
    settings: Overlay,
    store: Arc<EtcdStore>,
    access: ApiAccess,
) -> Result<(), ClusterError> {
    pods::follow(node, access.clone());
    let directory = config.state_dir.join("kubernetes");
    let mut told = node_subnets::follow(access, config.node.clone(), &directory).await?;
    let first = told.borrow().clone();
    if let Some(subnets) = first.subnets {
        // Before pods can ask for an address.
        join::join_by_etcd(config, node, settings, store, Some(subnets)).await?;
        tokio::spawn(compare(Arc::clone(node), subnets, told));
        return Ok(());
    }
    // Before the node can be asked whether it is ready.
    say_waiting(node, &first);
    let (config, node) = (config.clone(), Arc::clone(node));
    tokio::spawn(async move {
        let Some(subnets) = wait_known(&node, &mut told).await else { return };
        join_at_last(&config, &node, &settings, &store, subnets).await;
        compare(node, subnets, told).await;
    });
    Ok(())
}

/// Joins, however often the disk refuses.
async fn join_at_last(
    config: &Config,
    node: &Arc<Node>,
    settings: &Overlay,
    store: &Arc<EtcdStore>,
    subnets: Subnets,
) {
    const RETRY: Duration = Duration::from_secs(5);
    while let Err(error) =
        join::join_by_etcd(config, node, settings.clone(), store.clone(), Some(subnets)).await
    {
        node.health().bad(COMPONENT, error);
        tokio::time::sleep(RETRY).await;
    }
}

/// Says when the Node has other podCIDRs than the node leases.
async fn compare(node: Arc<Node>, subnets: Subnets, mut told: watch::Receiver<NodeSubnets>) {
    loop {
        let NodeSubnets { subnets: now, problem } = told.borrow_and_update().clone();
        let other = now.filter(|now| *now != subnets);
        let changed = other.map(|other| changed(&node.config().node, &subnets, &other));
        // The lease stays as it is.
        match changed.or(problem) {
            Some(why) => node.health().advise(COMPONENT, why),
            None => node.health().good(COMPONENT),
        }
        if told.changed().await.is_err() {
            return;
        }
    }
}

/// Waits for them; what they wait for is said. `None`: nobody tells any more.
async fn wait_known(node: &Node, told: &mut watch::Receiver<NodeSubnets>) -> Option<Subnets> {
    loop {
        let now = told.borrow_and_update().clone();
        if now.subnets.is_some() {
            return now.subnets;
        }
        say_waiting(node, &now);
        told.changed().await.ok()?;
    }
}

fn say_waiting(node: &Node, now: &NodeSubnets) {
    let why = now.problem.as_deref().unwrap_or("the Kubernetes API is asked");
    node.health().bad(COMPONENT, format!("waiting for the Node's podCIDRs: {why}"));
}

fn changed(node: &str, leased: &Subnets, now: &Subnets) -> String {
    let shown =
        |subnets: &Subnets| subnets.iter().map(|net| net.to_string()).collect::<Vec<_>>().join(",");
    format!(
        "Node {node} has the podCIDRs {} now, this node leases {}: drain it and restart netd",
        shown(now),
        shown(leased)
    )
}
