//! How many requests, and how long.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use netd_store::{Change, LeaseStore as _, Store as _, Txn, etcd::Rpc};
use testbed::{block_on, case, etcd::EtcdCluster};

use super::open;

/// 10,000 keys are listed in pages, at one revision, while they change.
#[test]
fn a_long_list_comes_in_pages_at_one_revision() -> Result<()> {
    case(|bed| {
        let cluster = EtcdCluster::start(&bed.directory().join("etcd"), 1)?;
        let (store, other) = (open(&cluster)?, open(&cluster)?);
        block_on(async {
            let all = |round: u8| {
                (0..10_000).step_by(100).map(move |from| {
                    let put = |n| Change::Put {
                        key: format!("/t/{n:05}"),
                        value: vec![round; 300],
                        lease: 0,
                    };
                    Txn { compares: vec![], changes: (from..from + 100).map(put).collect() }
                })
            };
            for txn in all(1) {
                store.commit(txn).await?;
            }
            let changing = tokio::spawn(async move {
                for txn in all(2) {
                    other.commit(txn).await?;
                }
                anyhow::Ok(())
            });
            while !changing.is_finished() {
                let pages = store.metrics().read(Rpc::Page).count;
                let start = Instant::now();
                let list = store.list("/t/").await?;
                let took = start.elapsed();
                ensure!(list.entries.len() == 10_000, "{} entries", list.entries.len());
                ensure!(list.entries.is_sorted_by(|a, b| a.key < b.key));
                ensure!(list.entries.iter().all(|e| e.mod_revision <= list.revision));
                // Transactions are in the list wholly or not at all.
                let whole = |hundred: &[netd_store::Entry]| {
                    hundred.iter().all(|e| e.value[0] == hundred[0].value[0])
                };
                ensure!(list.entries.chunks(100).all(whole), "a part of a transaction");
                let pages = store.metrics().read(Rpc::Page).count - pages;
                ensure!(pages == 10, "{pages} pages");
                println!("10,000 keys in {took:?}");
            }
            changing.await?
        })
    })
}

/// Keeping a lease alive asks nothing of the other nodes, and tells them nothing.
#[test]
fn a_renewal_costs_peers_nothing() -> Result<()> {
    case(|bed| {
        let cluster = EtcdCluster::start(&bed.directory().join("etcd"), 3)?;
        let store = open(&cluster)?;
        let mut options = netd_store::etcd::EtcdOptions::new(cluster.endpoints());
        options.quiet_time = Duration::from_secs(600);
        let peer = netd_store::etcd::EtcdStore::open(options)?;
        block_on(async {
            let lease = store.grant(Duration::from_secs(600)).await?;
            let change = Change::Put { key: "/t/lease".into(), value: vec![1], lease };
            store.commit(Txn { compares: vec![], changes: vec![change] }).await?;
            let revision = peer.list("/t/").await?.revision;
            let mut watch = peer.watch("/t/", revision).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let before = peer.metrics().total();
            let start = Instant::now();
            for _ in 0..100 {
                store.keep_alive(lease).await?;
            }
            println!("one renewal in {:?}", start.elapsed() / 100);
            ensure!(store.metrics().read(Rpc::KeepAlive).count == 100);
            let told = tokio::time::timeout(Duration::from_millis(500), watch.next()).await;
            ensure!(told.is_err(), "{told:?}");
            ensure!(peer.metrics().total() == before, "the peer asked something");
            Ok(())
        })
    })
}
