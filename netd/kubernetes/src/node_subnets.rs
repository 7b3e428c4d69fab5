//! The podCIDRs of a Node, for a node whose leases are in etcd.

use std::{io, path::Path, time::Duration};

use netd_cluster::Subnets;
use tokio::sync::watch;

use crate::{
    annotations::AnnotationPrefix,
    api::ApiServer,
    node::{Node, NodeFacts},
    options::ApiAccess,
    own_file::OwnFile,
    pace::RETRY,
};

/// Between two looks once they are known: what the controller-manager assigned stays as a rule.
const INTERVAL: Duration = Duration::from_secs(60);

/// What is known of the podCIDRs of a Node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSubnets {
    /// As the API told them last, to this start or an earlier one.
    pub subnets: Option<Subnets>,
    /// Why the API does not tell them now.
    pub problem: Option<String>,
}

/// Asks for the podCIDRs of the Node with this name again and again, until nobody reads what is
/// returned. What was told is remembered in `state_dir`, which is made if it is not there.
///
/// # Errors
/// The directory can't be made.
pub async fn follow(
    access: ApiAccess,
    node_name: String,
    state_dir: &Path,
) -> io::Result<watch::Receiver<NodeSubnets>> {
    tokio::fs::create_dir_all(state_dir).await?;
    let dir = state_dir.to_owned();
    let read = tokio::task::spawn_blocking(move || (OwnFile::read(&dir), dir)).await;
    let (file, dir) = read.map_err(io::Error::other)?;
    let remembered = file.held.filter(|_| file.node == node_name).map(|(subnets, _)| subnets);
    let (tell, told) = watch::channel(NodeSubnets { subnets: remembered, problem: None });
    let api = ApiServer::new(access, AnnotationPrefix::default());
    tokio::spawn(async move {
        let mut known = remembered;
        let mut backoff = RETRY;
        loop {
            let answer = ask(&api, &node_name).await;
            if let Ok(subnets) = answer
                && known != Some(subnets)
            {
                remember(&dir, &node_name, subnets).await;
                known = Some(subnets);
            }
            let delay = match answer.is_ok() {
                true => INTERVAL,
                false => backoff.next_delay(fastrand::f64()),
            };
            let now = NodeSubnets { subnets: known, problem: answer.err() };
            tell.send_if_modified(|old| std::mem::replace(old, now.clone()) != now);
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = tell.closed() => return,
            }
        }
    });
    Ok(told)
}

async fn ask(api: &ApiServer, name: &str) -> Result<Subnets, String> {
    let nodes = api.objects::<Node>().await.map_err(|e| e.to_string())?;
    let node = api.in_time(nodes.get_opt(name)).await.map_err(|e| e.to_string())?;
    let node = node.ok_or_else(|| format!("there is no Node {name}"))?;
    let facts = NodeFacts::of(node, &AnnotationPrefix::default());
    let subnets = facts.ok_or("the API server sent a Node without a name")?.subnets;
    let subnets = subnets.map_err(|why| format!("Node {name}: {why}"))?;
    subnets.ok_or_else(|| {
        format!(
            "Node {name} has no spec.podCIDRs; kube-controller-manager assigns them if it runs \
             with --allocate-node-cidrs"
        )
    })
}

/// A start without the API goes on with it.
async fn remember(dir: &Path, node: &str, subnets: Subnets) {
    let file = OwnFile { node: node.to_owned(), held: Some((subnets, 0)), ..OwnFile::default() };
    let to = dir.to_owned();
    let written = tokio::task::spawn_blocking(move || file.write(&to)).await;
    if let Ok(Err(error)) = written {
        let dir = dir.display();
        tracing::warn!(%error, "{dir}: {error}; a start without the API will not know the podCIDRs of Node {node}");
    }
}
