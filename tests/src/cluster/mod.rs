//! Many nodes: network namespaces on one underlay, each with a netd, and a real etcd that
//! they share.

mod faults;
pub mod flannel;
mod flanneld;
mod node;
mod plan;
pub mod reach;
pub mod traffic;

use std::{path::Path, thread, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;

pub use self::{
    flanneld::Flanneld,
    node::Node,
    plan::{Families, PREFIX, Plan, network_config},
};
use crate::{
    bed::Bed,
    etcd::{EtcdCluster, EtcdSetup, Place},
    hook::Sandbox,
    host::Host,
    wait,
};

/// Until all nodes know each other. Attempts that collide are repeated after a while.
const CONVERGED_WITHIN: Duration = Duration::from_secs(20);

/// Nodes and their etcd.
#[derive(Debug)]
pub struct Cluster {
    /// How it was made.
    pub plan: Plan,
    /// The store.
    pub etcd: EtcdCluster,
    /// The nodes: `n0`, `n1`, ...
    pub nodes: Vec<Node>,
    /// Where the members of etcd are.
    pub members: Vec<Host>,
}

impl Cluster {
    /// Starts everything and waits until each node reaches all others.
    pub fn start(bed: &Bed, plan: &Plan) -> Result<Self> {
        let cluster = Self::launch(bed, plan)?;
        cluster.wait_converged()?;
        Ok(cluster)
    }

    /// Starts everything and waits until each netd is ready.
    pub fn launch(bed: &Bed, plan: &Plan) -> Result<Self> {
        let mut cluster = Self::prepare(bed, plan)?;
        for number in 0..plan.nodes {
            cluster.nodes.push(Node::launch(bed, plan, &cluster.etcd, number)?);
        }
        for node in &mut cluster.nodes {
            node.netd.wait_ready()?;
        }
        Ok(cluster)
    }

    /// An etcd with the cluster's configuration, and no node yet.
    pub fn prepare(bed: &Bed, plan: &Plan) -> Result<Self> {
        let names = (0..plan.members).map(|number| format!("{}etcd{number}", plan.name));
        let members = names.map(|name| bed.host(&name)).collect::<Result<Vec<_>>>()?;
        let directory = bed.directory().join(format!("{}etcd", plan.name));
        let etcd = start_etcd(&directory, &members, plan.underlay_v4)?;
        let cluster = Self { plan: plan.clone(), etcd, nodes: Vec::new(), members };
        cluster.configure(&plan.config)?;
        Ok(cluster)
    }

    /// One more node; nothing is waited for.
    pub fn add(&mut self, bed: &Bed) -> Result<&mut Node> {
        let number = self.nodes.len();
        self.nodes.push(Node::launch(bed, &self.plan, &self.etcd, number)?);
        self.nodes.last_mut().context("no node")
    }

    /// One more node, once it is ready.
    pub fn join(&mut self, bed: &Bed) -> Result<&mut Node> {
        let node = self.add(bed)?;
        node.netd.wait_ready()?;
        Ok(node)
    }

    /// Writes `<prefix>/config`.
    pub fn configure(&self, config: &Value) -> Result<()> {
        self.etcd.ctl(&["put", &format!("{PREFIX}/config"), &config.to_string()]).map(drop)
    }

    /// Waits until every node that runs has its way to all that run.
    pub fn wait_converged(&self) -> Result<()> {
        let all: Vec<&Node> = self.nodes.iter().collect();
        wait_converged(&all)
    }

    /// One pod on each node, attached through the hook.
    pub fn pods(&self) -> Result<Vec<Sandbox>> {
        // Each is a few processes: side by side.
        thread::scope(|scope| {
            let attach = |node| move || Sandbox::attached(node, "pod");
            let threads: Vec<_> =
                self.nodes.iter().map(|node| scope.spawn(attach(&node.host))).collect();
            let joined = threads.into_iter().map(|t| t.join().map_err(|_| anyhow!("panicked"))?);
            joined.collect()
        })
    }

    /// Key and value of all leases, as etcd has them.
    pub fn leases(&self) -> Result<Vec<(String, String)>> {
        self.keys(&format!("{PREFIX}/subnets/"))
    }

    /// Key (without the prefix) and value of all that is under `prefix`.
    pub fn keys(&self, prefix: &str) -> Result<Vec<(String, String)>> {
        let text = self.etcd.ctl(&["get", "--prefix", prefix])?;
        let lines: Vec<&str> = text.lines().collect();
        let pairs = lines.chunks_exact(2).filter_map(|pair| {
            let key = pair.first()?.strip_prefix(prefix)?;
            Some((key.to_owned(), pair.last().copied()?.to_owned()))
        });
        Ok(pairs.collect())
    }
}

/// Waits until each of these has its way to all of them.
pub fn wait_converged(nodes: &[&Node]) -> Result<()> {
    for node in nodes {
        wait::until(CONVERGED_WITHIN, &format!("{} reaches all", node.host.name), || {
            let listed = node.listed()?;
            for other in nodes {
                let name = &other.host.name;
                let mut found = listed.nodes.iter().filter(|n| n.node == *name).peekable();
                ensure!(found.peek().is_some(), "{name} is not there: {:?}", listed.nodes);
                let missing = found.find(|n| !n.programmed && !n.local);
                ensure!(missing.is_none(), "not programmed: {missing:?}");
            }
            let status = node.netd.status()?;
            ensure!(status.ready, "not ready: {:?}", status.components);
            Ok(())
        })?;
    }
    Ok(())
}

fn start_etcd(directory: &Path, members: &[Host], v4: bool) -> Result<EtcdCluster> {
    let places = members.iter().map(|host| Place {
        address: if v4 { host.v4.into() } else { host.v6.into() },
        net: Some(host.net.path().to_owned()),
    });
    EtcdCluster::start_with(directory, EtcdSetup::on(places.collect()))
}
