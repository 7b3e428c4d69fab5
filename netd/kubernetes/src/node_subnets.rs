//! The podCIDRs of a Node, for a node whose leases are in etcd.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use netd_cluster::Subnets;
use tokio::{sync::watch, time::timeout};

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

/// How long a start waits for the API before it goes on with what it remembers, or without.
const FIRST_ANSWER: Duration = Duration::from_secs(3);

/// What is known of the podCIDRs of a Node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSubnets {
    /// As the API told them last, to this start or an earlier one.
    pub subnets: Option<Subnets>,
    /// Why the API does not tell them now.
    pub problem: Option<String>,
}

/// Asks for the podCIDRs of the Node with this name again and again, until nobody reads what is
/// returned: at first what the API said within a short time, else what an earlier start remembered
/// in `state_dir`, which is made if it is not there.
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
    let api = ApiServer::new(access, AnnotationPrefix::default());
    let mut looker = Looker { api, node: node_name, dir, file };
    // What is remembered may be another Node's by now: the API's word goes first.
    let first = timeout(FIRST_ANSWER, looker.look()).await;
    let late = |_| format!("no answer within {FIRST_ANSWER:?}");
    let (tell, told) = watch::channel(looker.known(first.map_err(late).and_then(|found| found)));
    tokio::spawn(async move {
        let mut backoff = RETRY;
        let mut delay = RETRY.clone().next_delay(fastrand::f64());
        loop {
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = tell.closed() => return,
            }
            let found = looker.look().await;
            delay = match found.is_ok() {
                true => {
                    backoff.reset();
                    INTERVAL.mul_f64(1.0 + fastrand::f64() / 5.0)
                }
                false => backoff.next_delay(fastrand::f64()),
            };
            let now = looker.known(found);
            tell.send_if_modified(|old| std::mem::replace(old, now.clone()) != now);
        }
    });
    Ok(told)
}

/// Asks the API, and remembers.
struct Looker {
    api: ApiServer,
    node: String,
    dir: PathBuf,
    /// As it is on disk.
    file: OwnFile,
}

impl Looker {
    /// What the API says, which is on disk then if the disk takes it.
    async fn look(&mut self) -> Result<Subnets, String> {
        let subnets = ask(&self.api, &self.node).await?;
        if self.remembered() != Some(subnets) {
            self.remember(subnets).await;
        }
        Ok(subnets)
    }

    fn remembered(&self) -> Option<Subnets> {
        self.file.held.filter(|_| self.file.node == self.node).map(|(subnets, _)| subnets)
    }

    fn known(&self, found: Result<Subnets, String>) -> NodeSubnets {
        match found {
            Ok(subnets) => NodeSubnets { subnets: Some(subnets), problem: None },
            Err(problem) => NodeSubnets { subnets: self.remembered(), problem: Some(problem) },
        }
    }

    /// A start without the API goes on with it. The rest of the file is another mode's.
    async fn remember(&mut self, subnets: Subnets) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let mut file = self.file.clone();
        (file.node, file.held) = (self.node.clone(), Some((subnets, since)));
        let (to, written) = (self.dir.clone(), file.clone());
        let done = tokio::task::spawn_blocking(move || written.write(&to)).await;
        match done.unwrap_or_else(|e| Err(io::Error::other(e))) {
            Ok(()) => self.file = file,
            Err(error) => {
                let (dir, node) = (self.dir.display(), &self.node);
                tracing::warn!(%error, "{dir}: {error}; a start without the API will not know the podCIDRs of Node {node}; trying again");
            }
        }
    }
}

async fn ask(api: &ApiServer, name: &str) -> Result<Subnets, String> {
    let nodes = api.objects::<Node>().await.map_err(|e| e.to_string())?;
    let node = api.in_time(nodes.get_opt(name)).await.map_err(|e| e.to_string())?;
    let node = node.ok_or_else(|| format!("there is no Node {name}"))?;
    let facts = NodeFacts::of(node, &AnnotationPrefix::default());
    facts.ok_or("the API server sent a Node without a name")?.assigned()
}
