//! A node without its store: before it starts, while it runs, when it is back.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use netd_cluster::{
    LeaseAttrs, Subnets, flannel,
    membership::{Membership, PeerUpdate, Update},
};
use netd_store::{LeaseStore, keys::ClusterKeys};
use tokio::{sync::mpsc, time::timeout};

use super::bed::{CONFIG, Remote, attrs, memory_store, options, put, put_config};

/// A node and what it told.
struct Node {
    membership: Arc<Membership>,
    updates: mpsc::Receiver<Update>,
    own: Vec<Subnets>,
    peers: BTreeMap<String, LeaseAttrs>,
    told: Vec<Update>,
}

impl Node {
    async fn start(store: &Arc<Remote>, dir: &Path, name: &str) -> Self {
        let store: Arc<dyn LeaseStore> = store.clone();
        let (membership, updates) = Membership::start(store, options(dir, name)).await.unwrap();
        Self { membership, updates, own: vec![], peers: BTreeMap::new(), told: vec![] }
    }

    async fn next(&mut self) {
        let update = timeout(Duration::from_secs(20), self.updates.recv()).await;
        let update = update.unwrap_or_else(|_| panic!("silent after {:?}", self.told)).unwrap();
        match &update {
            Update::Own(own) => self.own = own.iter().map(|own| own.subnets).collect(),
            Update::Peers(peers) => {
                for update in peers {
                    match update {
                        PeerUpdate::Set { key, lease, .. } => {
                            self.peers.insert(key.clone(), lease.attrs.clone());
                        }
                        PeerUpdate::Removed { key } => drop(self.peers.remove(key)),
                        PeerUpdate::Refused { .. } => {}
                    }
                }
            }
            _ => {}
        }
        self.told.push(update);
    }

    async fn until(&mut self, what: impl Fn(&Self) -> bool) {
        while !what(self) {
            self.next().await;
        }
    }
}

fn lease(third: u8) -> (String, String) {
    let key = ClusterKeys::default().lease(&format!("10.5.{third}.0-24"));
    (key, flannel::value::format(&attrs(&format!("192.0.2.{third}"))))
}

#[tokio::test]
async fn a_node_starts_and_goes_on_without_its_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    put_config(&store, CONFIG).await;
    put(&store, (200..220).map(lease)).await;
    let remote = Remote::new(Arc::clone(&store));

    let mut node = Node::start(&remote, dir.path(), "a").await;
    node.membership.announce(attrs("192.0.2.1"));
    node.until(|n| !n.own.is_empty() && n.peers.len() == 20).await;
    let had = node.own.clone();
    node.membership.stop().await;

    // As after a reboot while etcd is away.
    remote.set_away(true);
    let mut node = Node::start(&remote, dir.path(), "a").await;
    node.until(|n| matches!(n.told.last(), Some(Update::Behind { .. }))).await;
    assert_eq!(node.own, had);
    assert_eq!(node.peers.len(), 20);
    assert!(matches!(node.told[0], Update::Config(_)), "{:?}", node.told[0]);
    assert!(!node.told.contains(&Update::Synced));
    let status = node.membership.status();
    assert!(status.behind.is_some() && !status.synced, "{status:?}");

    // What changes meanwhile, on both sides, is made up for.
    node.membership.announce(attrs("192.0.2.77"));
    node.membership.more().unwrap();
    put(&store, [lease(230)]).await;
    remote.set_away(false);
    node.until(|n| n.told.last() == Some(&Update::CaughtUp)).await;
    node.until(|n| n.own.len() == 2 && n.peers.len() == 21).await;
    assert!(node.told.contains(&Update::Synced));
    assert!(!node.told.iter().any(|u| matches!(u, Update::Lost(_))));
    assert_eq!(node.membership.status().behind, None);

    // And again while it runs.
    remote.set_away(true);
    node.until(|n| matches!(n.told.last(), Some(Update::Behind { .. }))).await;
    put(&store, [lease(231)]).await;
    node.membership.give_back(vec![had[0]]);
    node.until(|n| n.own.len() == 1).await;
    remote.set_away(false);
    node.until(|n| n.peers.len() == 22).await;
    let key = ClusterKeys::default().lease(&flannel::key::name(&had[0]));
    for _ in 0..100 {
        if store.get(&key).await.unwrap().is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(store.get(&key).await.unwrap().is_none(), "given back when the store was back");
    let key = ClusterKeys::default().lease(&flannel::key::name(&node.own[0]));
    let value = store.get(&key).await.unwrap().unwrap().value;
    assert_eq!(flannel::value::parse(&value).unwrap(), attrs("192.0.2.77"));
    node.membership.stop().await;
    assert!(store.get(&key).await.unwrap().is_some(), "stopping gives nothing up");
}

#[tokio::test]
async fn a_dead_nodes_leases_end_and_a_living_ones_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    put_config(&store, CONFIG).await;
    let remote = Remote::new(Arc::clone(&store));
    let doomed = Remote::new(Arc::clone(&store));
    let with_ttl = |name: &str| {
        let mut options = options(dir.path(), name);
        options.ttl = Duration::from_secs(2);
        options
    };
    let mut nodes = vec![];
    for (n, remote) in [&remote, &doomed].into_iter().enumerate() {
        let store: Arc<dyn LeaseStore> = remote.clone();
        let started = Membership::start(store, with_ttl(&format!("n{n}"))).await.unwrap();
        let (membership, updates) = started;
        membership.announce(attrs(&format!("192.0.2.{n}")));
        let (own, peers, told) = (vec![], BTreeMap::new(), vec![]);
        nodes.push(Node { membership, updates, own, peers, told });
    }
    for node in &mut nodes {
        node.until(|n| n.own.len() == 1 && n.peers.len() == 1).await;
    }
    let had = nodes[1].own.clone();
    doomed.set_away(true);
    nodes[0].until(|n| n.peers.is_empty()).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(nodes[0].own.len(), 1, "kept alive");
    // Cut off for longer than its lease: it has kept what it had, and gets it back.
    doomed.set_away(false);
    nodes[0].until(|n| n.peers.len() == 1).await;
    assert_eq!(nodes[1].own, had);
    nodes[1].until(|n| n.told.last() == Some(&Update::CaughtUp)).await;
    assert!(!nodes[1].told.iter().any(|u| matches!(u, Update::Lost(_))));
    assert_eq!(nodes[1].peers.len(), 1);
    // Its record is written after its subnets.
    let mut names = vec![];
    for _ in 0..100 {
        let listing = nodes[0].membership.list().await;
        names = listing.nodes.values().map(|n| n.name.clone()).collect();
        names.sort();
        if names == ["n0", "n1"] && listing.owners.len() == 2 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{names:?}");
}
