//! A large cluster: what a start, a renewal and a change cost.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use netd_cluster::{
    flannel,
    membership::{Membership, Update},
};
use netd_store::{LeaseStore, keys::ClusterKeys};
use tokio::time::timeout;

use super::bed::{Remote, attrs, memory_store, options, put, put_config};

const PEERS: usize = 10_000;
const CONFIG: &str = r#"{"Network":"10.0.0.0/8","SubnetLen":24,"Backend":{"Type":"vxlan"}}"#;

fn lease(n: usize) -> (String, String) {
    let key = ClusterKeys::default().lease(&format!("10.{}.{}.0-24", 100 + n / 256, n % 256));
    (key, flannel::value::format(&attrs(&format!("172.16.{}.{}", n / 256, n % 256))))
}

/// Requests and writes so far.
fn counts(remote: &Remote) -> (usize, usize) {
    (remote.requests.load(Ordering::SeqCst), remote.writes.load(Ordering::SeqCst))
}

/// CPU time of this process.
fn cpu() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    let time = |t: nix::sys::time::TimeVal| {
        Duration::from_secs(t.tv_sec() as u64) + Duration::from_micros(t.tv_usec() as u64)
    };
    time(usage.user_time()) + time(usage.system_time())
}

#[tokio::test]
async fn ten_thousand_peers_cost_a_handful_of_requests() {
    let dir = tempfile::tempdir().unwrap();
    let store = memory_store();
    put_config(&store, CONFIG).await;
    for chunk in (0..PEERS).collect::<Vec<_>>().chunks(1000) {
        put(&store, chunk.iter().map(|n| lease(*n))).await;
    }
    let remote = Remote::new(Arc::clone(&store));
    let shared: Arc<dyn LeaseStore> = remote.clone();
    let start = Instant::now();
    let (membership, mut updates) =
        Membership::start(shared, options(dir.path(), "a")).await.unwrap();
    membership.announce(attrs("192.0.2.1"));
    let (mut peers, mut own, mut synced) = (0, 0, None);
    while peers < PEERS || own == 0 || synced.is_none() {
        match timeout(Duration::from_secs(30), updates.recv()).await.unwrap().unwrap() {
            Update::Peers(some) => peers += some.len(),
            Update::Own(subnets) => own = subnets.len(),
            Update::Synced => synced = Some(start.elapsed()),
            _ => {}
        }
    }
    let whole = start.elapsed();
    // The node's record comes after its subnet.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let at_start = counts(&remote);
    println!(
        "{PEERS} peers: listed after {synced:?}, own subnet after {whole:?}, {at_start:?} requests, writes"
    );
    // Two lists, two watches, a lease, a subnet, the node's record.
    assert!(at_start.0 <= 8 && at_start.1 <= 3, "{at_start:?} requests, writes");

    // Every peer renews as flannel does: no request, nothing told.
    let before = cpu();
    for chunk in (0..PEERS).collect::<Vec<_>>().chunks(1000) {
        put(&store, chunk.iter().map(|n| lease(*n))).await;
    }
    let told = timeout(Duration::from_secs(1), updates.recv()).await;
    assert!(told.is_err(), "{told:?}");
    assert_eq!(counts(&remote), at_start);
    println!("{PEERS} renewals of flannel's, store and all: {:?} CPU", cpu() - before);

    // One changes: told at once.
    let (key, value) = lease(4321);
    let value = value.replace("172.16.", "172.17.");
    let start = Instant::now();
    put(&store, [(key, value)]).await;
    let told = timeout(Duration::from_secs(5), updates.recv()).await.unwrap().unwrap();
    println!("one change told after {:?}", start.elapsed());
    assert!(matches!(told, Update::Peers(some) if some.len() == 1));
    membership.stop().await;
    let file = std::fs::metadata(dir.path().join("a/overlay-peers.json")).unwrap().len();
    println!("remembered in {file} bytes");

    // Without the store.
    remote.set_away(true);
    let start = Instant::now();
    let shared: Arc<dyn LeaseStore> = remote.clone();
    let (_membership, mut updates) =
        Membership::start(shared, options(dir.path(), "a")).await.unwrap();
    let mut peers = 0;
    while peers < PEERS {
        if let Update::Peers(some) = updates.recv().await.unwrap() {
            peers += some.len();
        }
    }
    println!("{PEERS} peers from disk after {:?}", start.elapsed());
}
